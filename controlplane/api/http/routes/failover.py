"""Failover: what is held and why, what comes next, and an operator's override of the breaker."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import reads, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.failover_shapes import FailoverStatus, OverrideBody
from controlplane.api.http.failover_views import failover_status
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, Services, With
from controlplane.machine.state import State
from controlplane.model.commands import CancelOverride, OverrideBreaker
from controlplane.model.resources import BREAKER

router = APIRouter(tags=["Failover"], route_class=StrictRoute)


@router.get("/failover", response_model=FailoverStatus)
async def read_failover(services: With, state: reads.Snapshot) -> Response:
    """The breaker, its override, and every microVM on a lost host: what is restarted next, and what holds the rest."""
    return _status(services, state)


@router.put("/failover/override", response_model=FailoverStatus)
async def override_breaker(services: With, actor: Actor, body: OverrideBody) -> Response:
    """Let failover go on for a time although the breaker is open. It starts anew with each request.

    The breaker alone is overridden: what its recovery or its policy holds stays, and only fenced hosts are given up.
    """
    command = OverrideBreaker(for_s=body.for_s, reason=body.reason)
    _, state = await writes.propose(services, actor, command, key=None)
    return _status(services, state)


@router.delete("/failover/override", response_model=FailoverStatus)
async def cancel_override(services: With, actor: Actor) -> Response:
    """Take the override back. What was given up meanwhile stays given up."""
    _, state = await writes.propose(services, actor, CancelOverride(of=BREAKER), key=None)
    return _status(services, state)


def _status(services: Services, state: State) -> Response:
    return respond(failover_status(state, services.settings.failover, now_ms=services.clock.now_ms()), state)
