"""How far a host is emptied, and what of it may be moved (docs/adr/0106).

The decision and the machine both use these functions, so what is decided from a fresh state is what is accepted. That
some other host takes a microVM is not among them: only hosts know, and the decision asks them first.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.machine.holding import microvm_hold
from controlplane.machine.recovery_rules import local_volumes
from controlplane.machine.state import State
from controlplane.model.resources import Availability, Host, HostPhase, MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.spec import HostMode


def availability(host: Host) -> Availability:
    """What `host` is for now."""
    done = host.evacuating is not None and host.evacuating.done_at is not None
    match host.spec.mode:
        case HostMode.DRAIN:
            return Availability.DRAINED if done else Availability.DRAINING
        case HostMode.MAINTENANCE:
            return Availability.IN_MAINTENANCE if done else Availability.ENTERING_MAINTENANCE
        case HostMode.ACTIVE:
            return Availability.OPEN if host.spec.schedulable else Availability.CORDONED


def staying_reason(vm: MicroVM, host: Host) -> str | None:
    """Why `vm` may not be moved off `host`, in words for an operator; None when it may."""
    name = host.meta.name
    if (held := microvm_hold(vm)) is not None:
        return held.message
    if vm.spec.placement.host == name:
        return f"its placement.host asks for host {name} alone"
    local = ", ".join(local_volumes(vm.spec))
    if local and not vm.spec.recovery.allow_data_loss:
        return f"what is on its local volume {local} would be lost, and its recovery.allow_data_loss is false"
    if local and not host.spec.evacuation.allow_data_loss:
        return f"what is on its local volume {local} would be lost; evacuation.allow_data_loss = true moves it without"
    return None


def waiting_reason(host: Host) -> str | None:
    """Why nothing can be moved off `host` now; None when it can. A guest ends in good order only under a live lease."""
    if host.phase is HostPhase.READY:
        return None
    return f"the host is {host.phase.value}: what is there is moved once it is ready"


def under_way(state: State, host: Host) -> list[str]:
    """Uids of what left `host`, or is told to, and does not run elsewhere yet. One that fails there keeps its place, so
    that a fault which all of them would meet stops the rest where it runs."""
    listed = host.evacuating.under_way if host.evacuating is not None else []
    return [uid for uid in listed if (vm := state.microvms.get(uid)) is not None and _is_under_way(vm, host.meta.name)]


def remaining(state: State, host: Host) -> Iterator[MicroVM]:
    """What keeps `host` from being emptied: in maintenance, what runs or may run there, else all that is there."""
    for vm in state.microvms_on(host.meta.name):
        if host.spec.mode is not HostMode.MAINTENANCE or not stands_still(vm):
            yield vm


def is_emptied(state: State, host: Host) -> bool:
    return not host.stale and next(remaining(state, host), None) is None


def stands_still(vm: MicroVM) -> bool:
    """Its guest was ordered to stay shut down, and its host shows it so."""
    seen = vm.observed
    return (
        vm.is_halted
        and not vm.is_tombstone
        and seen is not None
        and seen.epoch == vm.epoch
        and seen.halted
        and seen.power in (ObservedPower.STOPPED, ObservedPower.ABSENT)
    )


def _is_under_way(vm: MicroVM, host: str) -> bool:
    if vm.placement is None or vm.phase is MicroVMPhase.MOVING:
        return True
    return vm.placement.host != host and vm.phase in (MicroVMPhase.PLACED, MicroVMPhase.FAILED)
