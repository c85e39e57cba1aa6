"""Reading: a snapshot of the asked-for freshness, lookups by name, and pages of lists.

A page goes by key, not by position, so that what is created or deleted between two pages neither repeats nor hides
anything else. The continue token is the last key of the page before, made opaque.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends
from starlette.requests import Request

from controlplane.api.http import params, problems
from controlplane.api.http.access import Asker, asker_of
from controlplane.api.http.context import STALE
from controlplane.api.http.params import ConsistencyParam
from controlplane.api.http.services import Services, services_in
from controlplane.api.http.views import Record
from controlplane.machine.state import State
from controlplane.model.commands import (
    Act,
    ActOnHost,
    Adopt,
    Command,
    ConfirmOff,
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    DeclarePlacementPolicy,
    DeclareRole,
    DeclareRoleBinding,
    Delete,
    Hold,
    HoldKind,
    Release,
)
from controlplane.model.groups import MicroVMGroup
from controlplane.model.policies import KIND_DECLARED
from controlplane.model.resources import (
    FailoverPolicy,
    GCPolicy,
    Host,
    Meta,
    MicroVM,
    Namespace,
    PlacementPolicy,
    Role,
    RoleBinding,
)
from controlplane.model.types import Kind

Item = TypeVar("Item")
Declared = TypeVar(
    "Declared", Host, Namespace, MicroVMGroup, PlacementPolicy, FailoverPolicy, GCPolicy, Role, RoleBinding
)


async def snapshot(services: Services, *, stale: bool = False) -> State:
    """The state to answer from. Raises NoLeaderError when freshness cannot be had."""
    if stale:
        return services.reader.state
    return await services.reader.fresh(timeout_s=services.settings.read_timeout_s)


async def _asked_snapshot(request: Request, consistency: ConsistencyParam = "linearizable") -> State:
    # It looks for the services itself: a dependency of a dependency costs as much again.
    stale = consistency == "stale"
    if stale:
        setattr(request.state, STALE, True)
    return await snapshot(services_in(request), stale=stale)


Snapshot = Annotated[State, Depends(_asked_snapshot)]


def is_stale(request: Request) -> bool:
    """Whether the request's snapshot was asked for as it is."""
    return bool(getattr(request.state, STALE, False))


# -- one object --------------------------------------------------------------------------------------------------------


def find(state: State, kind: Kind, namespace: str | None, name: str) -> Record | None:
    """What is declared under a name; an agent's host that nobody declared is not."""
    match kind:
        case Kind.MICROVM:
            return state.microvm(namespace or "", name)
        case Kind.MICROVM_GROUP:
            return state.microvm_group(namespace or "", name)
        case Kind.HOST:
            host = state.hosts.get(name)
            return host if host is not None and host.declared else None
        case Kind.NAMESPACE:
            return state.namespaces.get(name)
        case Kind.PLACEMENT_POLICY | Kind.FAILOVER_POLICY | Kind.GC_POLICY | Kind.ROLE | Kind.ROLE_BINDING:
            return state.policies_of(kind).get(name)
        case Kind.OPERATION:
            return None


def find_for(state: State, command: Command) -> Record | None:
    """What a user's command is about, as it stands in `state`."""
    match command:
        case DeclareMicroVM() | Act():
            return state.microvm(command.namespace, command.name)
        case DeclareMicroVMGroup():
            return state.microvm_group(command.namespace, command.name)
        case DeclareHost():
            return find(state, Kind.HOST, None, command.name)
        case ConfirmOff() | ActOnHost():
            return find(state, Kind.HOST, None, command.host)
        case DeclareNamespace():
            return state.namespaces.get(command.name)
        case (
            DeclarePlacementPolicy()
            | DeclareFailoverPolicy()
            | DeclareGCPolicy()
            | DeclareRole()
            | DeclareRoleBinding()
        ):
            return find(state, KIND_DECLARED[type(command)], None, command.name)
        case Adopt():
            return find_for(state, command.declaration)
        case Hold() | Release():
            return _held(state, command)
        case Delete():
            return find(state, command.kind, command.namespace, command.name)
        case _:
            return None


def _held(state: State, command: Hold | Release) -> Record | None:
    match command.kind:
        case HoldKind.MICROVM:
            return state.microvm(command.namespace or "", command.name)
        case HoldKind.HOST:
            return find(state, Kind.HOST, None, command.name)
        case HoldKind.FOUND:
            return state.hosts.get(command.host or "")


def microvm(state: State, namespace: str, name: str) -> MicroVM:
    """Raises ApiError 404, which says whether the namespace is missing too."""
    vm = state.microvm(namespace, name)
    if vm is None:
        require_namespace(state, namespace)
        raise problems.not_found("microVM", f"{namespace}/{name}")
    return vm


def host(state: State, name: str, *, include_pending: bool) -> Host:
    found = state.hosts.get(name)
    if found is None or not (found.declared or include_pending):
        raise problems.not_found("host", name)
    return found


def require_namespace(state: State, name: str) -> None:
    if name not in state.namespaces:
        message = f"namespace {name} does not exist"
        raise problems.problem(
            "namespace_not_found", message, problems.FieldError(pointer="/namespace", message=message)
        )


# -- lists -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a list is asked for: of what is named or labelled so, and what the caller may see, the next page."""

    asker: Asker
    name: str | None
    labels: Mapping[str, str]
    limit: int
    after: str | None

    def page(self, objects: Mapping[str, Declared]) -> tuple[list[Declared], str | None]:
        """See `page`; keys are names, with the namespace before those that are in one."""
        return page(
            objects.items(),
            limit=self.limit,
            after=self.after,
            keep=lambda item: matches(item.meta, self.name, self.labels) and self.asker.sees(item.meta),
        )


async def list_query(
    request: Request,
    label: params.LabelFilter = [],  # noqa: B006
    name: params.NameFilter = None,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> ListQuery:
    return ListQuery(
        asker=await asker_of(request), name=name, labels=params.parse_labels(label), limit=limit, after=after
    )


Wanted = Annotated[ListQuery, Depends(list_query)]


def matches(meta: Meta, name: str | None, labels: Mapping[str, str]) -> bool:
    if name is not None and meta.name != name:
        return False
    return all(meta.labels.get(key) == value for key, value in labels.items())


def page(
    items: Iterable[tuple[str, Item]], *, limit: int, after: str | None, keep: Callable[[Item], bool]
) -> tuple[list[Item], str | None]:
    """The next `limit` items that `keep` accepts, in order of their keys, and the token of the page that follows."""
    start = _decode(after) if after is not None else ""
    chosen = heapq.nsmallest(limit + 1, ((key, item) for key, item in items if key > start and keep(item)), key=_key)
    following = _encode(chosen[limit - 1][0]) if len(chosen) > limit else None
    return [item for _, item in chosen[:limit]], following


def _key(pair: tuple[str, object]) -> str:
    return pair[0]


def _encode(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decode(token: str) -> str:
    try:
        return base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise problems.invalid("/query/continue", "is not a token of this API") from None
