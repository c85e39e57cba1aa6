"""GC policies: declare, read, delete, list. There is one, `default`; without it the nodes' settings hold."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, params, policy_shapes, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import GCPolicyBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["GC policies"], route_class=StrictRoute)


@router.put(
    "/gcpolicies/{name}",
    response_model=shapes.DeclaredGCPolicy | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredGCPolicy}},
)
async def declare_gc_policy(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: GCPolicyBody,
) -> Response:
    """Create or change the GC policy, which is called `default`."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/gcpolicies/{name}", response_model=policy_shapes.GCPolicyResource)
async def read_gc_policy(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read the GC policy."""
    return respond(views.gc_policy(state, reads.gc_policy(state, name)), state)


@router.delete("/gcpolicies/{name}", response_model=policy_shapes.GCPolicyResource)
async def delete_gc_policy(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Delete the GC policy."""
    command = Delete(kind=Kind.GC_POLICY, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.get("/gcpolicies", response_model=policy_shapes.GCPolicyList)
async def list_gc_policies(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.gc_policies)
    return await respond_list(items, views.gc_policy, state, following)
