"""An operator takes every node down and restores an older state, while the hosts run on.

What no lease ends and the older state does not show is outside of the guarantee (docs/adr/0103): a backup is taken only
if whatever may run without a lease is where that backup says.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from simulation.cluster.node import CLUSTER

from controlplane.consensus.configuration import encode as encode_configuration
from controlplane.consensus.configuration import founding
from controlplane.consensus.restore import restore
from controlplane.machine.codec import View
from controlplane.machine.entry import MachineState
from controlplane.machine.state import State
from controlplane.manifest import FORMAT, Manifest, chunk_ref
from controlplane.model.spec import OnDetach, detach_action

if TYPE_CHECKING:
    from simulation.cluster.world import World


def backup(world: World, index: int, state: State) -> tuple[Manifest, list[bytes]]:
    """As `backup.contents` makes it, of a state that the log once had."""
    history = world.checker.history
    node = next(iter(world.nodes.values()))
    made = founding(node.name, node.address, {})
    chunks = [(part.key, data) for part in View(state).parts() for data in part.encode()]
    refs = tuple(chunk_ref(key, data) for key, data in chunks)
    manifest = Manifest(
        FORMAT,
        CLUSTER,
        history.incarnation,
        index,
        history.entries[index].term,
        index,
        encode_configuration(made),
        View(state).header(),
        refs,
        sum(ref.size for ref in refs),
    )
    return manifest, [data for _, data in chunks]


def is_covered(world: World, state: State) -> bool:
    """Whether whatever may run without a lease is where `state` says, or nowhere in it."""
    kept = [(guest.vm.uid, host.name) for host in world.hosts.values() for guest in host.guests.values()
            if guest.vm is not None and guest.action is OnDetach.KEEP]  # fmt: skip
    kept += [(vm.meta.uid, vm.placement.host) for vm in world.checker.state.microvms.values()
             if vm.placement is not None and OnDetach.KEEP in (vm.detach, detach_action(vm.spec))]  # fmt: skip
    for uid, host in kept:
        vm = state.microvms.get(uid)
        if vm is not None and vm.placement is not None and vm.placement.host != host:
            return False
    return True


async def restore_older(world: World, chance: random.Random) -> None:
    history = world.checker.history
    ready = [index for index in history.entries if _founded(world, history.states[index])]
    if not ready or world.restoring or world.changing_members:
        return
    index = chance.choice(ready[-200:])
    state = history.states[index]
    if not is_covered(world, state):
        world.count("restore outside of the guarantee: not done")
        return
    world.count("restored")
    world.restoring = True
    manifest, chunks = backup(world, index, state)
    for node in world.nodes.values():
        node.kill(power=False)
    await asyncio.sleep(chance.uniform(1.0, 20.0))
    incarnation = history.incarnation + 1
    for node in world.nodes.values():
        node.kill(power=False)
        node.forget()
        others = {other.name: other.address for other in world.nodes.values() if other is not node}
        restore(node.settings(others), manifest, chunks, MachineState(CLUSTER), incarnation=incarnation)
    world.checker.restored(incarnation, index, state)
    world.restoring = False
    for node in world.nodes.values():
        node.start()


def _founded(world: World, state: State) -> bool:
    """Every host has been seen, so what it may run is known to be asked for."""
    known = [state.hosts.get(name) for name in world.hosts]
    return all(host is not None and host.declared and host.inventory is not None for host in known)
