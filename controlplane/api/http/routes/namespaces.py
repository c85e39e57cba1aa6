"""Namespaces: declare, read, delete, list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, params, policy_shapes, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import NamespaceBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["Namespaces"], route_class=StrictRoute)


@router.put(
    "/namespaces/{name}",
    response_model=shapes.DeclaredNamespace | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredNamespace}},
)
async def declare_namespace(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: NamespaceBody,
) -> Response:
    """Create or change a namespace."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/namespaces/{name}", response_model=policy_shapes.NamespaceResource)
async def read_namespace(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read a namespace."""
    return respond(views.namespace(state, reads.namespace(state, name)), state)


@router.delete("/namespaces/{name}", response_model=policy_shapes.NamespaceResource)
async def delete_namespace(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Delete a namespace."""
    command = Delete(kind=Kind.NAMESPACE, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.get("/namespaces", response_model=policy_shapes.NamespaceList)
async def list_namespaces(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.namespaces)
    return await respond_list(items, views.namespace, state, following)
