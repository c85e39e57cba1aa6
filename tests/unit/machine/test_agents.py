"""What agents bring: sessions, silence and observations."""

from __future__ import annotations

import pytest
from support.builders import agent_connected, declare_host, declare_microvm, failure, observation, report
from support.driven import DrivenMachine

from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import AgentLost
from controlplane.model.resources import HostPhase, MicroVMPhase, ObservedPower, OperationPhase, Unmanaged
from controlplane.model.spec import PowerState
from controlplane.model.types import replace

LOST = AgentLost(host="h1", session="session-h1", reason="silent for 10 s")


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_an_undeclared_agent_is_kept_and_gets_nothing(machine: DrivenMachine) -> None:
    machine.accept(agent_connected("h2"))
    host = machine.host("h2")
    assert (host.phase, host.declared, host.session, host.node) == (HostPhase.PENDING, False, "session-h2", "n1")
    assert host.inventory is not None


def test_the_newest_session_is_the_only_one(machine: DrivenMachine) -> None:
    machine.accept(agent_connected(session="second", node="n2"))
    host = machine.host()
    assert (host.phase, host.session, host.node) == (HostPhase.READY, "second", "n2")
    machine.refuse(LOST, Code.STALE)
    machine.refuse(report(), Code.STALE)
    machine.accept(report(session="second"))


def test_a_silent_host_is_unreachable_until_its_agent_is_back(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.accept(LOST)
    host = machine.host()
    assert (host.phase, host.session, host.node, host.last_seen_at) == (HostPhase.SUSPECT, None, None, machine.at)
    assert machine.vm() == vm, "nobody knows anything new about what runs there"
    machine.refuse(LOST, Code.STALE)
    machine.refuse(report(observation(vm)), Code.STALE)
    machine.accept(declare_host(schedulable=False))
    assert machine.host().phase is HostPhase.SUSPECT
    machine.accept(agent_connected())
    assert (machine.host().phase, machine.host().since) == (HostPhase.READY, machine.at)


def test_silence_of_a_host_nobody_knows_is_stale(machine: DrivenMachine) -> None:
    machine.refuse(replace(LOST, host="h9"), Code.STALE)
    machine.refuse(report(host="h9"), Code.STALE)


# -- observations ------------------------------------------------------------------------------------------------------


def test_a_confirmation_makes_it_active_and_ends_the_operation(machine: DrivenMachine) -> None:
    vm = machine.placed()
    machine.accept(report(observation(vm, generation=None, power="absent")))
    assert machine.vm().phase is MicroVMPhase.PLACED
    machine.accept(report(observation(vm)))
    assert (machine.vm().phase, machine.operation().phase) == (MicroVMPhase.ACTIVE, OperationPhase.SUCCEEDED)


def test_the_same_seen_again_changes_nothing(machine: DrivenMachine) -> None:
    vm = machine.active()
    before = machine.state
    again = machine.accept(report(observation(vm, at=9_999_999)))
    assert again.change is Change.UNCHANGED
    assert machine.state is before


@pytest.mark.parametrize("changes", [{"epoch": 2}, {"epoch": 0}, {"uid": "another"}])
def test_what_is_not_of_the_present_placement_is_ignored(machine: DrivenMachine, changes: dict[str, object]) -> None:
    vm = machine.placed()
    assert machine.accept(report(observation(vm, **changes))).change is Change.UNCHANGED
    assert machine.vm() == vm


def test_what_another_host_says_is_ignored_whoever_it_says_it_is(machine: DrivenMachine) -> None:
    machine.with_host("h2")
    vm = machine.placed()
    assert machine.accept(report(observation(vm, host="h1"), host="h2")).change is Change.UNCHANGED
    machine.accept(report(observation(vm, host="h2"), host="h1"))
    assert machine.vm().observed == observation(vm, host="h1"), "the source is the session's host"


def test_what_was_never_placed_is_not_observed(machine: DrivenMachine) -> None:
    vm = machine.pending()
    assert machine.accept(report(observation(vm, epoch=0))).change is Change.UNCHANGED


def test_a_permanent_failure_fails_it_and_a_passing_one_does_not(machine: DrivenMachine) -> None:
    vm = machine.placed()
    nothing = {"power": "absent", "generation": None}
    machine.confirm(vm, failure=failure(permanent=False, message="the store is busy"), **nothing)
    assert machine.vm().phase is MicroVMPhase.PLACED
    assert machine.operation().message == "the store is busy; trying again"
    machine.confirm(vm, failure=failure(message="there is no such image"), **nothing)
    assert (machine.vm().phase, machine.operation().phase) == (MicroVMPhase.FAILED, OperationPhase.RUNNING)
    assert machine.operation().message == "there is no such image"
    machine.confirm(vm)
    assert (machine.vm().phase, machine.operation().phase) == (MicroVMPhase.ACTIVE, OperationPhase.SUCCEEDED)


def test_the_same_failure_again_fails_the_new_intent_too(machine: DrivenMachine) -> None:
    """Equal words about another attempt: what was said before is no reason to ignore it."""
    vm = machine.placed()
    cannot = observation(vm, failure=failure(), power="absent", generation=None)
    machine.accept(report(cannot))
    machine.accept(declare_microvm(memory_in_mb=256))
    assert machine.vm().phase is MicroVMPhase.PLACED
    machine.accept(report(replace(cannot, at=9_999)))
    assert (machine.vm().phase, machine.operation().message) == (MicroVMPhase.FAILED, failure().message)
    assert machine.vm().observed == cannot, "seen since then"


def test_drift_has_a_beginning_and_an_end(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.confirm(vm, power=ObservedPower.STOPPED, cause="process exited (signal 9)")
    began = machine.at
    assert machine.vm().drifted_since == began
    machine.confirm(vm, power=ObservedPower.ABSENT)
    assert machine.vm().drifted_since == began, "it is the same drift"
    machine.confirm(vm)
    assert machine.vm().drifted_since is None


def test_an_operation_waits_for_the_power_state(machine: DrivenMachine) -> None:
    vm = machine.placed(power_state=PowerState.PAUSED)
    machine.confirm(vm, power=ObservedPower.RUNNING)
    assert (machine.vm().phase, machine.operation().phase) == (MicroVMPhase.ACTIVE, OperationPhase.RUNNING)
    machine.confirm(vm)
    assert machine.operation().phase is OperationPhase.SUCCEEDED


# -- strangers ---------------------------------------------------------------------------------------------------------


def test_strangers_are_remembered_since_they_were_first_seen(machine: DrivenMachine) -> None:
    one = Unmanaged(native_id="7", driver="qemu", since=123)
    other = Unmanaged(native_id="7", driver="flintlockd")
    machine.accept(report(unmanaged=[one]))
    first = machine.at
    assert [each.since for each in machine.host().unmanaged] == [first], "the machine's time, not the host's"
    machine.accept(report(unmanaged=[one, other]))
    second = machine.at
    assert [(each.driver, each.since) for each in machine.host().unmanaged] == [("flintlockd", second), ("qemu", first)]
    assert machine.accept(report(unmanaged=None)).change is Change.UNCHANGED
    assert machine.accept(report(unmanaged=[other, one])).change is Change.UNCHANGED
    machine.accept(report(unmanaged=[]))
    assert machine.host().unmanaged == []
