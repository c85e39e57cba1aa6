"""Those who wait for a state in which something holds.

Their conditions are looked at here, once for everything that was applied in one turn of the loop, and only a waiter
whose condition holds is woken: a thousand long polls cost a thousand cheap looks, not a thousand woken tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.machine.state import State


@dataclass(eq=False, frozen=True, slots=True)
class _Waiter:
    condition: Callable[[State], bool]
    reached: asyncio.Future[State | None]

    def expire(self) -> None:
        if not self.reached.done():
            self.reached.set_result(None)


class Waiters:
    """`present` gives the state as it is now."""

    def __init__(self, present: Callable[[], State]) -> None:
        self._present = present
        self._waiting: dict[_Waiter, None] = {}
        """In the order in which they came."""
        self._due = False

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        """The first state looked at in which `condition` holds, or None at the deadline. Raises what it raises."""
        state = self._present()
        if condition(state):
            return state
        loop = asyncio.get_running_loop()
        waiter = _Waiter(condition, loop.create_future())
        self._waiting[waiter] = None
        # Most deadlines of those that wait for news pass: each is one callback, not a task that is cancelled.
        expiry = loop.call_later(timeout_s, waiter.expire)
        try:
            return await waiter.reached
        finally:
            expiry.cancel()
            self._waiting.pop(waiter, None)

    def changed(self) -> None:
        """The state is another one: look at it before the loop's next turn."""
        if self._waiting and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._due = False
        state = self._present()
        for waiter in tuple(self._waiting):
            if waiter.reached.done():
                continue
            try:
                holds = waiter.condition(state)
            except Exception as error:
                waiter.reached.set_exception(error)
            else:
                if holds:
                    waiter.reached.set_result(state)
