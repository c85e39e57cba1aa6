"""Resurrection, and the bookkeeping of what a host does when its lease ends."""

from __future__ import annotations

from itertools import product

import pytest
from support.builders import (
    agent_connected,
    confirm_fenced,
    declare_microvm,
    detached,
    failure,
    observation,
    place,
    report,
    resurrect,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.machine.outcome import Code
from controlplane.machine.recovery_rules import most_permissive
from controlplane.model.commands import Act, Action
from controlplane.model.resources import Amount, MicroVMPhase, OperationPhase, Resurrection
from controlplane.model.spec import HostFailure, OnDetach, Placement, Recovery, Volume, VolumeKind
from controlplane.model.types import replace

ELSEWHERE = HostFailure.RESTART_ELSEWHERE
MOVES = Recovery(on_host_failure=ELSEWHERE)
LOCAL = Volume(kind=VolumeKind.LOCAL)


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


# -- resurrection ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [MicroVMPhase.PLACED, MicroVMPhase.ACTIVE, MicroVMPhase.FAILED])
def test_what_may_move_is_given_up_on_a_fenced_host_and_placed_anew(
    machine: DrivenMachine, phase: MicroVMPhase
) -> None:
    vm = machine.placed(recovery=MOVES)
    if phase is MicroVMPhase.ACTIVE:
        machine.confirm(vm)
    elif phase is MicroVMPhase.FAILED:
        machine.confirm(vm, failure=failure(), generation=None, power="absent")
    assert machine.vm().phase is phase
    machine.lose()
    assert machine.host().allocated == Amount(microvms=1, vcpu=1, memory_in_mb=128)
    machine.accept(resurrect(vm))
    now = machine.vm()
    assert (now.phase, now.epoch, now.placement, now.observed, now.held) == (
        MicroVMPhase.PENDING,
        1,
        None,
        None,
        Amount(),
    )
    assert now.resurrection == Resurrection(host="h1", epoch=1, at=machine.at, reason="fenced")
    assert (machine.host().allocated, machine.host().stale) == (Amount(), {vm.meta.uid: 1})
    machine.with_host("h2")
    machine.accept(place(now, "h2"))
    assert (machine.vm().epoch, machine.vm().resurrection) == (2, now.resurrection)


def test_a_running_operation_says_what_became_of_the_host(machine: DrivenMachine) -> None:
    machine.active(recovery=MOVES)
    machine.accept(Act(namespace="demo", name="web", action=Action.RESTART))
    machine.lose()
    machine.accept(resurrect(machine.vm()))
    assert machine.operation().message == "host h1 is lost (fenced): to be placed anew"
    machine.with_host("h2")
    machine.accept(place(machine.vm(), "h2"))
    machine.confirm(machine.vm())
    assert machine.operation().phase is OperationPhase.SUCCEEDED


def test_what_a_resurrection_is_stale_for(machine: DrivenMachine) -> None:
    vm = machine.active(recovery=MOVES)
    machine.refuse(resurrect(vm), Code.STALE)  # ready
    machine.accept(suspected())
    machine.refuse(resurrect(vm), Code.STALE)
    machine.accept(detached())
    machine.refuse(resurrect(vm), Code.STALE)
    machine.accept(confirm_fenced())
    machine.refuse(resurrect(vm, host="h2"), Code.STALE)
    machine.refuse(resurrect(vm, epoch=2), Code.STALE)
    machine.refuse(resurrect(vm, uid="another"), Code.STALE)
    machine.accept(resurrect(vm))
    machine.refuse(resurrect(vm), Code.STALE)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "recovery.on_host_failure is never"),
        ({"recovery": Recovery(on_detach=OnDetach.STOP)}, "recovery.on_host_failure is never"),
        ({"recovery": MOVES, "placement": Placement(host="h1")}, "asks for host h1 alone"),
        ({"recovery": MOVES, "root_volume": LOCAL}, "local volume root would be lost"),
        ({"recovery": MOVES, "additional_volumes": {"b": LOCAL, "a": LOCAL}}, "local volume a, b would be lost"),
    ],
)
def test_what_its_policy_keeps_is_not_resurrected(machine: DrivenMachine, spec: dict[str, object], words: str) -> None:
    vm = machine.active(**spec)
    machine.lose()
    assert words in machine.refuse(resurrect(vm), Code.CONSTRAINT_VIOLATED).message
    machine.accept(confirm_fenced())
    machine.refuse(resurrect(vm), Code.CONSTRAINT_VIOLATED)


def test_what_is_local_may_be_lost_where_the_user_allows_it(machine: DrivenMachine) -> None:
    vm = machine.active(recovery=Recovery(on_host_failure=ELSEWHERE, allow_data_loss=True), root_volume=LOCAL)
    machine.lose()
    machine.accept(resurrect(vm))


def test_what_a_host_may_still_keep_waits_for_an_operator(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(declare_microvm(recovery=MOVES))
    vm = machine.vm()
    assert vm.detach is OnDetach.KEEP
    machine.lose()
    refused = machine.refuse(resurrect(vm), Code.CONSTRAINT_VIOLATED)
    assert "`flintctl host confirm-fenced h1`" in refused.message
    machine.accept(confirm_fenced())
    machine.accept(resurrect(vm))


# -- what a host does when its lease ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recovery", "detach"),
    [
        (Recovery(), OnDetach.KEEP),
        (MOVES, OnDetach.PAUSE),
        (Recovery(on_detach=OnDetach.SHUTDOWN), OnDetach.SHUTDOWN),
        (Recovery(on_host_failure=ELSEWHERE, on_detach=OnDetach.STOP), OnDetach.STOP),
    ],
)
def test_a_new_copy_is_under_the_intent_from_the_start(
    machine: DrivenMachine, recovery: Recovery, detach: OnDetach
) -> None:
    assert machine.pending(recovery=recovery).detach is OnDetach.KEEP
    machine.accept(place(machine.vm()))
    assert machine.vm().detach is detach


