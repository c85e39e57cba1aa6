"""What goes wrong. Each fault begins, lasts and ends by itself; several may be under way.

What the product does not promise to survive is not drawn: agent and watchdog of one host in trouble together, an
operator's word about a host that runs, clocks of hosts and nodes that differ by more than a tenth.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from simulation.cluster.groups import group_rolled
from simulation.cluster.host import Guest
from simulation.cluster.loop import Process
from simulation.cluster.members import leadership_transferred, member_replaced
from simulation.cluster.network import Pair, Weather
from simulation.cluster.node import Node
from simulation.cluster.operating import (
    HOST_CALM_S,
    given_up_on,
    host_acted_on,
    host_deleted,
    host_emptied,
    just_placed,
    nowhere_to_go,
    power_off,
)
from simulation.cluster.restoring import restore_older

from controlplane.model.resources import ObservedPower

if TYPE_CHECKING:
    from simulation.cluster.world import World

Fault = Callable[["World", random.Random], Awaitable[None]]


def lasting(chance: random.Random, least_s: float, most_s: float) -> float:
    """Short troubles are as likely as long ones."""
    return least_s * (most_s / least_s) ** chance.random()


async def passing(process: Process | None, seconds: float) -> None:
    """SIGSTOP for a while."""
    if process is None or not process.alive:
        return
    process.stop()
    await asyncio.sleep(seconds)
    process.go_on()


def pick_node(world: World, chance: random.Random) -> Node:
    leader = world.leader()
    return leader if leader is not None and chance.random() < 0.5 else chance.choice(list(world.nodes.values()))


# -- nodes -------------------------------------------------------------------------------------------------------------


async def node_killed(world: World, chance: random.Random) -> None:
    node, power = pick_node(world, chance), chance.random() < 0.5
    world.count("node lost power" if power else "node killed")
    node.kill(power=power)
    await asyncio.sleep(lasting(chance, 0.5, 60.0))
    node.start()


async def all_nodes_down(world: World, chance: random.Random) -> None:
    world.count("all nodes down")
    power = chance.random() < 0.5
    nodes = list(world.nodes.values())
    for node in nodes:
        node.kill(power=power)
    await asyncio.sleep(lasting(chance, 10.0, 300.0))
    for node in chance.sample(nodes, len(nodes)):
        node.start()
        await asyncio.sleep(chance.uniform(0.0, 3.0))


async def raft_killed(world: World, chance: random.Random) -> None:
    node = pick_node(world, chance)
    if node.raft is not None and node.raft.process.alive:
        world.count("raft process killed")
        node.raft.process.kill()


async def front_killed(world: World, chance: random.Random) -> None:
    node = pick_node(world, chance)
    if node.front is not None and node.front.process.alive:
        world.count("front process killed")
        node.front.process.kill()


async def node_stopped(world: World, chance: random.Random) -> None:
    node, seconds = pick_node(world, chance), lasting(chance, 0.3, 25.0)
    which = chance.choice(("raft", "front", "both"))
    world.count(f"stopped: {which}")
    lives = [node.raft] if which == "raft" else [node.front] if which == "front" else [node.raft, node.front]
    await asyncio.gather(*(passing(life.process, seconds) for life in lives if life is not None))


async def disk_trouble(world: World, chance: random.Random) -> None:
    node, what = pick_node(world, chance), chance.choice(("dies", "fails", "slow", "slow"))
    world.count(f"disk: {what}")
    if what == "slow":
        node.disk.sync_s = (0.001, chance.choice((0.05, 0.4)))
        await asyncio.sleep(lasting(chance, 2.0, 40.0))
        node.disk.sync_s = (0.0, 0.0)
    elif what == "dies":
        node.disk.dies_in = chance.randint(1, 20)
    else:
        node.disk.fails_in = chance.randint(1, 20)


# -- the network -------------------------------------------------------------------------------------------------------


async def cut_for(world: World, pairs: list[Pair], seconds: float) -> None:
    world.network.cut(pairs)
    await asyncio.sleep(seconds)
    world.network.heal(pairs)


def between(some: list[str], others: list[str]) -> list[Pair]:
    return [pair for one in some for other in others for pair in ((one, other), (other, one))]


async def partition(world: World, chance: random.Random) -> None:
    """One node, or all but one, on a side of its own, with some of the hosts and perhaps the users."""
    nodes, others = list(world.nodes), [*world.hosts, "users"]
    alone = pick_node(world, chance).name
    some = [alone, *(each for each in others if chance.random() < 0.5)]
    rest = [each for each in [*nodes, *others] if each not in some]
    pairs = between(some, rest)
    if chance.random() < 0.3:
        world.count("partition asymmetric")
        pairs = [(one, other) for one, other in pairs if (one in some) == (len(some) % 2 == 0)]
    else:
        world.count("partition symmetric")
    await cut_for(world, pairs, lasting(chance, 1.0, 60.0))


async def leader_cut_off(world: World, chance: random.Random) -> None:
    """From the other nodes alone: its hosts still reach it."""
    leader = world.leader()
    if leader is not None:
        world.count("leader cut off")
        others = [name for name in world.nodes if name != leader.name]
        await cut_for(world, between([leader.name], others), lasting(chance, 2.0, 60.0))


async def leader_deposed_unaware(world: World, chance: random.Random) -> None:
    """Its raft process is stopped. For a while its front believes that it leads, and two hosts reach no other node."""
    leader = world.leader()
    if leader is None or leader.raft is None:
        return
    world.count("leader deposed unaware")
    hosts = chance.sample(list(world.hosts), 2)
    seconds = lasting(chance, 5.0, 40.0)
    others = [name for name in world.nodes if name != leader.name]
    await asyncio.gather(passing(leader.raft.process, seconds), cut_for(world, between(hosts, others), seconds))


async def host_cut_off(world: World, chance: random.Random) -> None:
    host = chance.choice(list(world.hosts))
    pairs = between([host], list(world.nodes))
    if chance.random() < 0.25:
        world.count("host cut off in one direction")
        pairs = [pair for pair in pairs if (pair[0] == host) == (chance.random() < 0.5)]
    else:
        world.count("host cut off")
    await cut_for(world, pairs, lasting(chance, 1.0, 90.0))


async def bad_weather(world: World, chance: random.Random) -> None:
    world.count("bad weather")
    slow_s = chance.choice((0.005, 0.05, 0.3))
    world.network.weather = Weather(
        loss=chance.choice((0.0, 0.05, 0.2)), duplicate=chance.choice((0.0, 0.1)), delay_s=(0.0005, slow_s)
    )
    await asyncio.sleep(lasting(chance, 3.0, 60.0))
    world.network.weather = Weather()


# -- hosts -------------------------------------------------------------------------------------------------------------


async def host_lost_power(world: World, chance: random.Random) -> None:
    name = world.claim_host(chance)
    if name is None:
        return
    world.count("host lost power")
    await power_off(world, name, chance, lasting(chance, 3.0, 120.0))


async def agent_killed(world: World, chance: random.Random) -> None:
    name = world.claim_host(chance)
    if name is None:
        return
    agent = world.agents[name]
    if chance.random() < 0.5:
        world.count("agent killed")
        agent.kill()
    else:
        world.count("agent away")
        agent.down = True
        agent.kill()
        await asyncio.sleep(lasting(chance, 2.0, 60.0))
        agent.down = False
        agent.start()
    await asyncio.sleep(HOST_CALM_S)
    world.release_host(name)


async def agent_frozen(world: World, chance: random.Random) -> None:
    name = world.claim_host(chance)
    if name is None:
        return
    world.count("agent frozen")
    await passing(world.agents[name].process, lasting(chance, 0.5, 60.0))
    await asyncio.sleep(HOST_CALM_S)
    world.release_host(name)


async def watchdog_trouble(world: World, chance: random.Random) -> None:
    name = world.claim_host(chance)
    if name is None:
        return
    watchdog, agent = world.hosts[name].watchdog, world.agents[name].process
    if watchdog is not None and agent is not None and agent.alive:
        if chance.random() < 0.5:
            world.count("watchdog killed")
            watchdog.process.kill()
        else:
            world.count("watchdog frozen")
            await passing(watchdog.process, lasting(chance, 0.2, 20.0))
        await asyncio.sleep(HOST_CALM_S)
    world.release_host(name)


async def driver_fails(world: World, chance: random.Random) -> None:
    """A driver is only asked for something when a guest is to change, so one crashes and a user works meanwhile."""
    name = chance.choice(list(world.hosts))
    host = world.hosts[name]
    world.count("driver fails")
    host.failing = chance.choice((0.2, 0.6, 1.0))
    await user_works(world, chance)
    await guest_crashed(world, chance)
    await given_up_on(world, name, chance, lasting(chance, 3.0, 60.0))
    host.failing = 0.0


async def guest_crashed(world: World, chance: random.Random) -> None:
    guests = [(host, guest) for host in world.hosts.values() for guest in host.running()]
    if guests:
        world.count("guest crashed")
        host, guest = chance.choice(guests)
        host.crash_guest(guest)


async def stranger_started(world: World, chance: random.Random) -> None:
    """Somebody runs something by hand."""
    host = world.hosts[chance.choice(list(world.hosts))]
    native_id = f"by-hand-{world.seen['started by hand']}"
    if host.on and len([each for each in host.guests.values() if each.vm is None]) < 3:
        world.count("started by hand")
        host.guests[native_id] = Guest(native_id, None, ObservedPower.RUNNING)
        host.wake()


async def wall_clock_jumped(world: World, chance: random.Random) -> None:
    machines = [each.machine for each in (*world.nodes.values(), *world.hosts.values())]
    world.count("wall clock jumped")
    chance.choice(machines).wall_s += chance.uniform(-100.0, 100.0)


# -- people ------------------------------------------------------------------------------------------------------------


async def user_works(world: World, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5))):
        await world.users.work()


async def lease_changed(world: World, chance: random.Random) -> None:
    """The nodes are given another TTL, and their fronts started again one by one."""
    world.count("lease settings changed")
    ttl_s = chance.choice((6.0, 10.0, 20.0))
    for node in chance.sample(list(world.nodes.values()), len(world.nodes)):
        node.lease = node.lease.model_copy(update={"ttl_s": ttl_s})
        if node.front is not None and node.front.process.alive:
            node.front.process.kill()
        await asyncio.sleep(chance.uniform(0.5, 5.0))


FAULTS: dict[Fault, float] = {
    node_killed: 4,
    all_nodes_down: 0.5,
    raft_killed: 2,
    front_killed: 2,
    node_stopped: 4,
    disk_trouble: 3,
    partition: 5,
    leader_cut_off: 3,
    leader_deposed_unaware: 2,
    host_cut_off: 6,
    bad_weather: 3,
    host_lost_power: 4,
    agent_killed: 3,
    agent_frozen: 3,
    watchdog_trouble: 3,
    driver_fails: 4,
    guest_crashed: 2,
    stranger_started: 0.5,
    wall_clock_jumped: 1,
    user_works: 12,
    lease_changed: 0.5,
    restore_older: 1.5,
    member_replaced: 1.5,
    leadership_transferred: 1,
    host_emptied: 2,
    host_deleted: 1,
    host_acted_on: 1,
    just_placed: 2,
    nowhere_to_go: 0.5,
    group_rolled: 1.5,
}
"""With how often each is drawn, relative to the others."""

FAULTS_BY_NAME = {fault.__name__: fault for fault in FAULTS}
