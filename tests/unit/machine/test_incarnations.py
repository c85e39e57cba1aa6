"""What a restore leaves in doubt: who says that hosts were waited for, and what waits until they have told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import (
    agent_connected,
    begin_incarnation,
    confirm_fenced,
    declare_host,
    detached,
    fenced,
    place,
    report,
    resurrect,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.decide.breaker import FailoverLimits
from controlplane.decide.failover import failover
from controlplane.machine.codec import Loader, View, digest_text, read_header
from controlplane.machine.outcome import Code
from controlplane.machine.state import State
from controlplane.manifest import MAX_INCARNATION
from controlplane.model.commands import Delete, Destroyed
from controlplane.model.resources import HostPhase, MicroVMPhase, Unmanaged
from controlplane.model.spec import HostFailure, Recovery
from controlplane.model.types import Kind

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
SILENT = "since the cluster was restored, nobody knows what is on host"


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host().with_host("h2")


def awaited(machine: DrivenMachine) -> list[str]:
    assert machine.state.begun is not None
    return machine.state.begun.awaited


def rejoin(machine: DrivenMachine, host: str, **told: object) -> None:
    machine.accept(agent_connected(host))
    machine.accept(report(host=host, rejoined=True, **told))


def copy_of(uid: str, *, epoch: int = 7) -> Unmanaged:
    return Unmanaged(native_id="4711", driver="simulated", uid=uid, epoch=epoch)


# -- the beginning -----------------------------------------------------------------------------------------------------


def test_the_founding_incarnation_needs_no_word(machine: DrivenMachine) -> None:
    assert (machine.state.begun, machine.state.incarnation) == (None, 1)
    machine.refuse(begin_incarnation(1), Code.STALE)
    machine.refuse(begin_incarnation(0), Code.STALE)


def test_an_incarnation_begins_once_and_none_follows_that_is_not_above(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation(4))
    begun = machine.state.begun
    assert begun is not None
    assert (begun.number, begun.at, begun.term) == (4, machine.at, 1)
    assert machine.state.incarnation == 4
    for number in (2, 3, 4):
        machine.refuse(begin_incarnation(number), Code.STALE)
    machine.accept(begin_incarnation(5))
    assert sorted(machine.state.incarnations) == ["4", "5"]


def test_it_is_refused_in_another_term(machine: DrivenMachine) -> None:
    assert "decided in term 2" in machine.refuse(begin_incarnation(term=2), Code.STALE).message


def test_one_that_no_epoch_could_count_is_refused(machine: DrivenMachine) -> None:
    machine.refuse(begin_incarnation(MAX_INCARNATION + 1), Code.INVALID)
    machine.accept(begin_incarnation(MAX_INCARNATION))
    machine.accept(confirm_fenced("h2"))
    rejoin(machine, "h1")
    assert machine.placed().epoch < 2**53


def test_every_declared_host_that_ever_connected_has_to_dial_in_again(machine: DrivenMachine) -> None:
    machine.accept(suspected("h2"))
    machine.accept(confirm_fenced("h2"))
    machine.accept(declare_host("never-seen"))
    machine.accept(agent_connected("undeclared"))
    vm = machine.active()
    machine.accept(begin_incarnation())
    assert awaited(machine) == ["h1", "h2"]
    for name in ("h1", "h2"):
        host = machine.host(name)
        assert (host.phase, host.session, host.node, host.since) == (HostPhase.DETACHED, None, None, machine.at)
        assert "the cluster was restored" in host.reason
        assert host.confirmed_by is None, "the host may have come back in the history that was lost"
    assert machine.host("never-seen").phase is HostPhase.EXPECTED
    assert machine.host("undeclared").phase is HostPhase.PENDING
    assert machine.vm() == vm, "where it is known to be"


def test_a_cluster_without_hosts_goes_on_at_once() -> None:
    machine = DrivenMachine()
    machine.accept(begin_incarnation())
    assert awaited(machine) == []
    assert machine.with_host().placed().phase is MicroVMPhase.PLACED


# -- who is waited for -------------------------------------------------------------------------------------------------


def test_nothing_is_placed_before_every_host_has_told(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation())
    vm = machine.pending()
    machine.accept(agent_connected("h1"))
    refused = machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    assert f"{SILENT} h1, h2: start the agent there" in refused.message
    machine.accept(report(host="h1", rejoined=True))
    assert awaited(machine) == ["h2"]
    assert f"{SILENT} h2:" in machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED).message
    rejoin(machine, "h2")
    assert awaited(machine) == []
    machine.accept(place(vm))


def test_of_many_that_are_waited_for_some_are_named() -> None:
    machine = DrivenMachine()
    for number in range(10):
        machine.with_host(f"h{number}")
    machine.accept(begin_incarnation())
    message = machine.refuse(place(machine.pending(), "h0"), Code.CONSTRAINT_VIOLATED).message
    assert f"{SILENT} h0, h1, h2, h3, h4, h5, h6, h7 and 2 more:" in message


def test_one_that_was_fenced_meanwhile_is_waited_for_until_an_operator_speaks(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation())
    rejoin(machine, "h1")
    machine.accept(fenced("h2"))
    vm = machine.pending()
    machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    machine.accept(confirm_fenced("h2"))
    assert awaited(machine) == []
    machine.accept(place(vm))


def test_a_host_with_orders_has_not_told_before_it_carried_them_out(machine: DrivenMachine) -> None:
    lost = machine.active(recovery=MOVES)
    machine.lose()
    machine.accept(resurrect(lost))
    machine.accept(begin_incarnation())
    rejoin(machine, "h1")
    assert awaited(machine) == ["h1", "h2"], "the order to destroy is open"
    gone = [Destroyed(uid=lost.meta.uid, epoch=lost.epoch)]
    machine.accept(report(host="h1", destroyed=gone, rejoined=True))
    assert awaited(machine) == ["h2"]


def test_hosts_that_are_lost_afterwards_keep_nothing_from_being_placed(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation())
    rejoin(machine, "h1")
    rejoin(machine, "h2")
    vm = machine.active(recovery=MOVES)
    machine.accept(detached("h1"))
    machine.accept(fenced("h1"))
    machine.accept(resurrect(vm))
    machine.accept(place(machine.vm(), "h2"))
    assert awaited(machine) == []


def test_a_host_that_has_to_tell_is_not_deleted_from_under_the_question(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation())
    delete = Delete(kind=Kind.HOST, name="h2")
    assert "has not told what is there" in machine.refuse(delete, Code.HOST_IN_USE, "/name").message
    machine.accept(agent_connected("h2"))
    machine.refuse(delete, Code.HOST_IN_USE, "/name")
    machine.accept(detached("h2"))
    machine.accept(confirm_fenced("h2"))
    machine.accept(delete)


def test_the_next_incarnation_asks_everybody_again(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation(2))
    rejoin(machine, "h1")
    machine.accept(begin_incarnation(3))
    assert awaited(machine) == ["h1", "h2"]


# -- epochs ------------------------------------------------------------------------------------------------------------


def test_no_epoch_of_a_lost_history_is_used_again(machine: DrivenMachine) -> None:
    vm = machine.active("old", recovery=MOVES)
    machine.accept(begin_incarnation(3))
    assert machine.vm("old").epoch == vm.epoch == 1, "what is placed stays as it is"
    rejoin(machine, "h1")
    rejoin(machine, "h2")
    assert machine.placed("new", recovery=MOVES).epoch == 2_000_001
    machine.accept(detached("h1"))
    machine.accept(fenced("h1"))
    for name in ("old", "new"):
        machine.accept(resurrect(machine.vm(name)))
        if name == "old":
            machine.accept(place(machine.vm(name), "h2"))
            assert machine.vm(name).epoch == 2_000_001
    machine.accept(place(machine.vm("new"), "h2"))
    assert machine.vm("new").epoch == 2_000_002


# -- copies that nobody accounts for -----------------------------------------------------------------------------------


def test_what_some_host_holds_a_copy_of_is_placed_nowhere(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(report(host="h2", unmanaged=[copy_of(vm.meta.uid)]))
    for host in ("h1", "h2"):
        message = machine.refuse(place(vm, host), Code.CONSTRAINT_VIOLATED).message
        assert "host h2 holds a copy (epoch 7) that the state does not know: end it there (simulated 4711)" in message
    machine.accept(report(host="h2", unmanaged=[copy_of("another")]))
    machine.accept(place(vm))


def test_a_copy_on_a_host_that_is_certainly_off_is_none(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(report(host="h2", unmanaged=[copy_of(vm.meta.uid)]))
    machine.lose("h2")
    machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    machine.accept(confirm_fenced("h2"))
    machine.accept(place(vm))


def test_placements_of_before_leases_are_replayed_as_they_were() -> None:
    machine = DrivenMachine().with_host()
    machine.accept(declare_host("old"))
    machine.accept(agent_connected("old", lease_ttl_ms=0))
    vm = machine.pending()
    machine.accept(report(unmanaged=[copy_of(vm.meta.uid)]))
    machine.accept(place(vm, "old"))


# -- snapshots ---------------------------------------------------------------------------------------------------------


def test_what_began_is_part_of_digest_and_snapshots(machine: DrivenMachine) -> None:
    before = digest_text(machine.state)
    machine.accept(begin_incarnation())
    assert digest_text(machine.state) != before
    again = machine.restarted()
    assert again.state.begun == machine.state.begun
    assert read_header(View(machine.state).header()).counts["incarnations"] == 1


@pytest.mark.parametrize("make", [DrivenMachine, lambda: DrivenMachine().with_host()])
def test_a_snapshot_that_knows_no_incarnations_is_of_the_founding_one(make: Callable[[], DrivenMachine]) -> None:
    state = make().state
    view = View(state)
    assert not any(part.key.startswith("incarnations") for part in view.parts())
    loader = Loader(view.header())
    for part in view.parts():
        for chunk in part.encode():
            loader.add(chunk)
    loaded: State = loader.finish()
    assert (loaded.incarnation, loaded.digest) == (1, state.digest)


def test_nothing_is_given_up_on_a_host_that_has_not_told(machine: DrivenMachine) -> None:
    """It may have been told to keep what the restored state would restart elsewhere."""
    vm = machine.active("web", recovery=MOVES)
    assert vm.placement is not None
    host = vm.placement.host
    machine.accept(begin_incarnation(2))
    machine.accept(fenced(host))
    refused = machine.refuse(resurrect(vm), Code.CONSTRAINT_VIOLATED)
    assert "has not told what it holds since the restore" in refused.message
    assert uids_given_up(machine) == []
    machine.accept(confirm_fenced(host))
    assert uids_given_up(machine) == [vm.meta.uid]
    machine.accept(resurrect(vm))


def uids_given_up(machine: DrivenMachine) -> list[str]:
    decided = failover(machine.state, term=machine.term, limits=FailoverLimits(), now_ms=machine.at)
    return [each.uid for each in decided.resurrect]
