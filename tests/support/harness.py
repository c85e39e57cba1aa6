"""A replica in one process over the real machine: StateReader, Proposer and Log without a log on disk or a network.

It behaves as a single node does: a proposal is applied before it is answered, reads are always fresh, and past events
are remembered up to `remembered`. Faults are switches: `leaderless` refuses reads and proposals, `lose_outcomes`
applies the next few proposals and then claims not to know, and `gate` holds proposals until it is set. Use it from one
event loop; several gateways may share one, as nodes whose replicas are level.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from controlplane.machine.apply import effect_of
from controlplane.machine.audit import recorded
from controlplane.machine.codec import digest_text
from controlplane.machine.events import Event
from controlplane.machine.outcome import Applied, Outcome
from controlplane.machine.state import State
from controlplane.machine.telling import told
from controlplane.model.commands import Command, seal
from controlplane.ports import (
    Clock,
    CompactedError,
    Contact,
    Ids,
    LogStatus,
    NoLeaderError,
    OutcomeUnknownError,
)
from controlplane.ports.provenance import stamp
from controlplane.system import SystemClock, Ulids
from support.invariants import check_state


class Replica:
    def __init__(self, *, clock: Clock | None = None, ids: Ids | None = None, remembered: int = 1000) -> None:
        self.clock = clock or SystemClock()
        self.ids = ids or Ulids()
        self.remembered = remembered
        self.leaderless = False
        self.leaderless_s = 5.0
        """Since when, as far as it says."""
        self.hears: tuple[str, ...] = ("n2", "n3")
        """Of the other two voters that it says there are."""
        self.incarnation = 1
        """Of the log."""
        self.lose_outcomes = 0
        """So many of the next proposals commit, and their proposers do not learn of it."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.held = 0
        """Proposals at the gate."""
        self.waiting = 0
        """Callers inside `until`."""
        self.reset()

    def reset(self) -> None:
        """Start over with an empty state."""
        self._state = State(cluster_id="test")
        self.commands: list[Command] = []
        """Everything that was proposed, in order."""
        self._index = 0
        self._events: deque[Event] = deque(maxlen=self.remembered)
        self._forgotten = 0
        """The highest revision of which an event is no longer remembered."""
        self._changed = asyncio.Event()

    # -- StateReader ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state

    @property
    def caught_up(self) -> bool:
        return not self.leaderless

    @property
    def contact(self) -> Contact:
        others = ("n2", "n3")
        return Contact(
            node="n1",
            role="candidate" if self.leaderless else "leader",
            term=1,
            leader=None if self.leaderless else "n1",
            since_s=self.leaderless_s,
            age_s=self.leaderless_s + 0.5 if self.leaderless else 0.1,
            hears=self.hears,
            misses=tuple(node for node in others if node not in self.hears),
            majority=2,
        )

    @property
    def begun(self) -> bool:
        return self.incarnation <= self._state.incarnation

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        self._require_leader()
        return self._state

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(self._state):
                    await self._changed.wait()
        except TimeoutError:
            return None
        finally:
            self.waiting -= 1
        return self._state

    async def watch(self, after: int | None) -> AsyncIterator[Event]:
        last = self._state.revision if after is None else after
        while True:
            if last < self._forgotten:
                raise CompactedError(f"revision {last} is no longer remembered")
            changed = self._changed
            for event in self.remembered_events(last):
                last = event.revision
                yield event
            if changed is self._changed:
                await changed.wait()

    # -- Proposer ------------------------------------------------------------------------------------------------------

    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        self._require_leader()
        await self._pass_gate()
        outcome = self.apply_now(command, actor=actor, key=key)
        self.wake()
        if self.lose_outcomes:
            self.lose_outcomes -= 1
            raise OutcomeUnknownError("the leader changed after the proposal was sent")
        return outcome

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        self._require_leader()
        await self._pass_gate()
        outcomes = [self.apply_now(command, actor=actor) for command in commands]
        self.wake()
        return outcomes

    # -- Log -----------------------------------------------------------------------------------------------------------

    async def status(self) -> LogStatus:
        return LogStatus(
            node="n1",
            role="candidate" if self.leaderless else "leader",
            leader=None if self.leaderless else "n1",
            term=1,
            last_index=self._index,
            commit_index=self._index,
            applied_index=self._index,
            entry_index=self._index,
            has_quorum=not self.leaderless,
            fsync="never",
            state_hash=digest_text(self._state),
            state_hash_index=self._index,
            snapshot_index=0,
            log_bytes=0,
            peers=(),
        )

    # -- for tests -----------------------------------------------------------------------------------------------------

    async def accept(self, command: Command, *, actor: str = "test") -> Applied:
        outcome = await self.propose(command, actor=actor)
        assert isinstance(outcome, Applied), outcome
        return outcome

    def remembered_events(self, after: int) -> list[Event]:
        return [event for event in self._events if event.revision > after]

    def apply_now(self, command: Command, *, actor: str = "test", key: str | None = None) -> Outcome:
        """Apply without waking anyone; call `wake` afterwards."""
        self._index += 1
        envelope = seal(command, id=self.ids.new(), at=self.clock.now_ms(), actor=actor, key=key, origin=stamp())
        effect = effect_of(self._state, envelope, index=self._index, term=1)
        self._state = told(recorded(effect), [effect])
        self.commands.append(command)
        check_state(self._state)
        for event in effect.events:
            if self._events and len(self._events) == self.remembered:
                self._forgotten = self._events[0].revision
            self._events.append(event)
        return effect.outcome

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _pass_gate(self) -> None:
        self.held += 1
        try:
            await self.gate.wait()
        finally:
            self.held -= 1

    def _require_leader(self) -> None:
        if self.leaderless:
            raise NoLeaderError("no leader is known")
