"""Role bindings: declare, read, delete, list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, params, policy_shapes, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import RoleBindingBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["Access"], route_class=StrictRoute)


@router.put(
    "/rolebindings/{name}",
    response_model=shapes.DeclaredRoleBinding | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredRoleBinding}},
)
async def declare_role_binding(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: RoleBindingBody,
) -> Response:
    """Create or change a role binding."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/rolebindings/{name}", response_model=policy_shapes.RoleBindingResource)
async def read_role_binding(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read a role binding."""
    return respond(views.role_binding(state, reads.role_binding(state, name)), state)


@router.delete("/rolebindings/{name}", response_model=policy_shapes.RoleBindingResource)
async def delete_role_binding(
    services: With, actor: Actor, name: params.NameParam, revision: params.ExpectedRevision, key: params.Key
) -> Response:
    """Delete a role binding."""
    command = Delete(kind=Kind.ROLE_BINDING, name=name, revision=revision)
    return await writes.remove(services, actor, command, key=key)


@router.get("/rolebindings", response_model=policy_shapes.RoleBindingList)
async def list_role_bindings(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.role_bindings)
    return await respond_list(items, views.role_binding, state, following)
