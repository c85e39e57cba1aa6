"""Guests that are to stay shut down because their host is in maintenance, in arbitrary worlds."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from support.agent_values import assignment, instance, record
from support.builders import microvm_spec
from support.planned_host import World, lets_run, only, worlds

from controlplane.agent.observe import observe
from controlplane.agent.steps import Acknowledge, Forget, SetPower, ShutDown
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import DriftPolicy, PowerState
from controlplane.ports import MAINTENANCE

HALTED = replace(assignment(), halt=True)
REPORTS = replace(assignment(spec=microvm_spec(drift_policy=DriftPolicy.REPORT)), halt=True)


@given(worlds())
def test_nothing_is_let_run_that_is_to_be_halted_and_destroying_goes_on(world: World) -> None:
    before = world.plan()
    world.wanted = {uid: replace(each, halt=True) for uid, each in world.wanted.items()}
    halted = world.plan()
    assert (halted.confirmed, halted.refused, halted.unmanaged) == (before.confirmed, before.refused, before.unmanaged)
    for uid, step in halted.steps.items():
        wanted = world.wanted.get(uid)
        if wanted is None or wanted.spec is None:
            assert before.steps[uid] == step
        elif not isinstance(step, Forget):
            seen = world.there.get((step.driver, "ours", uid))
            assert not lets_run(step, wanted.spec, seen)


@given(worlds(may_be_blind=False))
def test_it_ends_with_every_guest_that_is_known_shut_down_and_begins_again_afterwards(world: World) -> None:
    wanted = dict(world.wanted)
    world.wanted = {uid: replace(each, halt=True) for uid, each in wanted.items()}
    for _ in range(12):
        for step in world.plan().steps.values():
            world.carry_out(step)
    decided = world.plan()
    assert not decided.steps
    for (driver, cluster, uid), found in world.there.items():
        each = world.wanted.get(uid or "")
        mine = world.records.get(uid or "")
        known = each is not None and mine is not None and (mine.driver, mine.epoch) == (driver, found.epoch)
        if known and cluster == "ours" and uid not in decided.refused and each is not None and each.spec is not None:
            held = decided.held.get(str(uid), "")
            assert found.power is ObservedPower.STOPPED or "the host is at epoch" in held
    world.wanted = wanted
    for _ in range(12):
        for step in world.plan().steps.values():
            world.carry_out(step)
    assert not world.plan().steps


def test_it_is_shut_down_in_good_order_and_stays_so() -> None:
    world = World(wanted={"a": HALTED}, records={"a": record()}).add(instance())
    step = only(world)
    assert isinstance(step, ShutDown)
    world.carry_out(step)
    decided = world.plan()
    assert (dict(decided.steps), dict(decided.held)) == ({}, {"a": MAINTENANCE})


def test_a_paused_guest_is_shut_down_too() -> None:
    world = World(wanted={"a": HALTED}, records={"a": record()}).add(instance(power=ObservedPower.PAUSED))
    assert isinstance(only(world), ShutDown)


def test_what_was_found_without_a_record_is_noted_first() -> None:
    world = World(wanted={"a": HALTED}).add(instance())
    assert isinstance(only(world), Acknowledge)


def test_afterwards_it_runs_again_whatever_its_policy_about_drift() -> None:
    world = World(wanted={"a": REPORTS}, records={"a": record()}).add(instance())
    world.carry_out(only(world))
    world.wanted = {"a": replace(REPORTS, halt=False)}
    step = only(world)
    assert isinstance(step, SetPower)
    assert (step.power, step.drift) == (PowerState.RUNNING, None)


def test_the_host_says_that_it_heard_of_it_and_why_it_does_not_run() -> None:
    stopped = instance(power=ObservedPower.STOPPED, cause="stopped on request")
    seen = observe("h1", HALTED, record(shut_down=True), stopped, None, None, at_ms=1)
    assert seen is not None
    assert (seen.halted, seen.cause) == (True, MAINTENANCE)
    never_made = observe("h1", HALTED, None, None, None, None, at_ms=1)
    assert never_made is not None
    assert (never_made.halted, never_made.power, never_made.generation) == (True, ObservedPower.ABSENT, None)
