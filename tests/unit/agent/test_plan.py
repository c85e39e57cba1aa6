"""The plan over arbitrary worlds: what it may never do, that it repeats itself, and that carrying it out ends."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agent_values import CLUSTER, assignment, instance, record
from support.builders import microvm_spec
from support.planned_host import World, lets_run, only, worlds

from controlplane.agent.journal import RecordPhase
from controlplane.agent.plan import differences
from controlplane.agent.steps import Acknowledge, Create, Destroy, Forget, Restart, SetPower, ShutDown, Update
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import DriftPolicy, MicroVMSpec, OnDetach, PowerState, Recovery, detach_action
from controlplane.ports import LEASE_ENDED


@given(worlds())
def test_only_a_tombstone_destroys(world: World) -> None:
    for uid, step in world.plan().steps.items():
        if isinstance(step, Destroy):
            assert world.wanted[uid].is_tombstone
            assert world.wanted[uid].epoch == step.epoch


@given(worlds())
def test_a_tombstone_is_confirmed_only_when_nothing_is_left(world: World) -> None:
    for uid, epoch in world.plan().confirmed.items():
        assert world.wanted[uid].is_tombstone
        assert world.wanted[uid].epoch == epoch
        assert uid not in world.records
        assert not world.blind
        assert not any(cluster == CLUSTER and each == uid for _, cluster, each in world.there)


@given(worlds())
def test_planning_again_gives_the_same(world: World) -> None:
    assert world.plan() == world.plan()


@given(worlds())
def test_nothing_is_done_under_a_driver_that_cannot_list(world: World) -> None:
    for step in world.plan().steps.values():
        assert isinstance(step, Forget) or step.driver not in world.blind


@given(worlds())
def test_what_nobody_accounts_for_is_reported_and_what_is_accounted_for_is_not(world: World) -> None:
    decided = world.plan()
    reported = {id(found.instance) for found in decided.unmanaged}
    for (driver, cluster, uid), found in world.there.items():
        if driver in world.blind:
            continue
        if cluster != CLUSTER or uid not in world.wanted:
            assert id(found) in reported
        step = decided.steps.get(uid) if uid is not None else None
        if cluster == CLUSTER and isinstance(step, Update | SetPower | Restart) and step.driver == driver:
            assert id(found) not in reported


@given(worlds(may_be_blind=False), st.data())
@settings(max_examples=300)
def test_carrying_out_the_plan_ends_as_wanted_whatever_is_interrupted(world: World, data: st.DataObject) -> None:
    strangers = {key: found for key, found in world.there.items() if key[1] != CLUSTER or key[2] not in world.wanted}
    for _ in range(30):
        decided = world.plan()
        if not decided.steps:
            break
        for step in decided.steps.values():
            world.carry_out(step, stop_after=data.draw(st.sampled_from([0, 1, 2, 9, 9, 9])))
    for _ in range(12):
        for step in world.plan().steps.values():
            world.carry_out(step)
    decided = world.plan()
    assert not decided.steps
    assert {key: world.there.get(key) for key in strangers} == strangers
    for uid, wanted in world.wanted.items():
        if uid in decided.refused or (uid in decided.held and "drift" not in decided.held[uid]):
            continue
        if wanted.spec is None:
            assert decided.confirmed[uid] == wanted.epoch
            continue
        kept = world.records[uid]
        assert (kept.phase, kept.epoch, kept.generation) == (RecordPhase.ACTIVE, wanted.epoch, wanted.generation)
        assert kept.repair_seq >= wanted.repair_seq
        assert kept.restart_seq >= wanted.restart_seq
        copy = world.there.get((kept.driver, CLUSTER, uid))
        assert copy is None or copy.epoch == wanted.epoch
        if uid not in decided.held:
            assert not differences(wanted.spec, copy)
        else:
            assert wanted.spec.drift_policy is DriftPolicy.REPORT


@given(worlds(), st.booleans())
def test_without_a_lease_nothing_is_let_run_that_needs_one_and_all_else_is_as_with_one(
    world: World, ends: bool
) -> None:
    world.may_run = False
    without = world.plan()
    world.may_run = True
    decided = world.plan()
    for uid, wanted in world.wanted.items():
        step = decided.steps.get(uid)
        seen = None
        if step is not None and not isinstance(step, Forget):
            seen = world.there.get((step.driver, CLUSTER, uid))
        needs = wanted.spec is not None and detach_action(wanted.spec) is not OnDetach.KEEP
        if step is not None and needs and wanted.spec is not None and lets_run(step, wanted.spec, seen):
            assert without.held[uid] == "waits for a lease"
            assert uid not in without.steps
        else:
            assert without.steps.get(uid) == step
    assert (without.confirmed, without.refused, without.unmanaged) == (
        decided.confirmed,
        decided.refused,
        decided.unmanaged,
    )
    world.shut_down = ends
    for uid, step in world.plan().steps.items():
        spec = world.wanted[uid].spec if uid in world.wanted else None
        if isinstance(step, ShutDown):
            assert spec is not None
            assert detach_action(spec) is OnDetach.SHUTDOWN
        elif ends and spec is not None and detach_action(spec) is OnDetach.SHUTDOWN:
            seen = None if isinstance(step, Forget) else world.there.get((step.driver, CLUSTER, uid))
            assert not lets_run(step, spec, seen), "it would be shut down again at once"


def test_never_seen_is_created_with_the_default_driver() -> None:
    step = only(World(wanted={"a": assignment()}))
    assert isinstance(step, Create)
    assert (step.driver, step.before.phase, step.after.phase) == ("simulated", RecordPhase.CREATING, RecordPhase.ACTIVE)


def test_the_spec_may_name_another_driver() -> None:
    step = only(World(wanted={"a": assignment(spec=microvm_spec(provider="qemu"))}))
    assert isinstance(step, Create)
    assert step.driver == "qemu"


def test_a_driver_that_the_host_does_not_have_is_refused_with_the_field() -> None:
    decided = World(wanted={"a": assignment(spec=microvm_spec(provider="xen"))}).plan()
    assert not decided.steps
    assert decided.refused["a"].pointer == "/spec/provider"
    assert decided.refused["a"].permanent
    assert "qemu, simulated" in decided.refused["a"].message


def test_an_unfinished_create_is_completed() -> None:
    world = World({"a": assignment()}, {"a": record(phase=RecordPhase.CREATING)})
    step = only(world.add(instance()))
    assert isinstance(step, Create)
    assert not step.then_update


def test_an_unfinished_create_of_another_generation_is_completed_and_brought_up_to_date() -> None:
    world = World({"a": assignment(generation=2)}, {"a": record(phase=RecordPhase.CREATING)})
    step = only(world.add(instance()))
    assert isinstance(step, Create)
    assert step.then_update


def test_a_new_generation_updates_what_is_there_and_creates_what_is_not() -> None:
    world = World({"a": assignment(generation=2)}, {"a": record()})
    assert isinstance(only(world), Create)
    assert isinstance(only(world.add(instance())), Update)


def test_a_label_change_alone_does_nothing() -> None:
    changed = replace(assignment(), labels={"tier": "web"})
    assert not World({"a": changed}, {"a": record()}).add(instance()).plan().steps


@pytest.mark.parametrize(
    ("power", "kind"),
    [(PowerState.RUNNING, Restart), (PowerState.PAUSED, Restart), (PowerState.STOPPED, Acknowledge)],
)
def test_a_restart(power: PowerState, kind: type) -> None:
    wanted = assignment(spec=microvm_spec(power_state=power), restart_seq=1)
    step = only(World({"a": wanted}, {"a": record()}).add(instance(power=ObservedPower(power.value))))
    assert isinstance(step, kind)
    assert isinstance(step, Restart | Acknowledge)
    assert step.after.restart_seq == 1


def test_power_drift_is_set_right() -> None:
    step = only(
        World({"a": assignment()}, {"a": record()}).add(instance(power=ObservedPower.STOPPED, cause="signal 9"))
    )
    assert isinstance(step, SetPower)
    assert (step.power, step.drift) == (PowerState.RUNNING, "power_state (signal 9)")


def test_other_drift_is_updated() -> None:
    step = only(World({"a": assignment()}, {"a": record()}).add(instance(memory_in_mb=64)))
    assert isinstance(step, Update)
    assert step.drift == "memory_in_mb"


def test_reported_drift_is_left_alone_until_a_repair_is_asked_for() -> None:
    spec = microvm_spec(drift_policy=DriftPolicy.REPORT)
    world = World({"a": assignment(spec=spec)}, {"a": record()}).add(instance(power=ObservedPower.STOPPED))
    decided = world.plan()
    assert not decided.steps
    assert decided.held["a"] == "power_state drifted; drift_policy is report"
    world.wanted["a"] = assignment(spec=spec, repair_seq=1)
    step = only(world)
    assert isinstance(step, SetPower)
    assert step.after.repair_seq == 1


def test_an_older_assignment_does_nothing_to_a_newer_placement() -> None:
    for tombstone in (False, True):
        decided = World({"a": assignment(epoch=1, tombstone=tombstone)}).add(instance(epoch=2)).plan()
        assert not decided.steps
        assert not decided.confirmed
        assert "epoch 2" in decided.held["a"]


def test_a_stale_copy_that_no_tombstone_names_is_reported() -> None:
    world = World({"a": assignment(epoch=2)}).add(instance(epoch=1), "qemu")
    decided = world.plan()
    assert isinstance(decided.steps["a"], Create)
    assert [found.instance.epoch for found in decided.unmanaged] == [1]


def test_a_stale_copy_where_the_new_one_belongs_is_reported_until_the_driver_has_taken_it_over() -> None:
    world = World({"a": assignment(epoch=2)}, {"a": record(epoch=1)}).add(instance(epoch=1))
    decided = world.plan()
    assert isinstance(decided.steps["a"], Create)
    assert [found.instance.epoch for found in decided.unmanaged] == [1]
    world.carry_out(decided.steps["a"])
    assert not world.plan().unmanaged


def test_a_lost_journal_adopts_without_restarting_anything() -> None:
    step = only(World({"a": assignment(restart_seq=3, repair_seq=2)}).add(instance()))
    assert isinstance(step, Acknowledge)
    assert msgspec.structs.asdict(step.after) == msgspec.structs.asdict(record(restart_seq=3, repair_seq=0))


def test_a_tombstone_of_something_never_created_is_confirmed_at_once() -> None:
    assert World({"a": assignment(tombstone=True)}).plan().confirmed == {"a": 1}


def test_a_record_of_something_unknown_everywhere_is_forgotten() -> None:
    world = World(records={"a": record()})
    assert isinstance(only(world), Forget)
    world.blind = {"qemu": "no answer"}
    assert not world.plan().steps


def pausing(**changes: object) -> MicroVMSpec:
    return microvm_spec(recovery=Recovery(on_detach=OnDetach.PAUSE), **changes)


@pytest.mark.parametrize("power", [ObservedPower.STOPPED, ObservedPower.PAUSED])
@pytest.mark.parametrize("policy", list(DriftPolicy))
def test_what_the_leases_end_did_is_undone_whatever_the_policy_and_is_no_repair(
    power: ObservedPower, policy: DriftPolicy
) -> None:
    spec = pausing(drift_policy=policy)
    world = World({"a": assignment(spec=spec)}, {"a": record()}).add(instance(power=power, cause=LEASE_ENDED))
    world.may_run = False
    assert world.plan().held == {"a": "waits for a lease"}
    world.may_run = True
    step = only(world)
    assert isinstance(step, SetPower)
    assert (step.power, step.drift, step.after) == (PowerState.RUNNING, None, record())


def test_what_was_paused_and_then_ended_with_the_lease_is_paused_again() -> None:
    spec = pausing(power_state=PowerState.PAUSED, drift_policy=DriftPolicy.REPORT)
    world = World({"a": assignment(spec=spec)}, {"a": record()})
    world.add(instance(power=ObservedPower.STOPPED, cause=LEASE_ENDED))
    step = only(world)
    assert isinstance(step, SetPower)
    assert step.power is PowerState.PAUSED


def test_a_running_guest_may_be_paused_and_stopped_without_a_lease() -> None:
    for power in (PowerState.PAUSED, PowerState.STOPPED):
        world = World({"a": assignment(spec=pausing(power_state=power))}, {"a": record()}).add(instance())
        world.may_run = False
        step = only(world)
        assert isinstance(step, SetPower)
        assert step.power is power


def test_a_lease_that_is_about_to_end_has_a_guest_shut_down_once_and_a_new_one_starts_it() -> None:
    spec = microvm_spec(recovery=Recovery(on_detach=OnDetach.SHUTDOWN), drift_policy=DriftPolicy.REPORT)
    world = World({"a": assignment(spec=spec)}, {"a": record()}, shut_down=True).add(instance())
    step = only(world)
    assert isinstance(step, ShutDown)
    world.carry_out(step)
    assert world.records["a"].shut_down
    assert world.plan().held == {"a": "waits for a lease"}
    world.may_run = world.shut_down = False
    assert world.plan().held == {"a": "waits for a lease"}
    world.may_run = True
    step = only(world)
    assert isinstance(step, SetPower)
    assert (step.power, step.drift) == (PowerState.RUNNING, None)
    world.carry_out(step)
    assert world.records["a"] == record()
    assert not world.plan().steps


def test_a_shutdown_that_did_not_happen_is_forgotten() -> None:
    spec = microvm_spec(recovery=Recovery(on_detach=OnDetach.SHUTDOWN))
    world = World({"a": assignment(spec=spec)}, {"a": record(shut_down=True)}).add(instance())
    step = only(world)
    assert isinstance(step, Acknowledge)
    assert not step.after.shut_down


def test_who_destroys_says_on_whose_order() -> None:
    ordered = dataclasses.replace(assignment(tombstone=True), reason="not needed (alice)")
    step = only(World({"a": ordered}).add(instance()))
    assert isinstance(step, Destroy)
    assert step.reason == "tombstone: not needed (alice)"
