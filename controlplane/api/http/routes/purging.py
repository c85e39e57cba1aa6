"""The end, on request, of what a destroyed microVM left on its host: before its time, never before its release.

It is the collector's own command with somebody's reason, so the machine, the agent and the driver look at the same as
for what is due (docs/adr/0165). A dry run is refused as the order would be.
"""

from __future__ import annotations

from typing import Annotated

import structlog
from fastapi import APIRouter
from pydantic import Field, StringConstraints
from starlette.responses import Response

from controlplane.api.http import declaring, dryrun, gc_shapes, gc_views, params, problems, reads, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.declarations import Input
from controlplane.api.http.routing import StrictRoute
from controlplane.decide import gc
from controlplane.machine.collection_rules import Obstacle, WaitsFor
from controlplane.machine.outcome import Rejected
from controlplane.model.types import LINE_PATTERN

_log = structlog.get_logger("api.http")

router = APIRouter(tags=["Garbage collection"], route_class=StrictRoute)


class PurgeBody(Input):
    left: Annotated[
        str,
        StringConstraints(min_length=1, max_length=256, pattern=LINE_PATTERN),
        Field(description="How its driver names it: `name` of `status.left_behind`, such as `quarantine/UID-EPOCH`."),
    ]
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1024, pattern=LINE_PATTERN),
        Field(description="Why it goes before its time; the agent that deletes it logs it."),
    ]


@router.post("/hosts/{name}/actions/purge", response_model=gc_shapes.PurgeShape)
async def purge_leftover(asked: declaring.Declaring, name: params.NameParam, body: PurgeBody) -> Response:
    """Order the end of something that destroyed microVMs left on the host, such as local volumes in quarantine.

    What is held, what does not carry this cluster's mark and what a microVM may need there is refused.
    """
    services, actor = asked.services, asked.actor
    state = await reads.snapshot(services)
    reads.host(state, name, include_pending=False)
    found = gc.purge(state, services.settings.gc_policy, name, body.left, body.reason)
    if found is None:
        raise problems.invalid("/left", f"host {name} tells of nothing left behind that is called {body.left}")
    if isinstance(found, Obstacle):
        code = "held" if found.waits_for is WaitsFor.HOLD else "constraint_violated"
        raise problems.problem(code, found.message)
    if not asked.dry_run:
        _, state = await writes.propose(services, actor, found, key=asked.key)
        _log.warning("gc.purged", subject=str(found.subject), reason=found.reason, actor=actor.name)
        return respond(gc_views.purge(found, state, dry_run=False), state)
    _, rehearsed = dryrun.rehearse(services, actor, state, found)
    if isinstance(rehearsed, Rejected):
        raise writes.refusal(state, found, rehearsed)
    return respond(gc_views.purge(found, state, dry_run=True), state)
