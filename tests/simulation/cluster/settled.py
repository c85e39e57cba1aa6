"""What is still not as it was asked for, once nothing goes wrong any more: every accepted intent is running, or says
why not; every copy that runs is accounted for; every node has the whole log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from controlplane.decide.conditions import Truth, conditions
from controlplane.decide.drift import DriftClass, classify
from controlplane.decide.group_progress import progress
from controlplane.machine.state import State
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase, ObservedPower

if TYPE_CHECKING:
    from simulation.cluster.world import World


def unsettled(world: World) -> list[str]:
    state = world.checker.state
    return [*_nodes(world), *_hosts(state), *_intents(world, state), *_groups(state), *_copies(world, state)]


def _nodes(world: World) -> Iterator[str]:
    history = world.checker.history
    for node in world.nodes.values():
        serving, front = node.serving(), node.front
        if serving is None or front is None or not front.process.alive:
            yield f"{node.name} does not run"
        elif front.replica.state.digest != history.state.digest:
            yield f"{node.name} has not applied the whole log"


def _hosts(state: State) -> Iterator[str]:
    for name, host in state.hosts.items():
        if host.phase is not HostPhase.READY:
            yield f"host {name} is {host.phase.value} ({host.reason})"
        if host.stale:
            yield f"host {name} has orders left: {dict(host.stale)}"


def _intents(world: World, state: State) -> Iterator[str]:
    for vm in state.microvms.values():
        if not _is_as_asked(world, vm) and not _says_why(state, vm):
            yield f"{vm.meta.name} is {vm.phase.value}, and nothing says why it does not run"


def _groups(state: State) -> Iterator[str]:
    for group in state.microvm_groups.values():
        at = progress(state, group)
        # One whose members are not ready waits for them, and they say why.
        if group.deletion is not None or (at.ready == at.replicas and not at.complete and group.stopped is None):
            yield f"group {group.meta.name} is not complete: {at}"


def _is_as_asked(world: World, vm: MicroVM) -> bool:
    if vm.placement is None or vm.phase is MicroVMPhase.DELETING:
        return False
    guest = world.hosts[vm.placement.host].guests.get(vm.meta.uid)
    if guest is None or guest.vm is None or guest.vm.epoch != vm.epoch or guest.vm.generation != vm.meta.generation:
        return False
    return guest.power.value == vm.spec.power_state.value and vm.phase is MicroVMPhase.ACTIVE


def _says_why(state: State, vm: MicroVM) -> bool:
    if vm.placement is None:
        return vm.unplaced is not None
    newer = any(found.uid == vm.meta.uid for found in state.hosts[vm.placement.host].unmanaged)
    if newer or classify(state, vm).klass is DriftClass.DRIFTED:
        return True
    if vm.phase is MicroVMPhase.DELETING:
        return False
    running = next(each for each in conditions(state, vm) if each.type == "Running")
    return running.status is Truth.FALSE and vm.observed is not None and vm.observed.failure is not None


def _copies(world: World, state: State) -> Iterator[str]:
    """Nothing runs that nobody knows of."""
    for name, host in world.hosts.items():
        reported = {found.native_id for found in state.hosts[name].unmanaged} if name in state.hosts else set[str]()
        for guest in host.guests.values():
            uid = guest.vm.uid if guest.vm is not None else None
            vm = state.microvms.get(uid) if uid is not None else None
            placed = vm is not None and vm.placement is not None and vm.placement.host == name
            if not placed and guest.native_id not in reported and guest.power is not ObservedPower.ABSENT:
                yield f"{guest.native_id} on {name} is neither placed there nor reported"
