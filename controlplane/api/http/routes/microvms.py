"""MicroVMs: declare, read (with a long poll), delete, list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http import declaring, params, problems, reads, sealing, shapes, views, writes
from controlplane.api.http.access import Asker, Asking
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import MicroVMBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.api.http.wait import WAIT_HEADER, WaitEnd, WaitFor, wait_until
from controlplane.machine.state import State
from controlplane.model.access import Verb
from controlplane.model.commands import Delete
from controlplane.model.resources import MicroVM
from controlplane.model.types import Kind

router = APIRouter(tags=["MicroVMs"], route_class=StrictRoute)
_ONE = "/namespaces/{namespace}/microvms/{name}"
_WAIT_HEADERS = {
    WAIT_HEADER: {
        "description": "With `wait_for`: how the wait ended.",
        "schema": {"type": "string", "enum": [end.value for end in WaitEnd]},
    }
}


@router.put(
    _ONE, response_model=shapes.DeclaredMicroVM | shapes.DryRun, responses={201: {"model": shapes.DeclaredMicroVM}}
)
async def declare_microvm(
    asked: declaring.Declaring,
    namespace: params.NamespaceParam,
    name: params.NameParam,
    body: MicroVMBody,
) -> Response:
    """Create or change a microVM."""
    command = body.command(namespace, name, uid=asked.new_uid(), when=asked.when)
    warnings = writes.warnings_for(body.spec)
    command = await sealing.sealed(asked.services, command, body.sensitive_metadata, dry_run=asked.dry_run)
    return await declaring.declare(asked, command, warnings=warnings)


@router.get(_ONE, response_model=shapes.MicroVMResource, responses={200: {"headers": _WAIT_HEADERS}})
async def read_microvm(
    services: With,
    request: Request,
    state: reads.Snapshot,
    namespace: params.NamespaceParam,
    name: params.NameParam,
    wait_for: Annotated[WaitFor | None, Query(description="Answer as soon as it is so, or at the deadline.")] = None,
    wait_s: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False, description="How long to wait.")] = 20,
    generation: Annotated[int | None, Query(ge=1, description="The least generation that counts.")] = None,
) -> Response:
    """Read a microVM; with `wait_for`, once it is as asked."""
    vm = reads.microvm(state, namespace, name)
    if wait_for is None:
        return respond(views.microvm(state, vm), state)
    wait_s = min(wait_s, services.settings.max_wait_s)
    state, end = await wait_until(
        services, request, state, vm.meta.uid, wait_for, generation, wait_s, stale=reads.is_stale(request)
    )
    headers = {WAIT_HEADER: end.value}
    last = state.microvms.get(vm.meta.uid)
    if last is None:
        gone = problems.not_found("microVM", f"{namespace}/{name}")
        gone.headers.update(headers)
        raise gone
    return respond(views.microvm(state, last), state, headers=headers)


@router.delete(_ONE, response_model=shapes.MicroVMResource, responses={202: {"model": shapes.MicroVMResource}})
async def delete_microvm(
    services: With,
    actor: Actor,
    namespace: params.NamespaceParam,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Ask for its end: 202 until its host confirms that nothing is left, 200 when it is gone at once."""
    command = Delete(kind=Kind.MICROVM, namespace=namespace, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.get("/microvms/by-uid/{uid}", response_model=shapes.MicroVMResource)
async def read_microvm_by_uid(asker: Asking, state: reads.Snapshot, uid: params.UidParam) -> Response:
    """Read the microVM with this uid, whatever it is called."""
    vm = state.microvms.get(uid)
    if vm is None:
        raise problems.not_found("microVM", uid, pointer="/uid")
    await asker.require_for(Verb.READ, vm.meta)
    return respond(views.microvm(state, vm), state)


@router.get("/microvms", response_model=shapes.MicroVMList)
async def list_all_microvms(
    asker: Asking,
    state: reads.Snapshot,
    label: params.LabelFilter = [],  # noqa: B006
    name: params.NamesFilter = [],  # noqa: B006
    host: params.HostFilter = None,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> Response:
    """List those of every namespace, in order of namespace and name."""
    return await _list(asker, state, None, label, name, host, limit, after)


@router.get("/namespaces/{namespace}/microvms", response_model=shapes.MicroVMList)
async def list_microvms(
    asker: Asking,
    state: reads.Snapshot,
    namespace: params.NamespaceParam,
    label: params.LabelFilter = [],  # noqa: B006
    name: params.NamesFilter = [],  # noqa: B006
    host: params.HostFilter = None,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> Response:
    """List those of one namespace, in order of name."""
    reads.require_namespace(state, namespace)
    return await _list(asker, state, namespace, label, name, host, limit, after)


async def _list(
    asker: Asker,
    state: State,
    namespace: str | None,
    label: list[str],
    names: list[str],
    host: str | None,
    limit: int,
    after: str | None,
) -> Response:
    labels = params.parse_labels(label)

    def keep(uid: str) -> bool:
        vm: MicroVM = state.microvms[uid]
        if host is not None and (vm.placement is None or vm.placement.host != host):
            return False
        named = not names or vm.meta.name in names
        return named and reads.matches(vm.meta, None, labels) and asker.sees(vm.meta)

    inside: Iterable[tuple[str, str]]
    if namespace is not None and names:
        # Some of many are had without looking at the others.
        keys = (f"{namespace}/{name}" for name in set(names))
        inside = ((key, uid) for key in keys if (uid := state.names.get(key)) is not None)
    else:
        prefix = f"{namespace}/" if namespace is not None else ""
        inside = ((key, uid) for key, uid in state.names.items() if key.startswith(prefix))
    uids, following = reads.page(inside, limit=limit, after=after, keep=keep)
    return await respond_list([state.microvms[uid] for uid in uids], views.microvm, state, following)
