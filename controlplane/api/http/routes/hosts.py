"""Hosts: admit an agent by declaring its host, read, delete, list.

An agent that nobody declared appears in lists with `declared` false, and alone only when asked for.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import declaring, host_shapes, host_views, params, problems, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import HostBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import ActOnHost, ConfirmOff, Delete, HostAction
from controlplane.model.types import Kind
from controlplane.ports import DriverError, HostUnreachableError

PLAN_TIMEOUT_S = 10.0
MaxParallel = Annotated[
    int | None, Query(ge=1, le=100, description="MicroVMs that are on their way at once; as declared if not given.")
]
AllowDataLoss = Annotated[
    bool | None,
    Query(
        description="Also move those with local volumes whose `recovery.allow_data_loss` is true, without their data;"
        " as declared if not given."
    ),
]

router = APIRouter(tags=["Hosts"], route_class=StrictRoute)


@router.put(
    "/hosts/{name}", response_model=shapes.DeclaredHost | shapes.DryRun, responses={201: {"model": shapes.DeclaredHost}}
)
async def declare_host(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: HostBody,
) -> Response:
    """Create or change a host."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/hosts/{name}", response_model=host_shapes.HostResource)
async def read_host(
    state: reads.Snapshot,
    name: params.NameParam,
    include_pending: Annotated[bool, Query(description="Also an agent's host that nobody declared.")] = False,
) -> Response:
    """Read a host."""
    return respond(views.host(state, reads.host(state, name, include_pending=include_pending)), state)


@router.delete("/hosts/{name}", response_model=host_shapes.HostResource)
async def delete_host(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Delete a host."""
    command = Delete(kind=Kind.HOST, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.post("/hosts/{name}/actions/confirm-fenced", response_model=host_shapes.HostResource)
async def confirm_fenced(
    services: With, actor: Actor, name: params.NameParam, revision: params.ExpectedRevision, key: params.Key
) -> Response:
    """Say that a lost host is certainly off, so that whatever its microVMs' policies allow is restarted elsewhere.

    A suspect host, to which the leader may still grant, is first detached and then fenced within seconds. Nothing
    checks the word: if the host runs after all, so do two copies of what is restarted.
    """
    command = ConfirmOff(host=name, revision=revision)
    _, state = await writes.propose(services, actor, command, key=key)
    return respond(views.host(state, reads.host(state, name, include_pending=False)), state)


@router.post("/hosts/{name}/actions/cordon", response_model=host_shapes.HostResource)
async def cordon_host(
    services: With, actor: Actor, name: params.NameParam, revision: params.ExpectedRevision, key: params.Key
) -> Response:
    """Let nothing new come; what is there runs on."""
    return await _act(services, actor, ActOnHost(host=name, action=HostAction.CORDON, revision=revision), key)


@router.post("/hosts/{name}/actions/uncordon", response_model=host_shapes.HostResource)
async def uncordon_host(
    services: With, actor: Actor, name: params.NameParam, revision: params.ExpectedRevision, key: params.Key
) -> Response:
    """Let microVMs come again, which ends a drain or a maintenance: what has left stays where it is."""
    return await _act(services, actor, ActOnHost(host=name, action=HostAction.UNCORDON, revision=revision), key)


@router.post("/hosts/{name}/actions/drain", response_model=host_shapes.HostResource)
async def drain_host(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    max_parallel: MaxParallel = None,
    allow_data_loss: AllowDataLoss = None,
) -> Response:
    """Let nothing new come, and move what may be moved; `GET /hosts/{name}/evacuation` shows how far it is."""
    command = ActOnHost(
        host=name,
        action=HostAction.DRAIN,
        max_parallel=max_parallel,
        allow_data_loss=allow_data_loss,
        revision=revision,
    )
    return await _act(services, actor, command, key)


@router.post("/hosts/{name}/actions/maintenance", response_model=host_shapes.HostResource)
async def maintain_host(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    max_parallel: MaxParallel = None,
    allow_data_loss: AllowDataLoss = None,
) -> Response:
    """As a drain, and shut down what cannot be moved, until the host is uncordoned."""
    command = ActOnHost(
        host=name,
        action=HostAction.MAINTENANCE,
        max_parallel=max_parallel,
        allow_data_loss=allow_data_loss,
        revision=revision,
    )
    return await _act(services, actor, command, key)


@router.get("/hosts/{name}/evacuation", response_model=host_shapes.EvacuationDetail)
async def read_evacuation(state: reads.Snapshot, name: params.NameParam) -> Response:
    """How far a host is emptied: what is left there, and why."""
    return respond(host_views.evacuation_detail(state, reads.host(state, name, include_pending=False)), state)


@router.get("/hosts/{name}/plan", response_model=host_shapes.HostPlanShape)
async def read_plan(services: With, state: reads.Snapshot, name: params.NameParam) -> Response:
    """What the host's agent does next with each microVM that is there or is to be, as if it had a lease.

    A host that is connected is asked. Of one that is not, it is what would happen if it came back as it was last known.
    """
    host = reads.host(state, name, include_pending=False)
    try:
        items, source = await services.agents.plan(name, timeout_s=PLAN_TIMEOUT_S), "agent"
    except HostUnreachableError:
        items, source = services.forecast(state, host), "forecast"
    except DriverError as error:
        raise problems.problem("driver_error", f"host {name}: {error.code}: {error.message}") from error
    document = host_shapes.HostPlanShape(
        host=name, phase=views.host_phase(host), source=source, items=host_views.plan_items(items)
    )
    return respond(document, state)


async def _act(services: With, actor: Actor, command: ActOnHost, key: str | None) -> Response:
    _, state = await writes.propose(services, actor, command, key=key)
    return respond(views.host(state, reads.host(state, command.host, include_pending=False)), state)


@router.get("/hosts", response_model=host_shapes.HostList)
async def list_hosts(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.hosts)
    return await respond_list(items, views.host, state, following)
