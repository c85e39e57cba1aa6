"""Placement policies: declare, read, delete, list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, params, policy_shapes, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import PlacementPolicyBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["Placement policies"], route_class=StrictRoute)


@router.put(
    "/placementpolicies/{name}",
    response_model=shapes.DeclaredPlacementPolicy | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredPlacementPolicy}},
)
async def declare_placement_policy(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: PlacementPolicyBody,
) -> Response:
    """Create or change a placement policy."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/placementpolicies/{name}", response_model=policy_shapes.PlacementPolicyResource)
async def read_placement_policy(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read a placement policy."""
    return respond(views.placement_policy(state, reads.placement_policy(state, name)), state)


@router.delete("/placementpolicies/{name}", response_model=policy_shapes.PlacementPolicyResource)
async def delete_placement_policy(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Delete a placement policy."""
    command = Delete(kind=Kind.PLACEMENT_POLICY, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.get("/placementpolicies", response_model=policy_shapes.PlacementPolicyList)
async def list_placement_policies(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.policies)
    return await respond_list(items, views.placement_policy, state, following)
