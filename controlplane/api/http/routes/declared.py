"""Kinds that are only declared: namespaces, policies and access. Declare, read, delete and list, the same for each.

What is particular to a kind is a row of `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from controlplane.api.http import declarations, declaring, params, policy_shapes, problems, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.machine.state import State
from controlplane.model.commands import Declaration, Delete, Precondition
from controlplane.model.types import Kind


class _Body(Protocol):
    def command(self, name: str, *, uid: str, when: Precondition) -> Declaration: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    kind: Kind
    one: str
    """In names of operations."""
    many: str
    noun: str
    """For people."""
    path: str
    tag: str
    body: type[declarations.Body]
    resource: type[BaseModel]
    listed: type[BaseModel]
    declared: type[BaseModel]
    view: Callable[[State, Any], BaseModel]
    table: Callable[[State], Mapping[str, Any]]
    """Its objects by name."""
    note: str = ""


_KINDS = (
    _Kind(
        Kind.NAMESPACE,
        one="namespace",
        many="namespaces",
        noun="namespace",
        path="/namespaces",
        tag="Namespaces",
        body=declarations.NamespaceBody,
        resource=policy_shapes.NamespaceResource,
        listed=policy_shapes.NamespaceList,
        declared=shapes.DeclaredNamespace,
        view=views.namespace,
        table=lambda state: state.namespaces,
    ),
    _Kind(
        Kind.PLACEMENT_POLICY,
        one="placement_policy",
        many="placement_policies",
        noun="placement policy",
        path="/placementpolicies",
        tag="Placement policies",
        body=declarations.PlacementPolicyBody,
        resource=policy_shapes.PlacementPolicyResource,
        listed=policy_shapes.PlacementPolicyList,
        declared=shapes.DeclaredPlacementPolicy,
        view=views.placement_policy,
        table=lambda state: state.policies,
    ),
    _Kind(
        Kind.FAILOVER_POLICY,
        one="failover_policy",
        many="failover_policies",
        noun="failover policy",
        path="/failoverpolicies",
        tag="Failover policies",
        body=declarations.FailoverPolicyBody,
        resource=policy_shapes.FailoverPolicyResource,
        listed=policy_shapes.FailoverPolicyList,
        declared=shapes.DeclaredFailoverPolicy,
        view=views.failover_policy,
        table=lambda state: state.failover_policies,
    ),
    _Kind(
        Kind.GC_POLICY,
        one="gc_policy",
        many="gc_policies",
        noun="GC policy",
        path="/gcpolicies",
        tag="GC policies",
        body=declarations.GCPolicyBody,
        resource=policy_shapes.GCPolicyResource,
        listed=policy_shapes.GCPolicyList,
        declared=shapes.DeclaredGCPolicy,
        view=views.gc_policy,
        table=lambda state: state.gc_policies,
        note=" There is one, `default`; without it the nodes' settings hold.",
    ),
    _Kind(
        Kind.ROLE,
        one="role",
        many="roles",
        noun="role",
        path="/roles",
        tag="Access",
        body=declarations.RoleBody,
        resource=policy_shapes.RoleResource,
        listed=policy_shapes.RoleList,
        declared=shapes.DeclaredRole,
        view=views.role,
        table=lambda state: state.roles,
    ),
    _Kind(
        Kind.ROLE_BINDING,
        one="role_binding",
        many="role_bindings",
        noun="role binding",
        path="/rolebindings",
        tag="Access",
        body=declarations.RoleBindingBody,
        resource=policy_shapes.RoleBindingResource,
        listed=policy_shapes.RoleBindingList,
        declared=shapes.DeclaredRoleBinding,
        view=views.role_binding,
        table=lambda state: state.role_bindings,
    ),
)


def _add(router: APIRouter, row: _Kind) -> None:
    async def declare(asked: declaring.Declaring, name: params.NameParam, body: _Body) -> Response:
        return await declaring.declare(asked, body.command(name, uid=asked.new_uid(), when=asked.when))

    # The framework reads the shape of the body here.
    declare.__annotations__["body"] = row.body

    async def read(state: reads.Snapshot, name: params.NameParam) -> Response:
        found = row.table(state).get(name)
        if found is None:
            raise problems.not_found(row.noun, name)
        return respond(row.view(state, found), state)

    async def delete(
        services: With,
        actor: Actor,
        name: params.NameParam,
        revision: params.ExpectedRevision,
        key: params.Key,
        reason: params.ReasonParam = "",
    ) -> Response:
        command = Delete(kind=row.kind, name=name, revision=revision, reason=reason)
        return await writes.remove(services, actor, command, key=key)

    async def list_all(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
        items, following = wanted.page(row.table(state))
        return await respond_list(items, row.view, state, following)

    def route(method: str, path: str, endpoint: Callable[..., Any], name: str, said: str, **more: Any) -> None:
        router.add_api_route(path, endpoint, methods=[method], name=name, description=said, tags=[row.tag], **more)

    named = f"{row.path}/{{name}}"
    route(
        "PUT",
        named,
        declare,
        f"declare_{row.one}",
        f"Create or change a {row.noun}.{row.note}",
        response_model=row.declared | shapes.DryRun,
        responses={201: {"model": row.declared}},
    )
    route("GET", named, read, f"read_{row.one}", f"Read a {row.noun}.{row.note}", response_model=row.resource)
    route("DELETE", named, delete, f"delete_{row.one}", f"Delete a {row.noun}.{row.note}", response_model=row.resource)
    route("GET", row.path, list_all, f"list_{row.many}", "List them in order of name.", response_model=row.listed)


def _router() -> APIRouter:
    router = APIRouter(route_class=StrictRoute)
    for row in _KINDS:
        _add(router, row)
    return router


router = _router()
