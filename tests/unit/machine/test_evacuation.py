"""Hosts that are emptied: who may be moved, in what steps, and what is said when nothing is left."""

from __future__ import annotations

import pytest
from support.builders import (
    act_on_host,
    agent_connected,
    declare_host,
    destroyed,
    evict,
    failure,
    observation,
    place,
    report,
    resurrect,
)
from support.driven import DrivenMachine

from controlplane.machine.evacuation_rules import availability, staying_reason, under_way
from controlplane.machine.outcome import Applied, Change, Code
from controlplane.model.commands import Delete, Hold, HoldKind, HostAction, HostEvacuated, MarkStaying
from controlplane.model.resources import Amount, Availability, MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.spec import (
    Evacuation,
    HostFailure,
    HostMode,
    HostSpec,
    OnDetach,
    Placement,
    Recovery,
    Volume,
    VolumeKind,
)
from controlplane.model.types import Kind

DRAIN, MAINTENANCE, UNCORDON, CORDON = (
    act_on_host(action) for action in (HostAction.DRAIN, HostAction.MAINTENANCE, HostAction.UNCORDON, HostAction.CORDON)
)
EMPTIED = HostEvacuated(host="h1")
LOCAL = {"root_volume": Volume(kind=VolumeKind.LOCAL, size_in_mb=10)}


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host().with_host("h2")


def stays(vm: MicroVM, reason: str = "pinned", *, halt: bool = False) -> MarkStaying:
    return MarkStaying(host="h1", uid=vm.meta.uid, epoch=vm.epoch, reason=reason, halt=halt)


def what_for(machine: DrivenMachine) -> Availability:
    return availability(machine.host())


# -- verbs -------------------------------------------------------------------------------------------------------------


def test_verbs_change_their_part_of_the_intent_alone(machine: DrivenMachine) -> None:
    machine.accept(declare_host(labels={"rack": "a"}, schedulable=False))
    machine.accept(act_on_host(HostAction.DRAIN, max_parallel=3))
    host = machine.host()
    assert host.meta.labels == {"rack": "a"}
    assert host.spec == HostSpec(schedulable=False, mode=HostMode.DRAIN, evacuation=Evacuation(max_parallel=3))
    assert machine.accept(DRAIN).change is Change.UNCHANGED
    machine.accept(act_on_host(HostAction.DRAIN, allow_data_loss=True))
    assert machine.host().spec.evacuation == Evacuation(max_parallel=3, allow_data_loss=True)
    machine.accept(UNCORDON)
    assert (machine.host().spec.schedulable, machine.host().spec.mode) == (True, HostMode.ACTIVE)
    assert machine.host().evacuating is None


@pytest.mark.parametrize("wrong", [0, -1, 101, 2**40])
def test_nonsense_is_refused_with_its_field(machine: DrivenMachine, wrong: int) -> None:
    pointer = "/spec/evacuation/max_parallel"
    machine.refuse(act_on_host(HostAction.DRAIN, max_parallel=wrong), Code.INVALID, pointer)
    machine.refuse(declare_host(evacuation=Evacuation(max_parallel=wrong)), Code.INVALID, pointer)


def test_a_verb_is_for_a_declared_host_at_its_revision(machine: DrivenMachine) -> None:
    machine.refuse(act_on_host(HostAction.DRAIN, "h9"), Code.NOT_FOUND, "/name")
    machine.refuse(act_on_host(HostAction.DRAIN, revision=1), Code.REVISION_CONFLICT, "/header/if-match")


def test_a_mode_is_declared_as_well(machine: DrivenMachine) -> None:
    machine.accept(declare_host(mode=HostMode.DRAIN))
    evacuating = machine.host().evacuating
    assert evacuating is not None
    assert (evacuating.mode, evacuating.asked_by, evacuating.asked_at) == (HostMode.DRAIN, "alice", machine.at)
    machine.accept(declare_host("new", mode=HostMode.MAINTENANCE))
    assert availability(machine.host("new")) is Availability.ENTERING_MAINTENANCE


def test_nothing_comes_to_a_host_that_is_to_be_emptied(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(DRAIN)
    assert "mode = drain" in machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED).message


def test_a_request_of_before_modes_is_still_the_same_request(machine: DrivenMachine) -> None:
    machine.accept(declare_host("h3"), key="k")
    assert machine.accept(declare_host("h3"), key="k").change is Change.UNCHANGED
    machine.refuse(
        declare_host("h3", mode=HostMode.DRAIN), Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k"
    )


# -- a move ------------------------------------------------------------------------------------------------------------


