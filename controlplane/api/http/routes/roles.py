"""Roles: declare, read, delete, list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, params, policy_shapes, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import RoleBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["Access"], route_class=StrictRoute)


@router.put(
    "/roles/{name}",
    response_model=shapes.DeclaredRole | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredRole}},
)
async def declare_role(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: RoleBody,
) -> Response:
    """Create or change a role."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/roles/{name}", response_model=policy_shapes.RoleResource)
async def read_role(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read a role."""
    return respond(views.role(state, reads.role(state, name)), state)


@router.delete("/roles/{name}", response_model=policy_shapes.RoleResource)
async def delete_role(
    services: With, actor: Actor, name: params.NameParam, revision: params.ExpectedRevision, key: params.Key
) -> Response:
    """Delete a role."""
    command = Delete(kind=Kind.ROLE, name=name, revision=revision)
    return await writes.remove(services, actor, command, key=key)


@router.get("/roles", response_model=policy_shapes.RoleList)
async def list_roles(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.roles)
    return await respond_list(items, views.role, state, following)
