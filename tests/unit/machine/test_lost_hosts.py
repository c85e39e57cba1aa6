"""Hosts that fall silent: who may say so, when it counts, and how a host comes back."""

from __future__ import annotations

import pytest
from support.builders import (
    agent_connected,
    confirm_fenced,
    confirm_off,
    declare_host,
    detached,
    fenced,
    heard,
    observation,
    place,
    report,
    resurrect,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import AgentLost, Command, Delete, Destroyed
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase, OperationPhase
from controlplane.model.spec import HostFailure, OnDetach, Recovery
from controlplane.model.types import Kind, replace

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
DELETE = Delete(kind=Kind.HOST, name="h1")


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


def given_up(machine: DrivenMachine, name: str = "web") -> MicroVM:
    """What was on the lost h1 and is now pending, with an order to destroy left there."""
    vm = machine.active(name, recovery=MOVES)
    machine.lose()
    machine.accept(resurrect(vm))
    return machine.vm(name)


# -- from ready to fenced ----------------------------------------------------------------------------------------------


def test_a_host_is_suspected_and_heard_again(machine: DrivenMachine) -> None:
    machine.accept(suspected())
    host = machine.host()
    assert (host.phase, host.session, host.node) == (HostPhase.SUSPECT, "session-h1", "n1")
    assert (host.reason, host.since, host.last_seen_at) == ("silent for 3 s", machine.at, machine.at)
    machine.accept(heard())
    host = machine.host()
    assert (host.phase, host.reason, host.last_seen_at) == (HostPhase.READY, "", machine.at)


def test_a_detached_host_has_no_session_and_says_why(machine: DrivenMachine) -> None:
    machine.accept(suspected())
    seen = machine.at
    machine.accept(detached())
    host = machine.host()
    assert (host.phase, host.session, host.node) == (HostPhase.DETACHED, None, None)
    assert (host.reason, host.last_seen_at) == ("its lease ended", seen)
    machine.accept(fenced(since=machine.at))
    assert (machine.host().phase, machine.host().reason) == (HostPhase.FENCED, "silent for 14.3 s")


def test_what_runs_on_a_lost_host_stays_as_it_is_known(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.lose()
    assert machine.vm() == vm


@pytest.mark.parametrize("command", [suspected(session="x"), detached(session="x"), heard(session="x")], ids=repr)
def test_a_word_about_another_session_is_stale(machine: DrivenMachine, command: Command) -> None:
    machine.refuse(command, Code.STALE)
    machine.accept(suspected())
    machine.refuse(command, Code.STALE)


@pytest.mark.parametrize("command", [suspected("h9"), heard("h9"), detached("h9"), fenced("h9")], ids=repr)
def test_a_word_about_no_host_is_stale(machine: DrivenMachine, command: Command) -> None:
    machine.refuse(command, Code.STALE)


def test_what_another_term_decided_is_refused(machine: DrivenMachine) -> None:
    vm = machine.active(recovery=MOVES)
    machine.accept(suspected())
    machine.term = 2
    assert "decided in term 1, and this is term 2" in machine.refuse(detached(term=1), Code.STALE).message
    machine.refuse(detached(term=3), Code.STALE)
    machine.accept(detached(term=2))
    machine.refuse(fenced(term=1), Code.STALE)
    machine.accept(fenced(term=2))
    machine.refuse(resurrect(vm, term=1), Code.STALE)
    machine.accept(resurrect(vm, term=2))


def test_only_a_detached_host_is_fenced_by_the_leader(machine: DrivenMachine) -> None:
    machine.refuse(fenced(), Code.STALE)
    machine.accept(suspected())
    machine.refuse(fenced(), Code.STALE)  # it may still be granted a lease


def test_a_wait_counts_for_the_silence_that_it_began_with(machine: DrivenMachine) -> None:
    machine.accept(detached())
    first = machine.host().since
    machine.accept(agent_connected(session="again"))
    machine.accept(detached(session="again"))
    machine.refuse(fenced(since=first), Code.STALE)
    machine.accept(fenced(since=machine.host().since))


def test_a_host_that_was_lost_before_there_were_leases_is_detached_without_a_session() -> None:
    machine = DrivenMachine()
    machine.accept(declare_host())
    machine.accept(agent_connected(lease_ttl_ms=0))
    machine.accept(AgentLost(host="h1", session="session-h1", reason="silent for 10 s"))
    assert (machine.host().phase, machine.host().session) == (HostPhase.SUSPECT, None)
    machine.refuse(detached(), Code.STALE)
    machine.accept(replace(detached(), session=None))
    assert machine.host().phase is HostPhase.DETACHED


def test_agents_are_lost_only_where_nothing_is_leased(machine: DrivenMachine) -> None:
    machine.accept(suspected())
    machine.refuse(AgentLost(host="h1", session="session-h1", reason="silent"), Code.STALE)


# -- sessions and boots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
def test_another_boot_waits_until_the_host_is_detached(machine: DrivenMachine, silent: bool) -> None:
    if silent:
        machine.accept(suspected())
    other = agent_connected(session="second", boot_id="boot-2")
    refused = machine.refuse(other, Code.STALE)
    assert "connected as boot boot-1" in refused.message
    assert "give each its own" in refused.message
    machine.accept(detached())
    machine.accept(other)
    assert (machine.host().phase, machine.host().session) == (HostPhase.REJOINING, "second")


def test_the_same_boot_takes_over(machine: DrivenMachine) -> None:
    machine.accept(suspected())
    machine.accept(agent_connected(session="second", lease_ttl_ms=20_000))
    host = machine.host()
    assert (host.phase, host.session, host.lease_ttl_ms, host.reason) == (HostPhase.READY, "second", 20_000, "")


def test_another_boot_takes_over_where_no_lease_can_be_held() -> None:
    machine = DrivenMachine()
    machine.accept(agent_connected(boot_id="a"))
    machine.accept(agent_connected(boot_id="b"))  # undeclared: it gets none
    machine = DrivenMachine()
    machine.accept(declare_host())
    machine.accept(agent_connected(boot_id="a", lease_ttl_ms=0))  # of a build of before leases
    machine.accept(agent_connected(boot_id="b", lease_ttl_ms=0))
    machine.accept(agent_connected(boot_id="", lease_ttl_ms=10_000))
    machine.accept(agent_connected(boot_id="c", lease_ttl_ms=10_000))


# -- coming back -------------------------------------------------------------------------------------------------------


def test_a_host_rejoins_once_every_order_is_carried_out(machine: DrivenMachine) -> None:
    vm = given_up(machine)
    assert machine.host().stale == {vm.meta.uid: 1}
    machine.accept(agent_connected())
    host = machine.host()
    assert (host.phase, host.reason) == (HostPhase.REJOINING, "silent for 14.3 s")
    assert machine.accept(report(rejoined=True)).change is Change.UNCHANGED
    machine.accept(report(destroyed=[Destroyed(uid=vm.meta.uid, epoch=1)]))
    assert (machine.host().phase, machine.host().stale) == (HostPhase.REJOINING, {})
    machine.accept(report(rejoined=True))
    assert (machine.host().phase, machine.host().reason) == (HostPhase.READY, "")


def test_the_last_order_and_the_rejoining_may_come_in_one_report(machine: DrivenMachine) -> None:
    vm = given_up(machine)
    machine.accept(agent_connected())
    machine.accept(report(destroyed=[Destroyed(uid=vm.meta.uid, epoch=1)], rejoined=True))
    assert machine.host().phase is HostPhase.READY


@pytest.mark.parametrize("gone", [{"epoch": 0}, {"uid": "another"}])
def test_an_order_ends_by_a_word_about_its_copy(machine: DrivenMachine, gone: dict[str, object]) -> None:
    vm = given_up(machine)
    machine.accept(agent_connected())
    machine.accept(report(destroyed=[replace(Destroyed(uid=vm.meta.uid, epoch=1), **gone)]))
    assert machine.host().stale == {vm.meta.uid: 1}


def test_a_copy_that_was_given_up_is_not_observed(machine: DrivenMachine) -> None:
    seen = observation(machine.active(recovery=MOVES))
    machine.lose()
    machine.accept(resurrect(machine.vm()))
    machine.accept(agent_connected())
    assert machine.accept(report(seen)).change is Change.UNCHANGED
    machine.with_host("h2")
    machine.accept(place(machine.vm(), "h2"))
    assert machine.accept(report(seen)).change is Change.UNCHANGED
    machine.accept(report(destroyed=[Destroyed(uid=seen.uid, epoch=1)]))
    assert machine.vm().phase is MicroVMPhase.PLACED


def test_nothing_is_placed_beside_a_copy_that_is_to_be_destroyed(machine: DrivenMachine) -> None:
    vm = given_up(machine)
    machine.accept(agent_connected())
    machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    machine.accept(report(destroyed=[Destroyed(uid=vm.meta.uid, epoch=1)], rejoined=True))
    machine.accept(place(vm))
    assert machine.vm().epoch == 2


def test_a_rejoining_host_that_falls_silent_keeps_its_orders(machine: DrivenMachine) -> None:
    vm = given_up(machine)
    machine.accept(agent_connected())
    machine.refuse(suspected(), Code.STALE)
    machine.accept(detached())
    assert (machine.host().phase, machine.host().stale) == (HostPhase.DETACHED, {vm.meta.uid: 1})


def test_an_agent_that_is_back_proves_the_operator_wrong(machine: DrivenMachine) -> None:
    """Else the old word would be taken for the host's next silence, and what is kept there would run twice."""
    vm = machine.active(recovery=MOVES)
    machine.accept(agent_connected(fences=False))
    assert machine.vm().detach is OnDetach.KEEP
    machine.accept(suspected())
    machine.accept(confirm_fenced())
    machine.accept(agent_connected(fences=False))
    assert machine.host().confirmed_by is None
    machine.accept(detached())
    machine.accept(fenced())
    machine.refuse(resurrect(vm), Code.CONSTRAINT_VIOLATED)


# -- an operator's word ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [[suspected()], [suspected(), detached()], [detached(), fenced()]], ids=len)
def test_an_operator_confirms_that_a_lost_host_is_off(machine: DrivenMachine, way: list[Command]) -> None:
    for command in way:
        machine.accept(command)
    reason = machine.host().reason
    outcome = machine.accept(confirm_fenced(revision=machine.host().meta.intent_revision), actor="bob", key="k")
    host = machine.host()
    assert (host.phase, host.confirmed_by, host.session, host.node) == (HostPhase.FENCED, "bob", None, None)
    assert (host.reason, outcome.kind, outcome.uid) == (reason, Kind.HOST, host.meta.uid)
    again = machine.accept(confirm_fenced(), actor="alice")
    assert (again.change, machine.host().confirmed_by) == (Change.UNCHANGED, "bob")


def test_a_suspect_host_that_is_said_to_be_off_is_detached_first(machine: DrivenMachine) -> None:
    """The leader may be granting to it at that moment: nothing of it may be given up before that has ended."""
    vm = machine.active(recovery=MOVES)
    machine.accept(suspected())
    machine.accept(confirm_off(), actor="bob")
    host = machine.host()
    assert (host.phase, host.confirmed_by, host.session) == (HostPhase.DETACHED, "bob", None)
    assert machine.accept(confirm_off(), actor="alice").change is Change.UNCHANGED, "saying it twice hastens nothing"
    machine.refuse(resurrect(vm), Code.STALE)
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    machine.refuse(DELETE, Code.HOST_IN_USE, "/name")
    machine.accept(fenced())
    assert (machine.host().phase, machine.host().confirmed_by) == (HostPhase.FENCED, "bob")
    machine.accept(DELETE)


@pytest.mark.parametrize("way", [[suspected(), detached()], [detached(), fenced()]], ids=len)
def test_a_host_without_a_lease_that_is_said_to_be_off_is_fenced(machine: DrivenMachine, way: list[Command]) -> None:
    for command in way:
        machine.accept(command)
    machine.accept(confirm_off(revision=machine.host().meta.intent_revision), actor="bob")
    assert (machine.host().phase, machine.host().confirmed_by) == (HostPhase.FENCED, "bob")


def test_what_an_operators_word_is_refused_for(machine: DrivenMachine) -> None:
    machine.refuse(confirm_fenced("h9"), Code.NOT_FOUND, "/name")
    machine.accept(agent_connected("h2"))
    machine.refuse(confirm_fenced("h2"), Code.NOT_FOUND, "/name")  # undeclared
    machine.accept(declare_host("h3"))
    machine.refuse(confirm_fenced("h3"), Code.HOST_NOT_LOST, "/name")  # expected
    machine.refuse(confirm_fenced(), Code.HOST_NOT_LOST, "/name")  # ready
    machine.accept(suspected())
    machine.refuse(confirm_fenced(revision=999), Code.REVISION_CONFLICT, "/header/if-match")
    machine.accept(detached())
    machine.accept(agent_connected())
    machine.refuse(confirm_fenced(), Code.HOST_NOT_LOST, "/name")  # rejoining


# -- deleting a lost host ----------------------------------------------------------------------------------------------


def test_a_host_with_orders_is_deleted_once_it_is_off_for_good(machine: DrivenMachine) -> None:
    vm = given_up(machine)
    refused = machine.refuse(DELETE, Code.HOST_IN_USE, "/name")
    assert "1 copy" in refused.message
    assert "flintctl host confirm-fenced h1" in refused.message
    machine.accept(agent_connected())
    machine.refuse(DELETE, Code.HOST_IN_USE, "/name")
    machine.accept(detached())
    machine.accept(confirm_fenced())
    machine.accept(DELETE)
    assert "h1" not in machine.state.hosts
    assert machine.vm().resurrection == vm.resurrection


def test_tombstones_wait_for_a_lost_host_or_go_with_one_that_is_off_for_good(machine: DrivenMachine) -> None:
    machine.active("stays")
    vm = machine.active("goes", recovery=MOVES)
    machine.lose()
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="goes"))
    assert machine.vm("goes").phase is MicroVMPhase.DELETING
    machine.refuse(resurrect(vm), Code.STALE)
    assert "confirm-fenced h1" in machine.refuse(DELETE, Code.HOST_IN_USE, "/name").message
    machine.accept(confirm_fenced())
    assert machine.refuse(DELETE, Code.HOST_IN_USE, "/name").message == "host h1 still holds 1 microVM: demo/stays"
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="stays"))
    operation = machine.operation("stays")
    machine.accept(DELETE)
    assert not machine.state.microvms
    assert machine.state.operations[operation.id].phase is OperationPhase.SUCCEEDED
    assert machine.restarted().state.digest == machine.state.digest


def test_what_was_resurrected_is_deleted_at_once_and_its_order_stays(machine: DrivenMachine) -> None:
    vm = given_up(machine)
    outcome = machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    assert outcome.change is Change.DELETED
    assert machine.host().stale == {vm.meta.uid: 1}
    machine.accept(agent_connected())
    machine.accept(report(destroyed=[Destroyed(uid=vm.meta.uid, epoch=1)], rejoined=True))
    assert machine.host().phase is HostPhase.READY
