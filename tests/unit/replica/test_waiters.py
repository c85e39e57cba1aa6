"""Waiting for a state: woken when it holds, once per turn, and never by what does not concern the waiter."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.machine.state import State
from controlplane.model.types import replace
from controlplane.replica.waiters import Waiters

DEADLINE_S = 5.0


class World:
    def __init__(self) -> None:
        self.state = State(cluster_id="c1")
        self.waiters = Waiters(lambda: self.state)

    def advance(self, revision: int) -> None:
        self.state = replace(self.state, revision=revision)
        self.waiters.changed()


async def test_what_holds_already_is_answered_at_once() -> None:
    world = World()
    assert await world.waiters.until(lambda state: state.revision == 0, timeout_s=0) is world.state


async def test_each_waiter_gets_the_state_that_it_waited_for() -> None:
    world = World()
    waits = [
        asyncio.create_task(world.waiters.until(lambda state, n=n: state.revision >= n, timeout_s=DEADLINE_S))
        for n in (1, 2)
    ]
    await asyncio.sleep(0)
    world.advance(1)
    first = await waits[0]
    assert first is not None
    assert first.revision == 1
    assert not waits[1].done()
    world.advance(2)
    second = await waits[1]
    assert second is not None
    assert second.revision == 2


async def test_what_is_applied_in_one_turn_costs_one_look() -> None:
    world, looks = World(), 0

    def counted(state: State) -> bool:
        nonlocal looks
        looks += 1
        return state.revision == 100

    wait = asyncio.create_task(world.waiters.until(counted, timeout_s=DEADLINE_S))
    await asyncio.sleep(0)
    for revision in range(1, 101):
        world.advance(revision)
    assert await wait is not None
    assert looks == 2


async def test_the_deadline_answers_none_and_forgets_the_waiter() -> None:
    world, looks = World(), 0

    def never(state: State) -> bool:
        nonlocal looks
        looks += 1
        return False

    assert await world.waiters.until(never, timeout_s=0.01) is None
    world.advance(1)
    await asyncio.sleep(0)
    assert looks == 1


async def test_a_condition_that_raises_reaches_its_own_waiter_alone() -> None:
    world = World()

    def broken(state: State) -> bool:
        if state.revision:
            raise LookupError("no such thing")
        return False

    bad = asyncio.create_task(world.waiters.until(broken, timeout_s=DEADLINE_S))
    good = asyncio.create_task(world.waiters.until(lambda state: state.revision == 1, timeout_s=DEADLINE_S))
    await asyncio.sleep(0)
    world.advance(1)
    with pytest.raises(LookupError, match="no such thing"):
        await bad
    assert await good is world.state