@pytest.mark.parametrize(("old", "new"), [*product([OnDetach.KEEP, OnDetach.PAUSE, OnDetach.STOP], repeat=2)])
def test_a_change_raises_at_once_and_lowers_when_it_is_confirmed(
    machine: DrivenMachine, old: OnDetach, new: OnDetach
) -> None:
    before = machine.active(recovery=Recovery(on_detach=old))
    machine.accept(declare_microvm(recovery=Recovery(on_detach=new), power_state="paused"))
    may = most_permissive(old, new)
    assert machine.vm().detach is may
    machine.accept(report(observation(before)))
    assert machine.vm().detach is may, "that is of the generation before"
    machine.accept(report(observation(machine.vm(), failure=failure(permanent=False), generation=None)))
    assert machine.vm().detach is may, "nothing was put into effect"
    machine.confirm(machine.vm())
    assert machine.vm().detach is new


def test_the_order_is_by_how_long_a_guest_may_be_there() -> None:
    order = [OnDetach.SHUTDOWN, OnDetach.STOP, OnDetach.PAUSE, OnDetach.KEEP]
    for (i, one), (j, other) in product(enumerate(order), repeat=2):
        assert most_permissive(one, other) is order[max(i, j)]


def test_a_driver_that_cannot_end_it_takes_nothing_that_may_move(machine: DrivenMachine) -> None:
    machine.accept(agent_connected(drivers=("flintlockd", "simulated"), fences=False))
    vm = machine.pending(recovery=MOVES)
    refused = machine.refuse(place(vm), Code.CONSTRAINT_VIOLATED)
    assert "its driver flintlockd cannot end a microVM by itself" in refused.message
    machine.refuse(place(machine.pending("other", recovery=MOVES, provider="simulated")), Code.CONSTRAINT_VIOLATED)
    machine.refuse(
        place(machine.pending("third", recovery=Recovery(on_detach=OnDetach.STOP))), Code.CONSTRAINT_VIOLATED
    )
    machine.placed("kept")


def test_a_change_that_the_driver_cannot_do_is_refused(machine: DrivenMachine) -> None:
    machine.accept(agent_connected(fences=False))
    vm = machine.active()
    refused = machine.refuse(declare_microvm(recovery=MOVES), Code.CONSTRAINT_VIOLATED, "/spec/recovery")
    assert refused.uid == vm.meta.uid
    machine.accept(declare_microvm(vcpu=2))


def test_a_driver_that_fences_no_more_keeps_what_it_runs(machine: DrivenMachine) -> None:
    """As after a downgrade of the agent; and once it fences again, only what it then reports counts."""
    vm = machine.active(recovery=MOVES)
    machine.accept(agent_connected(fences=False))
    assert machine.vm().detach is OnDetach.KEEP
    machine.confirm(vm)
    assert machine.vm().detach is OnDetach.KEEP
    machine.accept(agent_connected())
    assert machine.vm().detach is OnDetach.KEEP
    machine.confirm(vm)
    assert machine.vm().detach is OnDetach.PAUSE


def test_it_counts_which_driver_runs_it(machine: DrivenMachine) -> None:
    mixed = agent_connected(drivers=("simulated", "flintlockd"))
    facts = [replace(each, fences=each.name == "simulated") for each in mixed.inventory.drivers]
    machine.accept(replace(mixed, inventory=replace(mixed.inventory, drivers=facts)))
    vm = machine.placed(recovery=MOVES)
    machine.confirm(vm, driver="flintlockd")
    assert machine.vm().detach is OnDetach.KEEP
    machine.confirm(vm, driver="simulated")
    assert machine.vm().detach is OnDetach.PAUSE


def test_a_host_of_before_leases_keeps_all_and_refuses_nothing(machine: DrivenMachine) -> None:
    """Its log is replayed with the outcomes that it had; what runs there is not resurrected."""
    machine.accept(agent_connected(lease_ttl_ms=0, fences=False))
    vm = machine.active(recovery=MOVES)
    assert vm.detach is OnDetach.KEEP
    machine.accept(declare_microvm(recovery=Recovery()))
    machine.accept(declare_microvm(recovery=MOVES))
    machine.accept(agent_connected())
    assert machine.vm().detach is OnDetach.KEEP
    machine.confirm(machine.vm())
    assert machine.vm().detach is OnDetach.PAUSE


def test_what_is_kept_cannot_be_restarted_elsewhere(machine: DrivenMachine) -> None:
    kept = Recovery(on_host_failure=ELSEWHERE, on_detach=OnDetach.KEEP)
    machine.refuse(declare_microvm(recovery=kept), Code.INVALID, "/spec/recovery/on_detach")
    machine.pending(recovery=MOVES)
    machine.refuse(declare_microvm(recovery=kept), Code.INVALID, "/spec/recovery/on_detach")
