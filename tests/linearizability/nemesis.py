"""Harms the cluster for a while, from a seed: one fault after another, sometimes two of different kinds at once.

What was done, when and to whom is the nemesis's record; with the history it is what an investigation starts from.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
from linearizability.faults import Fault, World, discard_removed

_SECOND_FAULT = 0.3
_GAP_S = (0.3, 2.0)
_RECOVERS = 0.85
_RECOVERY_S = 10.0


class Event(msgspec.Struct):
    fault: str
    what: str
    begin_ns: int
    end_ns: int = 0


class Nemesis:
    def __init__(self, world: World, faults: Sequence[Fault], chance: random.Random) -> None:
        self.events: list[Event] = []
        self._world = world
        self._faults = list(faults)
        self._chance = chance
        self._turn: list[Fault] = []

    async def harm(self, seconds: float) -> None:
        """For about `seconds`, ending with a repaired cluster. Every fault has its turn before one has its second."""
        over_s = time.monotonic() + seconds
        while time.monotonic() < over_s:
            await self._once()
            if self._chance.random() < _RECOVERS:
                await self._recovered()
            await asyncio.sleep(self._chance.uniform(*_GAP_S))

    async def _once(self) -> None:
        first = self._next()
        async with AsyncExitStack() as stack:
            hold_s = await self._begin(stack, first)
            others = [fault for fault in self._faults if fault.group != first.group]
            if others and self._chance.random() < _SECOND_FAULT:
                hold_s = max(hold_s, await self._begin(stack, self._chance.choice(others)))
            await asyncio.sleep(hold_s)
        await discard_removed(self._world)

    async def _recovered(self) -> None:
        """Wait for a leader: faults that only ever hit a cluster on its knees would show little."""
        give_up = time.monotonic() + _RECOVERY_S
        while await self._world.cluster.leader() is None:
            if time.monotonic() > give_up:
                return
            await asyncio.sleep(0.1)

    def _next(self) -> Fault:
        if not self._turn:
            self._turn = self._chance.sample(self._faults, len(self._faults))
        return self._turn.pop()

    async def _begin(self, stack: AsyncExitStack, fault: Fault) -> float:
        event = Event(fault.name, "", time.monotonic_ns())
        self.events.append(event)

        def ended() -> None:
            event.end_ns = time.monotonic_ns()

        stack.callback(ended)
        event.what = await stack.enter_async_context(fault.make(self._world))
        return self._chance.uniform(*fault.hold_s)
