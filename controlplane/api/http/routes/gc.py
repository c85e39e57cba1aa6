"""Garbage collection: what would be collected and why, doing exactly that, and what is held.

A plan's id holds the time that it was reckoned for and its digest. A run reckons the plan for that time again, from the
present state: time that merely passes changes nothing, and whatever does change what is collected makes the run stale.
"""

from __future__ import annotations

import re
from typing import Annotated

import structlog
from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints
from starlette.responses import Response

from controlplane.api.http import gc_shapes, gc_views, params, problems, reads, writes
from controlplane.api.http.access import Asker, Asking, about_named, labels_of
from controlplane.api.http.answers import respond
from controlplane.api.http.declarations import Input
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, Services, With
from controlplane.decide import gc
from controlplane.identity.principal import Principal
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.model.access import AccessKind, Verb
from controlplane.model.commands import Hold, HoldKind, Release
from controlplane.model.gc import Trigger
from controlplane.model.types import LINE_PATTERN, Kind, Name

MAX_LIMIT = 1000
_log = structlog.get_logger("api.http")
_PLAN = re.compile(r"^(\d{1,15})\.(\d{1,4})\.([0-9a-f]{32})$")

router = APIRouter(tags=["Garbage collection"], route_class=StrictRoute)
Only = Annotated[list[Trigger], Query(alias="only", description="Of these triggers; of all when there is none.")]
FoundId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=LINE_PATTERN)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=LINE_PATTERN)]


class RunBody(Input):
    plan: Annotated[str, Field(max_length=64, description="As `GET /gc/plan` gave it.")]
    only: list[Trigger] = Field(default_factory=list[Trigger])


class HeldThing(Input):
    """A microVM by namespace and name, a host by name, what was found by host and id."""

    kind: HoldKind
    name: FoundId
    namespace: Name | None = None
    host: Name | None = None


class HoldBody(HeldThing):
    reason: Reason


@router.get("/gc/plan", response_model=gc_shapes.GCPlanShape)
async def plan(
    services: With,
    state: reads.Snapshot,
    only: Only = [],  # noqa: B006
    limit: Annotated[int | None, Query(ge=1, le=MAX_LIMIT, description="How much is collected at a time.")] = None,
) -> Response:
    """What a run would collect now, in its order, and what is not collected yet: why, and until when."""
    asked = limit or services.settings.gc_per_round
    made = _plan(services, state, services.clock.now_ms(), asked, only)
    return respond(gc_views.plan(made, asked), state)


@router.post("/gc/run", response_model=gc_shapes.GCRunShape)
async def run(services: With, actor: Actor, body: RunBody) -> Response:
    """Collect exactly what the plan showed; refused as `stale` when that is not what would be collected any more."""
    match = _PLAN.fullmatch(body.plan)
    if match is None or not 1 <= int(match[2]) <= MAX_LIMIT or int(match[1]) > services.clock.now_ms():
        raise problems.invalid("/plan", "is not a plan of `GET /gc/plan`")
    state = await reads.snapshot(services)
    if not services.reader.begun:
        raise problems.problem("not_ready", "the cluster was restored and waits for its hosts", retry_after_s=5)
    made = _plan(services, state, int(match[1]), int(match[2]), body.only)
    if made.digest != match[3]:
        raise problems.problem(
            "stale", "what would be collected, or the policy, has changed since the plan was made: make another"
        )
    return respond(await _run(services, actor, made), services.reader.state)


async def _run(services: Services, actor: Principal, made: gc.GCPlan) -> gc_shapes.GCRunShape:
    commands = [each.command for each in made.collect]
    outcomes = await services.proposer.propose_each(
        commands, actor=actor.name, timeout_s=services.settings.write_timeout_s
    )
    for command, outcome in zip(commands, outcomes, strict=True):
        if not isinstance(outcome, Rejected):
            said = {"trigger": command.trigger.value, "subject": str(command.subject), "host": command.subject.host}
            _log.warning("gc.collected", **said, reason=command.reason, since=command.since, actor=actor.name)
        else:
            services.gc_refused[command.trigger] += 1
    results = [gc_views.result(each, outcome) for each, outcome in zip(made.collect, outcomes, strict=True)]
    return gc_shapes.GCRunShape(revision=services.reader.state.revision, results=results)


@router.get("/gc/status", response_model=gc_shapes.GCStatusShape)
async def status(services: With, state: reads.Snapshot) -> Response:
    """The policy in force, and for each trigger what is due, what waits and what was collected."""
    made = _plan(services, state, services.clock.now_ms(), services.settings.gc_per_round, [])
    return respond(gc_views.status(state, made), state)


@router.get("/gc/holds", response_model=gc_shapes.HoldList)
async def holds(asker: Asking, state: reads.Snapshot) -> Response:
    """What is held, by whom and why."""
    return respond(gc_views.holds(state, asker.sees), state)


@router.post("/gc/hold", response_model=gc_shapes.HoldList)
async def hold(services: With, actor: Actor, asker: Asking, body: HoldBody, key: params.Key) -> Response:
    """Say that something is to stay: it is neither collected nor deleted, by anybody, until it is released."""
    _check(body)
    await _require(asker, services.reader.state, body)
    command = Hold(kind=body.kind, name=body.name, namespace=body.namespace, host=body.host, reason=body.reason)
    _, state = await writes.propose(services, actor, command, key=key)
    return respond(gc_views.holds(state, asker.sees), state)


@router.post("/gc/release", response_model=gc_shapes.HoldList)
async def release(services: With, actor: Actor, asker: Asking, body: HeldThing, key: params.Key) -> Response:
    """Take a hold back, whoever gave it."""
    _check(body)
    await _require(asker, services.reader.state, body)
    command = Release(kind=body.kind, name=body.name, namespace=body.namespace, host=body.host)
    _, state = await writes.propose(services, actor, command, key=key)
    return respond(gc_views.holds(state, asker.sees), state)


def _plan(services: Services, state: State, at_ms: int, limit: int, only: list[Trigger]) -> gc.GCPlan:
    return gc.plan(state, services.settings.gc_policy, now_ms=at_ms, limit=limit, only=frozenset(only or Trigger))


async def _require(asker: Asker, state: State, thing: HeldThing) -> None:
    """What was found on a host is held by whoever may hold the host. Raises ApiError."""
    on_vm = thing.kind is HoldKind.MICROVM
    kind, name = (Kind.MICROVM, thing.name) if on_vm else (Kind.HOST, thing.host or thing.name)
    labels = labels_of(state, AccessKind(kind.value), thing.namespace, name)
    await asker.require(about_named(Verb.HOLD, kind, thing.namespace, name, labels or {}))


def _check(thing: HeldThing) -> None:
    """That it is named as things of its kind are. Raises ApiError."""
    needs = {HoldKind.MICROVM: "namespace", HoldKind.FOUND: "host"}.get(thing.kind)
    for field, given in (("namespace", thing.namespace), ("host", thing.host)):
        if (given is not None) != (field == needs):
            verb = "needs a" if field == needs else "has no"
            raise problems.invalid(f"/{field}", f"{thing.kind.value} {verb} {field}")