def test_a_move_ends_the_copy_before_it_places_another(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.accept(DRAIN)
    machine.accept(evict(vm))
    moving = machine.vm()
    assert (moving.phase, moving.epoch, moving.is_tombstone) == (MicroVMPhase.MOVING, 1, True)
    machine.refuse(place(moving, "h2"), Code.STALE)
    machine.accept(destroyed(moving))
    gone = machine.vm()
    assert (gone.phase, gone.placement, gone.held) == (MicroVMPhase.PENDING, None, Amount())
    assert gone.move is not None
    assert (gone.move.host, gone.move.epoch, gone.move.at) == ("h1", 1, machine.at)
    machine.accept(place(gone, "h2"))
    assert machine.vm().epoch == 2
    evacuating = machine.host().evacuating
    assert evacuating is not None
    assert evacuating.moved == 1


def test_every_step_may_be_repeated_and_none_counts_late(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.refuse(evict(vm), Code.STALE)
    machine.accept(DRAIN)
    machine.accept(evict(vm))
    machine.refuse(evict(vm), Code.STALE)
    machine.accept(destroyed(machine.vm()))
    machine.refuse(evict(vm), Code.STALE)
    machine.accept(place(machine.vm(), "h2"))
    machine.refuse(evict(vm), Code.STALE)
    machine.refuse(evict(machine.vm()), Code.STALE)


def test_only_so_many_are_on_their_way_until_they_run_elsewhere(machine: DrivenMachine) -> None:
    a, b = machine.active("a"), machine.active("b")
    machine.accept(DRAIN)
    machine.accept(evict(a))
    machine.refuse(evict(b), Code.STALE)
    machine.accept(destroyed(machine.vm("a")))
    machine.refuse(evict(b), Code.STALE)
    machine.accept(place(machine.vm("a"), "h2"))
    machine.refuse(evict(b), Code.STALE)
    machine.confirm(machine.vm("a"))
    machine.accept(evict(b))
    assert under_way(machine.state, machine.host()) == ["vm-b"]


def test_one_that_fails_elsewhere_stops_the_others_where_they_run(machine: DrivenMachine) -> None:
    a, b = machine.active("a"), machine.active("b")
    machine.accept(DRAIN)
    machine.accept(evict(a))
    machine.accept(destroyed(machine.vm("a")))
    machine.accept(place(machine.vm("a"), "h2"))
    machine.confirm(machine.vm("a"), failure=failure(), generation=None, power=ObservedPower.ABSENT)
    machine.refuse(evict(b), Code.STALE)
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="a"))
    machine.accept(evict(b))


def test_a_host_that_is_silent_gives_nothing_up(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.accept(DRAIN)
    machine.lose()
    assert "fenced" in machine.refuse(evict(vm), Code.STALE).message


def test_a_host_that_is_lost_in_the_middle_of_a_move_is_given_up_as_ever(machine: DrivenMachine) -> None:
    vm = machine.active(recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE))
    machine.accept(DRAIN)
    machine.accept(evict(vm))
    machine.lose()
    machine.accept(resurrect(machine.vm()))
    assert (machine.vm().phase, machine.host().stale) == (MicroVMPhase.PENDING, {"vm-web": 1})


def test_what_moves_may_be_changed_and_deleted_meanwhile(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.accept(DRAIN)
    machine.accept(evict(vm))
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    assert machine.vm().phase is MicroVMPhase.DELETING
    machine.accept(destroyed(machine.vm()))
    assert machine.state.microvm("demo", "web") is None


def test_a_cancelled_drain_keeps_what_has_not_left_and_what_is_on_its_way_arrives(machine: DrivenMachine) -> None:
    a = machine.active("a")
    b = machine.active("b")
    machine.accept(DRAIN)
    machine.accept(evict(a))
    machine.accept(UNCORDON)
    machine.refuse(evict(b), Code.STALE)
    machine.accept(destroyed(machine.vm("a")))
    machine.accept(place(machine.vm("a")))
    assert machine.vm("a").epoch == 2
    machine.accept(DRAIN)
    assert under_way(machine.state, machine.host()) == [], "it is back, and waits for its turn like the others"


# -- what stays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"placement": Placement(host="h1")}, "its placement.host asks for host h1 alone"),
        (LOCAL, "its recovery.allow_data_loss is false"),
        (LOCAL | {"recovery": Recovery(allow_data_loss=True)}, "evacuation.allow_data_loss = true moves it without"),
    ],
)
def test_what_may_not_move_is_refused_in_words(machine: DrivenMachine, spec: dict[str, object], words: str) -> None:
    vm = machine.active(**spec)
    machine.accept(DRAIN)
    assert words in str(staying_reason(vm, machine.host()))
    assert words in machine.refuse(evict(vm), Code.CONSTRAINT_VIOLATED).message


