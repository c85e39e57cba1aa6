"""Intent beside observation."""

from __future__ import annotations

import pytest
from support.builders import failure, observation
from support.driven import DrivenMachine

from controlplane.machine.convergence import (
    Difference,
    current_observation,
    differences,
    is_confirmed,
    is_settled,
)
from controlplane.model.resources import MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.types import replace


@pytest.fixture(scope="module")
def vm() -> MicroVM:
    machine = DrivenMachine().with_host()
    vm = replace(machine.active(), repair_seq=2, restart_seq=3)
    return replace(vm, observed=observation(vm))


def seen(vm: MicroVM, **changes: object) -> MicroVM:
    return replace(vm, observed=observation(vm, **changes))


def test_all_done(vm: MicroVM) -> None:
    assert current_observation(vm) == vm.observed
    assert is_confirmed(vm)
    assert is_settled(vm)
    assert differences(vm) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": None},
        {"generation": 0},
        {"generation": 2},
        {"repair_seq": 1},
        {"restart_seq": 2},
        {"failure": failure()},
        {"failure": failure(permanent=False)},
        {"epoch": 2},
    ],
)
def test_not_confirmed(vm: MicroVM, changes: dict[str, object]) -> None:
    assert not is_confirmed(seen(vm, **changes))
    assert not is_settled(seen(vm, **changes))


@pytest.mark.parametrize("without", [{"placement": None}, {"observed": None}, {"epoch": 2}])
def test_without_an_observation_of_the_present_placement_nothing_is_known(
    vm: MicroVM, without: dict[str, object]
) -> None:
    blank = replace(vm, **without)
    assert current_observation(blank) is None
    assert not is_confirmed(blank)
    assert differences(blank) == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"power": ObservedPower.STOPPED}, [("/spec/power_state", "running", "stopped")]),
        ({"power": ObservedPower.PAUSED}, [("/spec/power_state", "running", "paused")]),
        ({"vcpu": 2}, [("/spec/vcpu", 1, 2)]),
        ({"memory_in_mb": 64}, [("/spec/memory_in_mb", 128, 64)]),
        ({"vcpu": None, "memory_in_mb": None}, []),
        # What is not there has no size that could differ.
        ({"power": ObservedPower.ABSENT, "vcpu": 2}, [("/spec/power_state", "running", "absent")]),
        (
            {"power": ObservedPower.STOPPED, "vcpu": 2, "memory_in_mb": 64},
            [("/spec/power_state", "running", "stopped"), ("/spec/vcpu", 1, 2), ("/spec/memory_in_mb", 128, 64)],
        ),
    ],
)
def test_differences(vm: MicroVM, changes: dict[str, object], expected: list[tuple[str, str | int, str | int]]) -> None:
    found = differences(seen(vm, **changes))
    assert [(each.pointer, each.desired, each.observed) for each in found] == expected
    assert is_settled(seen(vm, **changes)) == (not expected)


def test_a_difference_says_why(vm: MicroVM) -> None:
    stopped = {"power": ObservedPower.STOPPED, "cause": "process exited (signal 9)"}
    assert differences(seen(vm, **stopped)) == (
        Difference(
            pointer="/spec/power_state", desired="running", observed="stopped", cause="process exited (signal 9)"
        ),
    )
    failed = seen(vm, **stopped, failure=failure(message="no such image"))
    assert [each.cause for each in differences(failed)] == ["no such image"]


def test_a_tombstone_is_never_settled(vm: MicroVM) -> None:
    assert not is_settled(replace(vm, phase=MicroVMPhase.DELETING))
