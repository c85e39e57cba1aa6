"""Placement and capacity: the machine verifies every choice, and gives room back only on confirmation."""

from __future__ import annotations

import pytest
from support.builders import agent_connected, declare_host, declare_microvm, declare_policy, observation, place, report
from support.driven import DrivenMachine

from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import Act, Action, AgentLost, MarkUnplaced
from controlplane.model.resources import Amount, Bid, MicroVM, MicroVMPhase
from controlplane.model.spec import Placement, Spread
from controlplane.model.types import replace


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host(vcpu=4, memory_in_mb=1024)


def unplaced(vm: MicroVM, message: str = "no host takes it") -> MarkUnplaced:
    return MarkUnplaced(
        uid=vm.meta.uid,
        generation=vm.meta.generation,
        reason="NoHostFits",
        message=message,
        bids=[Bid(host="h1", refused="full")],
    )


def test_a_placement_holds_room_before_anything_is_confirmed(machine: DrivenMachine) -> None:
    vm = machine.pending(vcpu=2, memory_in_mb=512)
    machine.accept(place(vm, score=0.25))
    now = machine.vm()
    assert (now.phase, now.epoch) == (MicroVMPhase.PLACED, 1)
    assert now.placement is not None
    assert (now.placement.host, now.placement.epoch, now.placement.score) == ("h1", 1, 0.25)
    assert machine.host().allocated == Amount(microvms=1, vcpu=2, memory_in_mb=512)
    assert machine.operation().message == "placed on h1"


def test_what_a_placement_is_refused_for(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.refuse(replace(place(vm), uid="another"), Code.STALE)
    machine.refuse(replace(place(vm), generation=2), Code.STALE)
    machine.refuse(place(vm, "h9"), Code.HOST_NOT_FOUND)
    machine.accept(declare_host(schedulable=False))
    machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    machine.accept(declare_host())
    machine.accept(AgentLost(host="h1", session="session-h1", reason="silent"))
    machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    machine.accept(agent_connected())
    machine.accept(place(vm))
    machine.refuse(place(vm), Code.STALE)


@pytest.mark.parametrize("capacity", [{"vcpu": 3}, {"memory_in_mb": 255}, {"microvms": 1}])
def test_no_host_is_filled_beyond_its_capacity(machine: DrivenMachine, capacity: dict[str, int]) -> None:
    machine.accept(agent_connected(**capacity))
    machine.placed("a", vcpu=2)
    vm = machine.pending("b", vcpu=2)
    refused = machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    assert refused.uid == vm.meta.uid
    assert "h1" in refused.message


def test_the_larger_of_both_sizes_is_held_until_the_host_confirms(machine: DrivenMachine) -> None:
    vm = machine.active(vcpu=2, memory_in_mb=512)
    machine.accept(declare_microvm(vcpu=1, memory_in_mb=768))
    both = Amount(microvms=1, vcpu=2, memory_in_mb=768)
    assert (machine.vm().held, machine.host().allocated) == (both, both)
    machine.accept(report(observation(vm)))  # still the old generation
    machine.accept(report(observation(vm, power="stopped")))
    assert machine.vm().held == both
    machine.confirm(machine.vm())
    confirmed = Amount(microvms=1, vcpu=1, memory_in_mb=768)
    assert (machine.vm().held, machine.host().allocated) == (confirmed, confirmed)


def test_a_change_that_is_taken_back_keeps_what_may_have_started(machine: DrivenMachine) -> None:
    machine.active(vcpu=1)
    machine.accept(declare_microvm(vcpu=4))
    machine.accept(declare_microvm(vcpu=1))
    assert machine.vm().held.vcpu == 4
    machine.confirm(machine.vm())
    assert machine.vm().held.vcpu == 1


@pytest.mark.parametrize(
    ("spec", "pointer"), [({"vcpu": 5}, "/spec/vcpu"), ({"memory_in_mb": 1025}, "/spec/memory_in_mb")]
)
def test_growth_beyond_the_host_is_refused_with_its_field(
    machine: DrivenMachine, spec: dict[str, int], pointer: str
) -> None:
    vm = machine.active()
    refused = machine.refuse(declare_microvm(**spec), Code.INSUFFICIENT_CAPACITY, pointer)
    assert refused.uid == vm.meta.uid


@pytest.mark.parametrize(
    ("capacity", "ours", "theirs", "pointer"),
    [
        ({"vcpu": 1}, {"memory_in_mb": 256}, {"vcpu": 2}, "/spec/vcpu"),
        ({"memory_in_mb": 200}, {"vcpu": 2}, {"memory_in_mb": 129}, "/spec/memory_in_mb"),
        ({"microvms": 1}, {"vcpu": 2, "memory_in_mb": 256}, {"vcpu": 999}, "/spec/vcpu"),
    ],
)
def test_on_a_host_that_shrank_only_what_grows_is_counted(
    machine: DrivenMachine, capacity: dict[str, int], ours: dict[str, int], theirs: dict[str, int], pointer: str
) -> None:
    machine.active("a")
    machine.active("b")
    machine.accept(agent_connected(**capacity))
    machine.accept(declare_microvm("a", **ours))
    machine.refuse(declare_microvm("b", **theirs), Code.INSUFFICIENT_CAPACITY, pointer)
    machine.accept(Act(namespace="demo", name="b", action=Action.STOP))


# -- not placed --------------------------------------------------------------------------------------------------------


def test_being_unplaced_is_explained_since_it_began(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(unplaced(vm))
    began = machine.at
    machine.accept(unplaced(vm, "still none"))
    now = machine.vm()
    assert now.phase is MicroVMPhase.PENDING
    assert now.unplaced is not None
    assert (now.unplaced.message, now.unplaced.since) == ("still none", began)
    assert machine.operation().message == "still none"
    assert machine.accept(unplaced(vm, "still none")).change is Change.UNCHANGED
    machine.accept(place(vm))
    assert machine.vm().unplaced is None


def test_a_new_spec_forgets_why_the_old_one_was_not_placed(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(unplaced(vm))
    machine.accept(declare_microvm(vcpu=2))
    assert machine.vm().unplaced is None
    machine.refuse(unplaced(vm), Code.STALE)


def test_what_being_unplaced_is_refused_for(machine: DrivenMachine) -> None:
    vm = machine.placed()
    machine.refuse(unplaced(vm), Code.STALE)
    machine.refuse(replace(unplaced(vm), uid="another"), Code.STALE)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_are_numbers(machine: DrivenMachine, score: float) -> None:
    vm = machine.pending()
    machine.refuse(place(vm, score=score), Code.INVALID, "/score")
    bids = [Bid(host="h1", score=0.5, parts={"load": score})]
    machine.refuse(replace(place(vm), bids=bids), Code.INVALID, "/score")
    machine.refuse(replace(unplaced(vm), bids=bids), Code.INVALID, "/score")


def test_two_decisions_for_the_last_room_give_one_placement(machine: DrivenMachine) -> None:
    machine.accept(declare_policy(spread=Spread(max_per=1)))
    one = machine.pending("one", placement=Placement(policy="spread"))
    two = machine.pending("two", placement=Placement(policy="spread"))
    machine.accept(place(two))
    machine.refuse(place(one), Code.CONSTRAINT_VIOLATED)
