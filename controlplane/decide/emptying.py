"""How far a host is emptied, for people: what has left, what is on its way, what is left, and why.

It follows from the state, so every node tells the same, and nothing of it is stored but what hosts answered.
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.machine.evacuation_rules import stands_still, staying_reason, under_way, waiting_reason
from controlplane.machine.state import State
from controlplane.model.resources import Host, MicroVM, MicroVMPhase
from controlplane.model.spec import HostMode
from controlplane.model.types import record


class Stand(StrEnum):
    """How one microVM stands in the emptying of its host."""

    WAITING = "waiting"
    """Its turn comes."""
    MOVING = "moving"
    """Its host is ending it."""
    ARRIVING = "arriving"
    """It has left, and does not run elsewhere yet."""
    STAYING = "staying"
    """It is not moved, and runs on."""
    HALTING = "halting"
    """It is not moved, and its guest is being shut down."""
    HALTED = "halted"
    """Its guest is shut down where it is, until the maintenance ends."""
    DELETING = "deleting"


@record
class Left:
    vm: MicroVM
    stand: Stand
    reason: str


@record
class Emptying:
    left: tuple[Left, ...]
    """In order of namespace and name; what has left and does not run elsewhere yet is among them."""

    def count(self, *stands: Stand) -> int:
        return sum(each.stand in stands for each in self.left)


def emptying(state: State, host: Host) -> Emptying:
    """Of a host whose mode is not `active`."""
    here = list(state.microvms_on(host.meta.name))
    gone = [vm for uid in under_way(state, host) if (vm := state.microvms[uid]).placement is None or vm not in here]
    left = [_left(state, host, vm) for vm in (*here, *gone)]
    return Emptying(left=tuple(sorted(left, key=lambda each: (str(each.vm.meta.namespace), each.vm.meta.name))))


def _left(state: State, host: Host, vm: MicroVM) -> Left:
    stand, reason = _stand(state, host, vm)
    return Left(vm=vm, stand=stand, reason=reason)


def _stand(state: State, host: Host, vm: MicroVM) -> tuple[Stand, str]:
    if vm.placement is None or vm.placement.host != host.meta.name:
        return Stand.ARRIVING, _arrival(vm)
    failed = vm.observed.failure.message if vm.observed is not None and vm.observed.failure is not None else ""
    if vm.phase is MicroVMPhase.MOVING:
        return Stand.MOVING, failed or f"host {host.meta.name} is to end it and to confirm that nothing is left"
    if vm.phase is MicroVMPhase.DELETING:
        return Stand.DELETING, failed or "it is being deleted"
    reason = staying_reason(vm, host) or (vm.stay.reason if vm.stay is not None else None)
    if reason is None:
        return Stand.WAITING, waiting_reason(host) or _turn(state, host)
    if host.spec.mode is not HostMode.MAINTENANCE:
        return Stand.STAYING, reason
    return Stand.HALTED if stands_still(vm) else Stand.HALTING, reason


def _arrival(vm: MicroVM) -> str:
    if vm.unplaced is not None:
        return vm.unplaced.message
    if vm.placement is None:
        return "it is being placed anew"
    if vm.observed is not None and vm.observed.failure is not None:
        return f"host {vm.placement.host} cannot start it: {vm.observed.failure.message}"
    return f"host {vm.placement.host} starts it"


def _turn(state: State, host: Host) -> str:
    going = len(under_way(state, host))
    return f"its turn comes: {going} of at most {host.spec.evacuation.max_parallel} are on their way"
