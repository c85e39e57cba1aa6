"""Groups of microVMs: declare, read, delete, list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, group_shapes, params, problems, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import MicroVMGroupBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.machine.state import State
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["MicroVM groups"], route_class=StrictRoute)
_ONE = "/namespaces/{namespace}/microvmgroups/{name}"


@router.put(
    _ONE,
    response_model=shapes.DeclaredMicroVMGroup | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredMicroVMGroup}},
)
async def declare_microvm_group(
    asked: declaring.Declaring, namespace: params.NamespaceParam, name: params.NameParam, body: MicroVMGroupBody
) -> Response:
    """Create or change a group; its members follow."""
    command = body.command(namespace, name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command, warnings=writes.warnings_for(body.spec.template))


@router.get(_ONE, response_model=group_shapes.MicroVMGroupResource)
async def read_microvm_group(
    state: reads.Snapshot, namespace: params.NamespaceParam, name: params.NameParam
) -> Response:
    """Read a group, and how far it is."""
    group = state.microvm_group(namespace, name)
    if group is None:
        reads.require_namespace(state, namespace)
        raise problems.not_found("group", f"{namespace}/{name}")
    return respond(views.microvm_group(state, group), state)


@router.delete(
    _ONE,
    response_model=group_shapes.MicroVMGroupResource,
    responses={202: {"model": group_shapes.MicroVMGroupResource}},
)
async def delete_microvm_group(
    services: With,
    actor: Actor,
    namespace: params.NamespaceParam,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Ask for its end: 202 until its last member is gone, 200 when it is gone at once."""
    command = Delete(kind=Kind.MICROVM_GROUP, namespace=namespace, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.get("/microvmgroups", response_model=group_shapes.MicroVMGroupList)
async def list_all_microvm_groups(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List those of every namespace, in order of namespace and name."""
    return await _list(state, wanted, "")


@router.get("/namespaces/{namespace}/microvmgroups", response_model=group_shapes.MicroVMGroupList)
async def list_microvm_groups(
    state: reads.Snapshot, namespace: params.NamespaceParam, wanted: reads.Wanted
) -> Response:
    """List those of one namespace, in order of name."""
    reads.require_namespace(state, namespace)
    return await _list(state, wanted, f"{namespace}/")


async def _list(state: State, wanted: reads.ListQuery, prefix: str) -> Response:
    inside = {key: group for key, group in state.microvm_groups.items() if key.startswith(prefix)}
    items, following = wanted.page(inside)
    return await respond_list(items, views.microvm_group, state, following)
