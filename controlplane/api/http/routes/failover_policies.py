"""Failover policies: declare, read, delete, list."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import declaring, params, policy_shapes, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import FailoverPolicyBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["Failover policies"], route_class=StrictRoute)


@router.put(
    "/failoverpolicies/{name}",
    response_model=shapes.DeclaredFailoverPolicy | shapes.DryRun,
    responses={201: {"model": shapes.DeclaredFailoverPolicy}},
)
async def declare_failover_policy(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: FailoverPolicyBody,
) -> Response:
    """Create or change a failover policy."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/failoverpolicies/{name}", response_model=policy_shapes.FailoverPolicyResource)
async def read_failover_policy(state: reads.Snapshot, name: params.NameParam) -> Response:
    """Read a failover policy."""
    return respond(views.failover_policy(state, reads.failover_policy(state, name)), state)


@router.delete("/failoverpolicies/{name}", response_model=policy_shapes.FailoverPolicyResource)
async def delete_failover_policy(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Delete a failover policy."""
    command = Delete(kind=Kind.FAILOVER_POLICY, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.get("/failoverpolicies", response_model=policy_shapes.FailoverPolicyList)
async def list_failover_policies(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.failover_policies)
    return await respond_list(items, views.failover_policy, state, following)
