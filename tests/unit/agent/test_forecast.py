"""The plan in words: what it says of each microVM is what the plan does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from support.agent_values import CLUSTER, assignment, instance, record
from support.planned_host import DRIVERS, World, worlds

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.forecast import forecast
from controlplane.agent.journal import Record
from controlplane.agent.steps import Destroy
from controlplane.model.resources import Amount, ObservedPower
from controlplane.ports import LEASE_ENDED, Instance, PlanItem, PlanVerb


def told(world: World) -> tuple[PlanItem, ...]:
    return forecast(
        Assignments(cluster_id=CLUSTER, revision=1, by_uid=world.wanted),
        world.records,
        world.listing,
        drivers=DRIVERS,
        default_driver="simulated",
        capacity=Amount(vcpu=64, memory_in_mb=65536),
    )


@given(worlds())
def test_everything_that_is_wanted_or_found_is_told_once_and_as_it_is_planned(world: World) -> None:
    items, decided = told(world), world.plan()
    known = [item for item in items if item.verb is not PlanVerb.REPORT]
    assert sorted(str(item.uid) for item in known) == sorted(world.wanted)
    assert len(items) - len(known) == len(decided.unmanaged)
    for item in known:
        destroys = isinstance(decided.steps.get(str(item.uid)), Destroy) or item.uid in decided.confirmed
        assert (item.verb is PlanVerb.DESTROY) == destroys
        quiet = item.uid not in decided.steps and item.uid not in decided.confirmed
        assert (item.verb in (PlanVerb.KEEP, PlanVerb.WAIT)) >= quiet
        assert item.reason


STOPPED = instance(power=ObservedPower.STOPPED, cause=LEASE_ENDED)


@pytest.mark.parametrize(
    ("wanted", "kept", "found", "verb"),
    [
        (assignment(), record(), instance(), PlanVerb.KEEP),
        (assignment(), record(), STOPPED, PlanVerb.RESUME),
        (assignment(), None, instance(), PlanVerb.ADOPT),
        (assignment(), None, None, PlanVerb.CREATE),
        (assignment(generation=2), record(), instance(), PlanVerb.CHANGE),
        (assignment(restart_seq=1), record(), instance(), PlanVerb.CHANGE),
        (assignment(tombstone=True), record(), instance(), PlanVerb.DESTROY),
        (assignment(tombstone=True), None, None, PlanVerb.DESTROY),
        (replace(assignment(), halt=True), record(), instance(), PlanVerb.HALT),
        (assignment(), record(epoch=3), None, PlanVerb.WAIT),
        (None, None, instance("x"), PlanVerb.REPORT),
    ],
)
def test_each_verb(wanted: Assignment | None, kept: Record | None, found: Instance | None, verb: PlanVerb) -> None:
    world = World(
        wanted={wanted.uid: wanted} if wanted is not None else {}, records={"a": kept} if kept is not None else {}
    )
    if found is not None:
        world.add(found)
    (item,) = told(world)
    assert item.verb is verb
