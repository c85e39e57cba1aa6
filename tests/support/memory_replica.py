"""The real machine without a log: reads and proposals in one process, with the log's failures on request.

Implements `ports.StateReader` and `ports.Proposer`. Several gateways may share one, as nodes whose replicas are level.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from controlplane.machine.apply import apply
from controlplane.machine.events import Event
from controlplane.machine.outcome import Applied, Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Command, seal
from controlplane.ports import NoLeaderError, OutcomeUnknownError
from controlplane.system import SystemClock
from support.invariants import check_state


class MemoryReplica:
    def __init__(self, cluster_id: str = "test") -> None:
        self._state = State(cluster_id=cluster_id)
        self._clock = SystemClock()
        self._index = 0
        self._changed = asyncio.Condition()
        self._watchers: set[asyncio.Queue[Event]] = set()
        self.commands: list[Command] = []
        """Everything that was committed, in order."""
        self.has_leader = True
        self.lose_outcomes = 0
        """So many of the next proposals commit, and their proposers do not learn of it."""

    @property
    def state(self) -> State:
        return self._state

    @property
    def caught_up(self) -> bool:
        return self.has_leader

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        if not self.has_leader:
            raise NoLeaderError("no leader")
        return self._state

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: condition(self._state))
                return self._state
        return None

    async def watch(self, after: int | None) -> AsyncIterator[Event]:
        assert after is None, "only watching from now on is needed here"
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        await asyncio.sleep(0)
        if not self.has_leader:
            raise NoLeaderError("no leader")
        self._index += 1
        envelope = seal(command, id=f"c{self._index}", at=self._clock.now_ms(), actor=actor, key=key)
        self._state, outcome, events = apply(self._state, envelope, index=self._index, term=1)
        self.commands.append(command)
        check_state(self._state)
        for queue in self._watchers:
            for event in events:
                queue.put_nowait(event)
        async with self._changed:
            self._changed.notify_all()
        if self.lose_outcomes:
            self.lose_outcomes -= 1
            raise OutcomeUnknownError("the connection to the leader broke")
        return outcome

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        return [await self.propose(command, actor=actor, timeout_s=timeout_s) for command in commands]

    async def accept(self, command: Command, *, actor: str = "alice") -> Applied:
        """Propose what must be accepted."""
        outcome = await self.propose(command, actor=actor)
        assert isinstance(outcome, Applied), outcome
        return outcome
