"""Members come and go: one is added, gets the log as a learner, becomes a voter, and another one is removed for good.

An operator asks any node, repeats what has an unknown outcome, and takes a node down once the log says that it is out;
until then it lives on, knowing or not. A removed id is never used again, so there are as many replacements as names.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from simulation.cluster.node import Node

from controlplane.consensus import RaftNode
from controlplane.ports import LogError, Member

if TYPE_CHECKING:
    from simulation.cluster.world import World

CALL_S = 10.0
AGAIN_S = 1.0


async def member_replaced(world: World, chance: random.Random) -> None:
    if world.restoring or world.changing_members or not world.spare_names:
        return
    world.changing_members = True
    try:
        world.count("member replaced")
        added = world.add_node(world.spare_names.pop(0))
        await _add(world, chance, added)
        await asyncio.sleep(chance.uniform(0.0, 20.0))
        leaves = chance.choice([node for node in world.nodes.values() if node is not added])
        leader = world.leader()
        if leader is not None and leader is not added and chance.random() < 0.5:
            leaves = leader
        leaves.leaving = True
        await _insist(world, chance, leaves, lambda raft: raft.remove_member(leaves.name, timeout_s=CALL_S))
        world.seen["member removed"] += 1
        await asyncio.sleep(chance.uniform(0.0, 5.0))
        world.remove_node(leaves)
    finally:
        world.changing_members = False


async def _add(world: World, chance: random.Random, node: Node) -> None:
    node.start()
    voter = Member(node.name, node.address, "voter", gateway=node.gateway)
    learner = Member(node.name, node.address, "learner", gateway=node.gateway)
    if chance.random() < 0.5:
        await _insist(world, chance, node, lambda raft: raft.add_member(voter, timeout_s=CALL_S))
    else:
        await _insist(world, chance, node, lambda raft: raft.add_member(learner, timeout_s=CALL_S))
        world.seen["member added as a learner"] += 1
        await asyncio.sleep(chance.uniform(0.0, 10.0))
        await _insist(world, chance, node, lambda raft: raft.promote_member(node.name, timeout_s=CALL_S))
        world.seen["member promoted"] += 1
    node.join = False
    world.seen["member added"] += 1


async def leadership_transferred(world: World, chance: random.Random) -> None:
    nodes = [node for node in world.nodes.values() if not node.leaving and not node.join]
    target = chance.choice(nodes)
    result = await _ask(world, chance.choice(nodes), lambda raft: raft.transfer_leadership(target.name, timeout_s=3.0))
    world.count("leadership transferred" if result == target.name else "leadership not transferred")


async def _insist(world: World, chance: random.Random, about: Node, make: Callable[[RaftNode], Awaitable[Any]]) -> None:
    """Ask members, one after another, until one says that it is so."""
    while True:
        others = [node for node in world.nodes.values() if node is not about]
        result = await _ask(world, chance.choice(others), make)
        if result is None:
            return
        world.note("member", about.name, repr(result)[:150])
        await asyncio.sleep(AGAIN_S)


async def _ask(world: World, node: Node, make: Callable[[RaftNode], Awaitable[Any]]) -> Any:
    """What its raft process answers, an error also when it is not there or says nothing in time."""
    serving = node.serving()
    if serving is None:
        return LogError(f"{node.name} does not serve")
    process, raft = serving
    answer: asyncio.Future[Any] = world.loop.create_future()

    def settle(result: Any) -> None:
        if not answer.done():
            answer.set_result(result)

    async def work() -> None:
        try:
            result = await make(raft)
        except LogError as error:
            result = error
        world.loop.post_at(world.loop.now_s, contextvars.Context(), settle, result)

    process.post(lambda: world.loop.create_task(work()))
    try:
        async with asyncio.timeout(CALL_S + 2.0):
            return await answer
    except TimeoutError:
        return LogError(f"{node.name} does not answer")
