"""What is collected: a plan is what the machine does, and each rule of it is refused when it is broken meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import (
    agent_connected,
    begin_incarnation,
    confirm_fenced,
    declare_gc_policy,
    declare_microvm,
    destroyed,
    failure,
    observation,
    report,
)
from support.driven import DrivenMachine

from controlplane.decide.gc import GCPlan, PolicyInForce, plan
from controlplane.machine.collection_rules import WaitsFor
from controlplane.machine.outcome import Code
from controlplane.model.commands import Collect, Delete, Destroyed, Hold, HoldKind, Release
from controlplane.model.gc import Trigger
from controlplane.model.resources import HostPhase, MicroVMPhase, ObservedPower, OperationPhase, Unmanaged
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import Kind, replace

NOTHING_KEPT = GCPolicySpec(
    failed_microvm_after_s=60, unmanaged_microvm_after_s=60, lost_host_after_s=60, finished_operation_after_s=60
)
HOLD_WEB = Hold(kind=HoldKind.MICROVM, namespace="demo", name="web", reason="somebody looks at it")
COPY = Unmanaged(native_id="9", driver="simulated", uid="vm-old", namespace="demo", name="old", epoch=3, ours=True)


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


def failed(machine: DrivenMachine) -> None:
    vm = machine.placed()
    machine.accept(report(observation(vm, power=ObservedPower.ABSENT, generation=None, failure=failure())))
    assert machine.vm().phase is MicroVMPhase.FAILED


def later(machine: DrivenMachine, policy: GCPolicySpec = NOTHING_KEPT, *, limit: int = 100) -> GCPlan:
    return plan(machine.state, policy, now_ms=machine.at + 60_000, limit=limit)


def of(made: GCPlan, trigger: Trigger) -> Collect:
    (found,) = [each.command for each in made.collect if each.command.trigger is trigger]
    return found


def waits(made: GCPlan, trigger: Trigger) -> list[WaitsFor]:
    return [each.waits_for for each in made.waiting if each.trigger is trigger]


# -- failed microVMs ---------------------------------------------------------------------------------------------------


def test_a_failed_microvm_ends_by_a_tombstone_that_says_why(machine: DrivenMachine) -> None:
    failed(machine)
    command = of(later(machine), Trigger.FAILED_MICROVM)
    machine.accept(command, actor="gc")
    vm = machine.vm()
    assert vm.phase is MicroVMPhase.DELETING
    assert vm.deletion is not None
    assert (vm.deletion.actor, vm.deletion.trigger) == ("gc", Trigger.FAILED_MICROVM)
    assert vm.deletion.reason == "it failed: ImageNotFound: there is no image demo/kernel:6.1"
    assert machine.operation().reason == vm.deletion.reason
    machine.accept(destroyed(vm))
    gone = [event for event in machine.events if event.kind is Kind.MICROVM]
    assert [event.deletion for event in gone] == [vm.deletion]
    assert machine.state.tallies[Trigger.FAILED_MICROVM.value].collected == 1


def test_it_is_kept_for_its_time_and_for_ever_by_default(machine: DrivenMachine) -> None:
    failed(machine)
    early = plan(machine.state, NOTHING_KEPT, now_ms=machine.at + 59_999)
    assert (early.collect, waits(early, Trigger.FAILED_MICROVM)) == ((), [WaitsFor.GRACE])
    assert waits(later(machine, GCPolicySpec()), Trigger.FAILED_MICROVM) == [WaitsFor.POLICY]


def test_one_that_was_declared_anew_meanwhile_is_kept(machine: DrivenMachine) -> None:
    failed(machine)
    command = of(later(machine), Trigger.FAILED_MICROVM)
    machine.accept(declare_microvm(memory_in_mb=256))
    machine.refuse(command, Code.STALE)


def test_one_on_a_silent_host_waits_for_it(machine: DrivenMachine) -> None:
    failed(machine)
    command = of(later(machine), Trigger.FAILED_MICROVM)
    machine.lose()
    assert waits(later(machine), Trigger.FAILED_MICROVM) == [WaitsFor.HOST]
    machine.refuse(command, Code.CONSTRAINT_VIOLATED)


# -- holds -------------------------------------------------------------------------------------------------------------


def test_what_is_held_is_neither_collected_nor_deleted(machine: DrivenMachine) -> None:
    failed(machine)
    command = of(later(machine), Trigger.FAILED_MICROVM)
    machine.accept(HOLD_WEB, actor="bob")
    assert waits(later(machine), Trigger.FAILED_MICROVM) == [WaitsFor.HOLD]
    machine.refuse(command, Code.HELD)
    delete = Delete(kind=Kind.MICROVM, namespace="demo", name="web")
    refused = machine.refuse(delete, Code.HELD, "/name")
    assert "held by bob: somebody looks at it" in refused.message
    machine.accept(Release(kind=HoldKind.MICROVM, namespace="demo", name="web"))
    machine.accept(replace(delete, reason="seen"))
    deletion = machine.vm().deletion
    assert deletion is not None
    assert (deletion.actor, deletion.reason, deletion.trigger) == ("alice", "seen", None)


def test_a_held_host_is_not_deleted(machine: DrivenMachine) -> None:
    machine.accept(Hold(kind=HoldKind.HOST, name="h1", reason="disk is read"))
    machine.refuse(Delete(kind=Kind.HOST, name="h1"), Code.HELD, "/name")


def test_a_hold_needs_a_reason_and_something_to_hold(machine: DrivenMachine) -> None:
    machine.active()
    machine.refuse(replace(HOLD_WEB, reason=""), Code.INVALID, "/reason")
    machine.refuse(replace(HOLD_WEB, name="none"), Code.NOT_FOUND, "/name")
    machine.refuse(Hold(kind=HoldKind.FOUND, host="h1", name="9", reason="x"), Code.NOT_FOUND, "/name")
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    machine.refuse(HOLD_WEB, Code.BEING_DELETED, "/name")


def test_a_hold_of_what_was_found_outlives_that_nothing_is_told_of_it(machine: DrivenMachine) -> None:
    machine.accept(report(unmanaged=[COPY]))
    machine.accept(Hold(kind=HoldKind.FOUND, host="h1", name="9", reason="whose is it?"))
    machine.accept(report(unmanaged=[]))
    machine.accept(report(unmanaged=[COPY]))
    assert waits(later(machine), Trigger.UNMANAGED_MICROVM) == [WaitsFor.HOLD]
    machine.refuse(Delete(kind=Kind.HOST, name="h1"), Code.HELD, "/name")


# -- unmanaged microVMs ------------------------------------------------------------------------------------------------


def test_an_unmanaged_copy_ends_by_an_order_that_its_host_confirms(machine: DrivenMachine) -> None:
    machine.accept(report(unmanaged=[COPY]))
    command = of(later(machine), Trigger.UNMANAGED_MICROVM)
    machine.accept(command, actor="gc")
    host = machine.host()
    assert host.stale == {"vm-old": 3}
    assert (host.orders["vm-old"].actor, host.orders["vm-old"].trigger) == ("gc", Trigger.UNMANAGED_MICROVM)
    assert waits(later(machine), Trigger.UNMANAGED_MICROVM) == [WaitsFor.CONFIRMATION]
    machine.refuse(command, Code.CONSTRAINT_VIOLATED)
    machine.accept(report(destroyed=[Destroyed(uid="vm-old", epoch=3)], unmanaged=[]))
    assert (machine.host().stale, machine.host().orders) == ({}, {})


@pytest.mark.parametrize(
    "copy",
    [replace(COPY, ours=False), replace(COPY, uid=None), replace(COPY, epoch=None), replace(COPY, uid="vm-web")],
    ids=["of another cluster", "without a uid", "without an epoch", "of a declared microVM"],
)
def test_what_may_be_somebody_s_is_never_collected(machine: DrivenMachine, copy: Unmanaged) -> None:
    machine.active()
    machine.accept(report(unmanaged=[COPY]))
    command = of(later(machine), Trigger.UNMANAGED_MICROVM)
    machine.accept(report(unmanaged=[copy]))
    made = later(machine)
    assert waits(made, Trigger.UNMANAGED_MICROVM) == [WaitsFor.OPERATOR]
    machine.do(command)
    machine.do(replace(command, subject=replace(command.subject, uid=copy.uid), epoch=copy.epoch or 3))
    assert machine.host().stale == {}


def test_copies_of_before_a_restore_may_be_newer_than_the_backup(machine: DrivenMachine) -> None:
    machine.accept(report(unmanaged=[COPY]))
    machine.accept(begin_incarnation())
    machine.accept(agent_connected(session="again"))
    machine.accept(report(session="again", rejoined=True))
    assert machine.host().phase is HostPhase.READY
    assert waits(later(machine), Trigger.UNMANAGED_MICROVM) == [WaitsFor.OPERATOR]


def test_one_order_ends_every_copy_of_a_microvm_on_a_host(machine: DrivenMachine) -> None:
    machine.accept(report(unmanaged=[COPY, replace(COPY, native_id="pid-1", epoch=5)]))
    made = later(machine)
    machine.accept(of(made, Trigger.UNMANAGED_MICROVM))
    assert machine.host().stale == {"vm-old": 5}


# -- lost hosts and operations -----------------------------------------------------------------------------------------


def test_a_host_that_is_off_for_good_goes_with_what_waits_for_it(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web", reason="not needed"))
    machine.lose()
    assert waits(later(machine), Trigger.LOST_HOST) == [WaitsFor.OPERATOR]
    machine.accept(confirm_fenced(), actor="bob")
    command = of(later(machine), Trigger.LOST_HOST)
    assert command.reason == "bob confirmed that it is off; 1 tombstones and orders wait for it and go with it"
    machine.accept(command, actor="gc")
    assert "h1" not in machine.state.hosts
    reasons = {event.kind: event.deletion.reason for event in machine.events if event.deletion is not None}
    assert reasons == {Kind.MICROVM: "not needed", Kind.HOST: command.reason}


def test_a_host_that_still_holds_something_is_kept(machine: DrivenMachine) -> None:
    machine.active()
    machine.lose()
    machine.accept(confirm_fenced())
    assert waits(later(machine), Trigger.LOST_HOST) == [WaitsFor.OPERATOR]


def test_ended_operations_are_forgotten_the_oldest_first(machine: DrivenMachine) -> None:
    machine.active("a")
    machine.active("b")
    first, second = machine.state.finished
    made = later(machine, limit=1)
    assert [each.command.subject.name for each in made.collect] == [first]
    assert waits(made, Trigger.FINISHED_OPERATION) == [WaitsFor.THROTTLE]
    (_, late) = (each.command for each in later(machine).collect)
    machine.refuse(late, Code.STALE)
    machine.accept(made.collect[0].command)
    assert list(machine.state.finished) == [second]
    (event,) = machine.events
    assert event.deletion is not None
    assert event.deletion.reason == f"it ended: create of a {OperationPhase.SUCCEEDED}"


# -- plans -------------------------------------------------------------------------------------------------------------


def test_time_alone_changes_no_digest_and_a_hold_does(machine: DrivenMachine) -> None:
    failed(machine)
    at = machine.at + 60_000
    made = plan(machine.state, NOTHING_KEPT, now_ms=at)
    machine.accept(declare_microvm("other"))
    assert plan(machine.state, NOTHING_KEPT, now_ms=at).digest == made.digest
    machine.accept(HOLD_WEB)
    assert plan(machine.state, NOTHING_KEPT, now_ms=at).digest != made.digest


def test_a_longer_reason_than_anybody_reads_is_refused(machine: DrivenMachine) -> None:
    machine.refuse(Delete(kind=Kind.HOST, name="h1", reason="x" * 1025), Code.INVALID, "/query/reason")


# -- the declared policy -----------------------------------------------------------------------------------------------


def test_a_declared_policy_replaces_the_settings_as_a_whole(machine: DrivenMachine) -> None:
    failed(machine)
    machine.accept(declare_gc_policy(lost_host_after_s=0))
    assert waits(later(machine, NOTHING_KEPT), Trigger.FAILED_MICROVM) == [WaitsFor.POLICY]
    machine.accept(declare_gc_policy(failed_microvm_after_s=60))
    strict, lax = later(machine, NOTHING_KEPT), later(machine, GCPolicySpec())
    assert strict == lax, "nodes with different settings make the same plan"
    command = of(lax, Trigger.FAILED_MICROVM)
    policy = machine.state.gc_policies["default"]
    assert (command.policy, command.policy_revision) == ("default", policy.meta.intent_revision)
    machine.accept(command, actor="gc")
    machine.accept(Delete(kind=Kind.GC_POLICY, name="default"))
    assert later(machine, NOTHING_KEPT).policy == PolicyInForce(spec=NOTHING_KEPT)


def test_what_another_policy_decided_is_refused(machine: DrivenMachine) -> None:
    failed(machine)
    by_settings = of(later(machine), Trigger.FAILED_MICROVM)
    machine.accept(declare_gc_policy(failed_microvm_after_s=60))
    machine.refuse(by_settings, Code.POLICY_CHANGED)
    by_first = of(later(machine), Trigger.FAILED_MICROVM)
    machine.accept(declare_gc_policy(failed_microvm_after_s=59))
    machine.refuse(by_first, Code.POLICY_CHANGED)
    machine.accept(Delete(kind=Kind.GC_POLICY, name="default"))
    machine.refuse(by_first, Code.POLICY_CHANGED)
    assert machine.vm().phase is MicroVMPhase.FAILED
    machine.accept(by_settings)


def test_there_is_one_policy(machine: DrivenMachine) -> None:
    machine.refuse(declare_gc_policy("other"), Code.INVALID, "/name")


@given(first=st.none() | st.integers(0, 3), second=st.none() | st.integers(0, 3), age_s=st.integers(0, 3))
def test_a_plan_is_a_run_under_its_own_policy_alone(first: int | None, second: int | None, age_s: int) -> None:
    machine = DrivenMachine().with_host()
    failed(machine)
    machine.accept(declare_gc_policy(failed_microvm_after_s=first))
    made = plan(machine.state, NOTHING_KEPT, now_ms=machine.vm().since + age_s * 1000)
    machine.accept(declare_gc_policy(failed_microvm_after_s=second))
    now = plan(machine.state, NOTHING_KEPT, now_ms=made.at)
    for each in made.collect:
        if first == second:
            machine.accept(each.command)
        else:
            assert now.digest != made.digest
            machine.refuse(each.command, Code.POLICY_CHANGED)
