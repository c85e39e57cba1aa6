"""What hosts leave behind: told, kept for a time, ordered to go, and gone once the host tells of it no more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import agent_connected, confirm_fenced, destroyed, kept_volumes, report, tap
from support.driven import DrivenMachine

from controlplane.decide.gc import GCPlan, plan
from controlplane.machine.collection_rules import WaitsFor
from controlplane.machine.outcome import Applied, Code
from controlplane.model.commands import Collect, Delete, Hold, HoldKind, Release
from controlplane.model.gc import Leftover, Trigger
from controlplane.model.resources import MicroVMPhase, OperationPhase
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import Kind, replace

TAP, VOLUMES = tap(), kept_volumes()
POLICY = GCPolicySpec(leftover_after_s=60, quarantined_volumes_after_s=60, lost_tombstone_after_s=60)
HOLD = Hold(kind=HoldKind.FOUND, host="h1", name=TAP.name, reason="somebody looks at it")


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


def later(machine: DrivenMachine, policy: GCPolicySpec = POLICY, *, after_s: int = 60) -> GCPlan:
    return plan(machine.state, policy, now_ms=machine.at + after_s * 1000)


def command_for(made: GCPlan, left: Leftover) -> Collect:
    (found,) = [each.command for each in made.collect if each.command.subject.name == left.name]
    return found


def waits(made: GCPlan, name: str) -> list[WaitsFor]:
    return [each.waits_for for each in made.waiting if each.subject.name == name]


# -- what is told ------------------------------------------------------------------------------------------------------


def test_since_is_when_it_was_told_first_whatever_becomes_of_the_session(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP]))
    first = machine.host().left_behind[0].since
    machine.accept(agent_connected(session="again"))
    machine.accept(report(session="again", left_behind=[VOLUMES, TAP]))
    told = {each.name: each.since for each in machine.host().left_behind}
    assert told[TAP.name] == first < told[VOLUMES.name]
    machine.accept(report(session="again", left_behind=[]))
    machine.accept(report(session="again", left_behind=[TAP]))
    assert machine.host().left_behind[0].since > first, "it was gone, and is another one"


def test_words_of_older_agents_mean_nothing(machine: DrivenMachine) -> None:
    machine.do(report(leftovers=["qemu: tap fl0"]))
    assert (machine.host().left_behind, machine.host().has_looked) == ([], False)


# -- what is collected -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [TAP, VOLUMES], ids=["tap", "volumes"])
def test_it_goes_by_an_order_that_its_host_confirms(machine: DrivenMachine, left: Leftover) -> None:
    machine.accept(report(left_behind=[left]))
    assert waits(later(machine, after_s=59), left.name) == [WaitsFor.GRACE]
    command = command_for(later(machine), left)
    machine.accept(command, actor="gc")
    order = machine.host().clearing[left.key]
    assert (order.actor, order.reason, order.trigger) == ("gc", command.reason, command.trigger)
    assert waits(later(machine), left.name) == [WaitsFor.CONFIRMATION]
    machine.refuse(command, Code.CONSTRAINT_VIOLATED)
    machine.accept(report(left_behind=[]))
    assert (machine.host().clearing, machine.host().left_behind) == ({}, [])
    assert machine.state.tallies[command.trigger.value].reason == command.reason


def test_volumes_are_kept_for_a_day_and_the_rest_for_ever_by_default(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP, VOLUMES]))
    made = later(machine, GCPolicySpec(), after_s=86_400)
    assert [each.command.trigger for each in made.collect] == [Trigger.QUARANTINED_VOLUMES]
    assert made.collect[0].command.reason.startswith("local volumes of microVM demo/old, epoch 3")
    assert waits(made, TAP.name) == [WaitsFor.POLICY]


def test_what_does_not_carry_our_mark_is_never_collected(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP]))
    command = command_for(later(machine), TAP)
    machine.accept(report(left_behind=[replace(TAP, ours=False)]))
    assert waits(later(machine), TAP.name) == [WaitsFor.OPERATOR]
    machine.refuse(command, Code.CONSTRAINT_VIOLATED)


def test_what_is_of_a_microvm_that_is_placed_there_stays(machine: DrivenMachine) -> None:
    vm = machine.placed()
    mine = replace(TAP, uid=vm.meta.uid, epoch=vm.epoch)
    of_now = kept_volumes(uid=vm.meta.uid, epoch=vm.epoch, name="quarantine/now")
    of_before = kept_volumes(uid=vm.meta.uid, epoch=vm.epoch - 1, name="quarantine/before")
    machine.accept(report(left_behind=[mine, of_now, of_before]))
    made = later(machine)
    assert (waits(made, mine.name), waits(made, of_now.name)) == ([WaitsFor.HOST], [WaitsFor.HOST])
    machine.accept(command_for(made, of_before))


def test_a_host_that_is_not_ready_or_has_not_looked_is_waited_for(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP]))
    command = command_for(later(machine), TAP)
    machine.accept(agent_connected(session="again"))
    assert waits(later(machine), TAP.name) == [WaitsFor.HOST]
    machine.refuse(command, Code.CONSTRAINT_VIOLATED)


def test_another_thing_of_the_same_name_is_not_what_was_decided(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP]))
    command = command_for(later(machine), TAP)
    machine.accept(report(left_behind=[]))
    machine.refuse(command, Code.STALE)
    machine.accept(report(left_behind=[TAP]))
    machine.refuse(command, Code.STALE)
    machine.refuse(replace(command_for(later(machine), TAP), trigger=Trigger.QUARANTINED_VOLUMES), Code.STALE)


def test_what_is_held_stays_and_what_is_ordered_cannot_be_held(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP]))
    command = command_for(later(machine), TAP)
    machine.accept(HOLD, actor="bob")
    assert waits(later(machine), TAP.name) == [WaitsFor.HOLD]
    machine.refuse(command, Code.HELD)
    machine.accept(Release(kind=HoldKind.FOUND, host="h1", name=TAP.name))
    machine.accept(command)
    machine.refuse(HOLD, Code.BEING_DELETED, "/name")


def test_a_host_that_is_deleted_forgets_its_orders(machine: DrivenMachine) -> None:
    machine.accept(report(left_behind=[TAP]))
    machine.accept(command_for(later(machine), TAP))
    machine.accept(Delete(kind=Kind.HOST, name="h1"))
    assert machine.host().clearing == {}


# -- tombstones of hosts that are gone ---------------------------------------------------------------------------------


def deleted_on_a_lost_host(machine: DrivenMachine) -> None:
    machine.active()
    machine.active("stays")
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web", reason="not needed"))
    machine.lose()


def test_a_tombstone_ends_once_its_host_is_off_for_good(machine: DrivenMachine) -> None:
    deleted_on_a_lost_host(machine)
    uid, epoch = machine.vm().meta.uid, machine.vm().epoch
    operation = machine.vm().operation
    assert waits(later(machine), "web") == [WaitsFor.OPERATOR]
    machine.accept(confirm_fenced(), actor="bob")
    made = later(machine)
    (command,) = [each.command for each in made.collect]
    assert command.reason == "it was deleted (not needed), and host h1 is fenced"
    machine.accept(command, actor="gc")
    assert uid not in machine.state.microvms
    assert operation is not None
    assert machine.state.operations[operation].phase is OperationPhase.SUCCEEDED
    assert machine.vm("stays").phase is MicroVMPhase.ACTIVE
    assert machine.host().stale == {uid: epoch}, "should the host come back, it ends its copy"
    machine.accept(agent_connected(session="back"))
    machine.refuse(command, Code.STALE)


def test_a_host_that_comes_back_keeps_its_tombstone(machine: DrivenMachine) -> None:
    deleted_on_a_lost_host(machine)
    machine.accept(confirm_fenced())
    (command,) = [each.command for each in later(machine).collect]
    machine.accept(agent_connected(session="back"))
    machine.refuse(command, Code.STALE)
    assert machine.vm().phase is MicroVMPhase.DELETING
    machine.accept(replace(destroyed(machine.vm()), session="back"))


def test_a_host_that_is_collected_takes_its_tombstones_with_it(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    machine.lose()
    machine.accept(confirm_fenced())
    made = later(machine, replace_policy(lost_host_after_s=0))
    assert [each.command.trigger for each in made.collect] == [Trigger.LOST_HOST]
    assert waits(made, "web") == [WaitsFor.HOST]
    machine.accept(made.collect[0].command)
    assert "h1" not in machine.state.hosts


def replace_policy(**changes: int) -> GCPolicySpec:
    return GCPolicySpec(leftover_after_s=60, quarantined_volumes_after_s=60, lost_tombstone_after_s=60, **changes)


# -- a preview is the run ----------------------------------------------------------------------------------------------

things = st.lists(
    st.builds(
        lambda make, number, ours, uid: replace(make(), name=f"thing/{number}", ours=ours, uid=uid),
        st.sampled_from([tap, kept_volumes]),
        st.integers(0, 9),
        st.booleans(),
        st.sampled_from(["vm-old", "vm-web", None]),
    ),
    max_size=8,
    unique_by=lambda left: left.key,
)


@given(things, st.booleans(), st.integers(0, 120), st.integers(1, 10))
def test_a_preview_is_what_a_run_does(told: list[Leftover], held: bool, after_s: int, limit: int) -> None:
    machine = DrivenMachine().with_host()
    machine.placed()
    machine.accept(report(left_behind=told))
    if held and told:
        machine.accept(replace(HOLD, name=told[0].name))
    at = machine.at + after_s * 1000
    made = plan(machine.state, POLICY, now_ms=at, limit=limit)
    assert len(made.collect) + len(made.waiting) == len(told)
    machine.active("other")
    assert plan(machine.state, POLICY, now_ms=at, limit=limit).digest == made.digest, "what it is not about"
    for each in made.collect:
        assert isinstance(machine.do(each.command), Applied)
    ordered = {each.command.subject.name for each in made.collect}
    assert {key.partition("/")[2] for key in machine.host().clearing} == ordered
    again = plan(machine.state, POLICY, now_ms=at, limit=limit)
    assert not ordered & {each.command.subject.name for each in again.collect}, "nothing is collected twice"
    assert not ordered & {left.name for left in told if not left.ours}
