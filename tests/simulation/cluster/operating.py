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
    if chance.random() < 0.3:
        await _deleted_as_it_moves(world, name)
    if await comes(world, lambda state: _is_empty(state, name), chance.uniform(20.0, 90.0)):
        world.seen["host emptied"] += 1
        if chance.random() < 0.5:
            await world.users.propose(Delete(kind=Kind.HOST, name=name))
            await asyncio.sleep(chance.uniform(1.0, 30.0))
            await _declared(world, name)
    await world.users.propose(ActOnHost(host=name, action=HostAction.UNCORDON))


async def _deleted_as_it_moves(world: World, host: str) -> None:
    def moving(state: State) -> bool:
        return any(vm.phase is MicroVMPhase.MOVING for vm in state.microvms_on(host))

    if await comes(world, moving, 10.0):
        vm = next(vm for vm in world.checker.state.microvms_on(host) if vm.phase is MicroVMPhase.MOVING)
        await world.users.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=vm.meta.name))


async def host_acted_on(world: World, chance: random.Random) -> None:
    """By an operator who cannot decide."""
    name = chance.choice(list(world.hosts))
    world.count("host acted on again and again")
    for _ in range(chance.randint(3, 8)):
        host = world.checker.state.hosts.get(name)
        if host is not None and host.declared and chance.random() < 0.3:
            # No action leads from being emptied straight to being cordoned; another declaration does.
            cordoned = HostSpec(schedulable=False)
            await world.users.propose(DeclareHost(name=name, uid=host.meta.uid, spec=cordoned))
        else:
            await world.users.propose(ActOnHost(host=name, action=chance.choice(list(HostAction))))
        await asyncio.sleep(0.05 * 200 ** chance.random())
    await world.users.propose(ActOnHost(host=name, action=HostAction.UNCORDON))


async def host_deleted(world: World, chance: random.Random) -> None:
    """While its agent is away, whatever is on it: what the machine refuses is refused, until it is said to be off."""
    name = world.claim_host(chance)
    if name is None:
        return
    world.count("host deleted")
    host, agent = world.hosts[name], world.agents[name]
    off = chance.random() < 0.7
    if off:
        host.on = False
        agent.kill()
        host.lose_power()
        await asyncio.sleep(chance.uniform(2.0, 40.0))
        await world.users.confirm_off(name)
        await comes(world, lambda state: not any(state.microvms_on(name)), chance.uniform(5.0, 60.0))
        if chance.random() < 0.7:
            # What never moves keeps its host, until nobody wants it any more.
            for vm in list(world.checker.state.microvms_on(name)):
                await world.users.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=vm.meta.name))
    await world.users.propose(Delete(kind=Kind.HOST, name=name))
    if chance.random() < 0.7:
        await _declared(world, name)
        if chance.random() < 0.3:
            await world.users.propose(Delete(kind=Kind.HOST, name=name))
    await asyncio.sleep(chance.uniform(0.0, 20.0))
    if off:
        host.boot()
        agent.start()
    if chance.random() < 0.3:
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        agent.down = True
        agent.kill()
        await asyncio.sleep(chance.uniform(1.0, 40.0))
        agent.down = False
        agent.start()
    await asyncio.sleep(HOST_CALM_S)
    world.release_host(name)
    await _declared(world, name)


async def given_up_on(world: World, name: str, chance: random.Random, within_s: float) -> None:
    """Somebody looks for what the host says it cannot run, that long: it is deleted, or the host emptied."""
    ends_s = world.loop.now_s + within_s

    def failed(state: State) -> list[str]:
        return [vm.meta.name for vm in state.microvms_on(name) if vm.phase is MicroVMPhase.FAILED]

    emptied = False
    if await comes(world, lambda state: bool(failed(state)), within_s):
        if chance.random() < 0.5:
            for each in failed(world.checker.state):
                await world.users.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=each))
        else:
            emptied = True
            await world.users.propose(ActOnHost(host=name, action=HostAction.DRAIN, max_parallel=3))
    await asyncio.sleep(max(ends_s - world.loop.now_s, chance.uniform(1.0, 20.0) if emptied else 0.0))
    if emptied:
        await world.users.propose(ActOnHost(host=name, action=HostAction.UNCORDON))


async def _declared(world: World, name: str) -> None:
    host = world.checker.state.hosts.get(name)
    if host is None or not host.declared:
        await world.users.insist(DeclareHost(name=name, uid=world.users.uid(), spec=HostSpec()))


async def just_placed(world: World, chance: random.Random) -> None:
    """Between the placement of a microVM and the first word of it, its host is lost or emptied, or it is deleted."""
    name = f"late-{next(world.users.numbers)}"
    recovery = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
    await world.users.propose(world.users.declaration(name, recovery))

    def placed(state: State) -> bool:
        vm = state.microvm(NAMESPACE, name)
        return vm is not None and vm.phase is MicroVMPhase.PLACED

    if await comes(world, placed, 10.0):
        vm = world.checker.state.microvm(NAMESPACE, name)
        assert vm is not None
        assert vm.placement is not None
        host = vm.placement.host
        match chance.choice(("lost", "lost", "emptied", "deleted")):
            case "lost" if world.claim(host) is not None:
                world.count("host lost with a microVM just placed")
                await power_off(world, host, chance, chance.uniform(40.0, 120.0))
            case "emptied":
                world.count("host emptied with a microVM just placed")
                await world.users.propose(ActOnHost(host=host, action=HostAction.DRAIN))
                await asyncio.sleep(chance.uniform(1.0, 20.0))
                await world.users.propose(ActOnHost(host=host, action=HostAction.UNCORDON))
            case _:
                world.count("microVM deleted that was just placed")
    await world.users.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=name))


async def nowhere_to_go(world: World, chance: random.Random) -> None:
    """A microVM that no host has room for waits, until it is deleted."""
    name = f"large-{next(world.users.numbers)}"
    world.count("microVM without a place")
    await world.users.propose(world.users.declaration(name, vcpu=64))
    await asyncio.sleep(chance.uniform(0.0, 10.0))
    await world.users.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=name))


def _is_empty(state: State, name: str) -> bool:
    host = state.hosts.get(name)
    return host is not None and availability(host) in _EMPTY


async def comes(world: World, holds: Callable[[State], bool], within_s: float) -> bool:
    """Looks every `LOOK_S`, where there is something new to be seen."""
    began_s = world.loop.now_s
    while not holds(world.checker.state):
        try:
            async with asyncio.timeout(began_s + within_s - world.loop.now_s):
                await world.checker.news.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(LOOK_S - (world.loop.now_s - began_s) % LOOK_S)
    return True