def test_what_somebody_holds_stays(machine: DrivenMachine) -> None:
    vm = machine.active()
    hold = Hold(kind=HoldKind.MICROVM, namespace="demo", name="web", reason="the crash is looked at")
    machine.accept(hold)
    machine.accept(DRAIN)
    assert "held by alice: the crash is looked at" in machine.refuse(evict(vm), Code.CONSTRAINT_VIOLATED).message


def test_data_is_lost_only_where_both_say_so(machine: DrivenMachine) -> None:
    vm = machine.active(**LOCAL, recovery=Recovery(allow_data_loss=True))
    machine.accept(act_on_host(HostAction.DRAIN, allow_data_loss=True))
    machine.accept(evict(vm))


def test_what_stays_says_why_until_the_host_is_active_again(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.refuse(stays(vm), Code.STALE)
    machine.accept(DRAIN)
    machine.accept(stays(vm, "no host takes it"))
    first = machine.vm().stay
    assert first is not None
    machine.accept(stays(vm, "another reason"))
    now = machine.vm().stay
    assert now is not None
    assert (now.reason, now.since) == ("another reason", first.since)
    machine.accept(UNCORDON)
    assert machine.vm().stay is None


# -- done --------------------------------------------------------------------------------------------------------------


def test_drained_is_said_when_nothing_is_left_and_not_before(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.refuse(EMPTIED, Code.STALE)
    machine.accept(DRAIN)
    machine.refuse(EMPTIED, Code.STALE)
    machine.accept(evict(vm))
    machine.refuse(EMPTIED, Code.STALE)
    machine.accept(destroyed(machine.vm()))
    assert what_for(machine) is Availability.DRAINING
    machine.accept(EMPTIED)
    assert what_for(machine) is Availability.DRAINED
    machine.refuse(EMPTIED, Code.STALE)
    machine.accept(CORDON)
    assert what_for(machine) is Availability.DRAINED, "a cordon beside it changes nothing"
    machine.accept(MAINTENANCE)
    assert what_for(machine) is Availability.ENTERING_MAINTENANCE


def test_in_maintenance_what_stays_is_shut_down_and_said_to_be_by_its_host(machine: DrivenMachine) -> None:
    vm = machine.active(placement=Placement(host="h1"))
    machine.accept(DRAIN)
    machine.refuse(stays(vm, halt=True), Code.STALE)
    machine.accept(MAINTENANCE)
    machine.accept(stays(vm, halt=True))
    assert machine.vm().is_halted
    # That it was stopped before it heard of the order proves nothing: it might be started yet.
    machine.accept(report(observation(machine.vm(), power=ObservedPower.STOPPED)))
    machine.refuse(EMPTIED, Code.STALE)
    machine.accept(report(observation(machine.vm(), power=ObservedPower.RUNNING, halted=True)))
    machine.refuse(EMPTIED, Code.STALE)
    machine.accept(report(observation(machine.vm(), power=ObservedPower.STOPPED, halted=True)))
    assert machine.vm().drifted_since is None, "what is asked for is no drift"
    machine.accept(EMPTIED)
    assert what_for(machine) is Availability.IN_MAINTENANCE
    machine.accept(UNCORDON)
    assert not machine.vm().is_halted


def test_what_is_halted_may_still_be_moved(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.accept(MAINTENANCE)
    machine.accept(stays(vm, halt=True))
    machine.accept(evict(machine.vm()))
    assert (machine.vm().phase, machine.vm().stay) == (MicroVMPhase.MOVING, None)


def test_what_an_agent_finds_left_behind_is_of_its_session_alone(machine: DrivenMachine) -> None:
    assert not machine.host().has_looked
    assert isinstance(machine.do(report(left_behind=[])), Applied)
    assert machine.host().has_looked
    machine.accept(agent_connected(session="another"))
    assert not machine.host().has_looked


def test_a_deleted_host_forgets_that_it_was_to_be_emptied(machine: DrivenMachine) -> None:
    machine.accept(DRAIN)
    machine.accept(Delete(kind=Kind.HOST, name="h1"))
    assert (machine.host().declared, machine.host().evacuating) == (False, None)


def test_a_lost_lease_does_not_end_what_was_moved(machine: DrivenMachine) -> None:
    """The next copy has what its own host applies, not what the last one did."""
    vm = machine.active(recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE))
    assert vm.detach is OnDetach.PAUSE
    machine.accept(DRAIN)
    machine.accept(evict(vm))
    machine.accept(destroyed(machine.vm()))
    assert machine.vm().detach is OnDetach.KEEP
