"""Intent beside observation, for one microVM: has the host done what was asked, and what differs although it had?"""

from __future__ import annotations

from controlplane.model.resources import Amount, MicroVM, Observation, ObservedPower
from controlplane.model.spec import MicroVMSpec
from controlplane.model.types import record


@record
class Difference:
    """A field whose observed value is not the desired one."""

    pointer: str
    desired: str | int
    observed: str | int
    cause: str | None = None


def amount_of(spec: MicroVMSpec) -> Amount:
    return Amount(microvms=1, vcpu=spec.vcpu, memory_in_mb=spec.memory_in_mb)


def current_observation(vm: MicroVM) -> Observation | None:
    """What the present placement's host said of the present epoch."""
    seen = vm.observed
    if seen is None or vm.placement is None or seen.epoch != vm.epoch:
        return None
    return seen


def is_confirmed(vm: MicroVM) -> bool:
    """The host has put the present intent and every requested repair and restart into effect, once."""
    seen = current_observation(vm)
    return (
        seen is not None
        and seen.failure is None
        and seen.generation == vm.meta.generation
        and seen.repair_seq >= vm.repair_seq
        and seen.restart_seq >= vm.restart_seq
    )


def is_settled(vm: MicroVM) -> bool:
    """Confirmed, and nothing differs."""
    return not vm.is_tombstone and is_confirmed(vm) and not differences(vm)


def differences(vm: MicroVM) -> tuple[Difference, ...]:
    """Every field that a host observed to differ from the intent; empty while nothing was observed."""
    seen = current_observation(vm)
    if seen is None:
        return ()
    cause = seen.failure.message if seen.failure is not None else seen.cause
    found: list[Difference] = []
    if seen.power.value != vm.spec.power_state.value:
        found.append(
            Difference(
                pointer="/spec/power_state", desired=vm.spec.power_state.value, observed=seen.power.value, cause=cause
            )
        )
    if seen.power is not ObservedPower.ABSENT:
        if seen.vcpu is not None and seen.vcpu != vm.spec.vcpu:
            found.append(Difference(pointer="/spec/vcpu", desired=vm.spec.vcpu, observed=seen.vcpu, cause=cause))
        if seen.memory_in_mb is not None and seen.memory_in_mb != vm.spec.memory_in_mb:
            found.append(
                Difference(
                    pointer="/spec/memory_in_mb", desired=vm.spec.memory_in_mb, observed=seen.memory_in_mb, cause=cause
                )
            )
    return tuple(found)
