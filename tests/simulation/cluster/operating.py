"""What operators do with hosts, and what happens to one at the worst moment for that: it is emptied, taken out and put
back; it is lost while a microVM that was just placed on it has not been confirmed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.cluster.users import NAMESPACE

from controlplane.machine.evacuation_rules import availability
from controlplane.machine.state import State
from controlplane.model.commands import ActOnHost, DeclareHost, Delete, HostAction
from controlplane.model.resources import Availability, MicroVMPhase
from controlplane.model.spec import HostFailure, HostSpec, Recovery
from controlplane.model.types import Kind

if TYPE_CHECKING:
    from simulation.cluster.world import World

_EMPTY = (Availability.DRAINED, Availability.IN_MAINTENANCE)
LOOK_S = 0.02
HOST_CALM_S = 8.0
"""After a trouble of an agent or a watchdog, before the next one of that host."""


async def power_off(world: World, name: str, chance: random.Random, off_s: float) -> None:
    """Of a claimed host; perhaps the operator says so meanwhile."""
    host, agent = world.hosts[name], world.agents[name]
    host.on = False
    agent.kill()
    host.lose_power()
    if chance.random() < 0.4:
        await asyncio.sleep(off_s / 2)
        await world.users.confirm_off(name)
        off_s /= 2
    await asyncio.sleep(off_s)
    host.machine.rate = world.draw_rate(chance)
    host.boot()
    agent.start()
    await asyncio.sleep(HOST_CALM_S)
    world.release_host(name)


async def host_emptied(world: World, chance: random.Random) -> None:
    """For maintenance, or for good: then it is deleted, and declared again later."""
    name = chance.choice(list(world.hosts))
    action = chance.choice((HostAction.DRAIN, HostAction.MAINTENANCE))
    world.count(f"host to be emptied: {action.value}")
    await world.users.propose(ActOnHost(host=name, action=action, max_parallel=chance.choice((None, 1, 3))))
    if await _comes(world, lambda state: _is_empty(state, name), chance.uniform(20.0, 90.0)):
        world.seen["host emptied"] += 1
        if chance.random() < 0.5:
            await world.users.propose(ActOnHost(host=name, action=HostAction.CORDON))
        if chance.random() < 0.5:
            await world.users.propose(Delete(kind=Kind.HOST, name=name))
            await asyncio.sleep(chance.uniform(1.0, 30.0))
            await world.users.insist(DeclareHost(name=name, uid=world.users.uid(), spec=HostSpec()))
    await world.users.propose(ActOnHost(host=name, action=HostAction.UNCORDON))


async def host_deleted(world: World, chance: random.Random) -> None:
    """Asked for whatever is on it; what the machine refuses is refused."""
    name = chance.choice(list(world.hosts))
    world.count("host deleted")
    await world.users.propose(Delete(kind=Kind.HOST, name=name))
    await asyncio.sleep(chance.uniform(0.0, 20.0))
    if world.checker.state.hosts.get(name) is None or not world.checker.state.hosts[name].declared:
        await world.users.insist(DeclareHost(name=name, uid=world.users.uid(), spec=HostSpec()))


async def lost_while_placed(world: World, chance: random.Random) -> None:
    """A host loses its power between the placement of a microVM and the first word of it."""
    name = f"late-{next(world.users.numbers)}"
    recovery = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
    await world.users.propose(world.users.declaration(name, recovery))

    def placed(state: State) -> bool:
        vm = state.microvm(NAMESPACE, name)
        return vm is not None and vm.phase is MicroVMPhase.PLACED

    if await _comes(world, placed, 10.0):
        vm = world.checker.state.microvm(NAMESPACE, name)
        assert vm is not None
        assert vm.placement is not None
        host = world.claim(vm.placement.host)
        if host is not None:
            world.count("host lost with a microVM just placed")
            await power_off(world, host, chance, chance.uniform(40.0, 120.0))
    await world.users.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=name))


def _is_empty(state: State, name: str) -> bool:
    host = state.hosts.get(name)
    return host is not None and availability(host) in _EMPTY


async def _comes(world: World, holds: Callable[[State], bool], within_s: float) -> bool:
    deadline_s = world.loop.now_s + within_s
    while not holds(world.checker.state):
        if world.loop.now_s >= deadline_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True
