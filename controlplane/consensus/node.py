"""The Log port of one member, in its own event loop.

`append` and `read_index` work on any member: a follower forwards to the leader under its own deadline. What was
certainly not appended is tried again until the deadline and then ends as NoLeaderError; once a proposal may be in a
log, everything but its answer ends as OutcomeUnknownError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from controlplane.consensus import engine
from controlplane.consensus.calls import PeerLostError
from controlplane.consensus.core import RaftCore
from controlplane.consensus.journal import FIRST_INDEX
from controlplane.consensus.messages import Answer, Message, Propose, ReadIndex
from controlplane.consensus.runner import Outcome, Runner
from controlplane.consensus.status import running_status, starting_status
from controlplane.ports import (
    Committed,
    EntryTooLargeError,
    LogError,
    LogStatus,
    Member,
    NoLeaderError,
    OutcomeUnknownError,
    Position,
    RefusedError,
    SnapshotInstalled,
)

_FOLLOW_BATCH = 512
_FOLLOW_BATCH_BYTES = 1 << 20
_RETRY_S = 0.05
_HANDOVER_S = 1.0
"""About an election timeout: waiting longer than that for a handover saves nobody anything."""

_log = logging.getLogger(__name__)


class RaftNode(Runner):
    """A member; implements `ports.Log` and `ports.LogAdmin`. Its state must be empty when `start` is called."""

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        """See `ports.Log.append`. Also NoLeaderError when too much is pending already."""
        limit = self.settings.max_entry_bytes
        if len(entry) > limit:
            raise EntryTooLargeError(f"an entry of {len(entry)} bytes; at most {limit} are accepted")
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            core = self._running()
            leader = core.leader
            if leader == self.settings.node:
                position = await self._append_here(core, entry, deadline)
            elif leader is not None:
                position = await self._append_through(leader, entry, deadline)
            else:
                position = None
            if position is not None:
                return position
            await self._leader_news(leader, deadline)

    async def _append_here(self, core: RaftCore, entry: bytes, deadline: float) -> Position | None:
        """The position, or None when the entry is certainly not in the log."""
        size = len(entry)
        if not self._reserve(size):
            raise NoLeaderError("too many proposals are pending; nothing was appended")
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def resolved(position: tuple[int, int] | None, reason: int) -> None:
            self._pending_bytes -= size
            if not future.done():
                future.set_result((position, reason))

        self._proposed.add(future)
        core.propose(entry, resolved)
        try:
            async with asyncio.timeout_at(deadline):
                position, reason = await future
        except TimeoutError:
            raise OutcomeUnknownError("the entry was proposed, but not committed in time") from None
        finally:
            self._proposed.discard(future)
        if position is not None:
            return Position(*position)
        if reason == engine.UNKNOWN_OUTCOME:
            raise OutcomeUnknownError("this node stopped, or a snapshot replaced the log, before the entry was seen")
        return None

    async def _append_through(self, leader: str, entry: bytes, deadline: float) -> Position | None:
        """Forward to `leader`. None when it was certainly not appended."""
        try:
            answer = await self._call(leader, lambda request: Propose(request, entry), deadline)
        except TimeoutError:
            raise OutcomeUnknownError(f"the leader {leader} did not answer in time") from None
        except PeerLostError as error:
            raise OutcomeUnknownError(str(error)) from None
        if answer is None or (answer.refused and not answer.unknown):
            return None
        if answer.unknown:
            raise OutcomeUnknownError(f"the leader {leader} lost track of the entry")
        return Position(answer.index, answer.term)

    async def _call(self, leader: str, make: Callable[[int], Message], deadline: float) -> Answer | None:
        """The leader's answer; None when the request was certainly not sent."""
        transport = self._transport
        request, future = self._calls.begin(leader)
        try:
            if transport is None or not transport.send(leader, make(request)):
                return None
            async with asyncio.timeout_at(deadline):
                return await future
        finally:
            self._calls.end(request)

    async def read_index(self, *, timeout_s: float) -> int:
        """See `ports.Log.read_index`. The index is always that of a delivered entry (or 0), never of a no-op."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            core = self._running()
            leader = core.leader
            try:
                if leader == self.settings.node:
                    index = await self._read_here(core, deadline)
                elif leader is not None:
                    answer = await self._call(leader, ReadIndex, deadline)
                    index = None if answer is None or answer.refused else answer.index
                else:
                    index = None
            except TimeoutError:
                raise NoLeaderError("no quorum confirmed the leader in time") from None
            except PeerLostError:
                index = None
            if index is not None:
                return index
            await self._leader_news(leader, deadline)

    async def _read_here(self, core: RaftCore, deadline: float) -> int | None:
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        core.read(lambda index: None if future.done() else future.set_result(index))
        async with asyncio.timeout_at(deadline):
            return await future

    async def _leader_news(self, seen: str | None, deadline: float) -> None:
        """Wait until another attempt may go better. Raises NoLeaderError at the deadline: nothing was appended so
        far.
        """
        loop = asyncio.get_running_loop()
        core = self._running()
        wait_until = min(deadline, loop.time() + _RETRY_S)
        if core.leader == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wait_until):
                    await self._news.wait()
        if loop.time() >= deadline:
            raise NoLeaderError("no leader in time; nothing was appended")

    async def add_member(self, member: Member, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.add_member`."""
        raise RefusedError("this version cannot change the membership")

    async def promote_member(self, node: str, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.promote_member`."""
        raise RefusedError("this version cannot change the membership")

    async def remove_member(self, node: str, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.remove_member`."""
        raise RefusedError("this version cannot change the membership")

    async def transfer_leadership(self, target: str | None, *, timeout_s: float) -> str:
        """See `ports.LogAdmin.transfer_leadership`. What is proposed meanwhile waits and goes to the new leader."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            core = self._running()
            leader = core.leader
            if leader is None:
                await self._leader_news(leader, deadline)
            elif leader == target:
                return leader
            elif leader == self.settings.node:
                refusal = await self._transfer_here(core, target, deadline)
                if refusal:
                    raise RefusedError(refusal)
                return await self._successor_of(leader, deadline)
            else:
                raise RefusedError(f"the leader is {leader}; ask it")

    async def _transfer_here(self, core: RaftCore, target: str | None, deadline: float) -> str:
        """Why this node leads on or did not lead; empty once another one may."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        core.transfer(target, lambda refusal: None if future.done() else future.set_result(refusal))
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        except TimeoutError:
            raise OutcomeUnknownError("the handover had begun, and was not over in time") from None

    async def _successor_of(self, leader: str, deadline: float) -> str:
        """The next node that leads, once this node hears it."""
        while True:
            now_leads = self._running().leader
            if now_leads not in (None, leader):
                assert now_leads is not None
                return now_leads
            try:
                await self._leader_news(now_leads, deadline)
            except NoLeaderError:
                raise OutcomeUnknownError(f"{leader} gave up the leadership, and nobody leads yet") from None

    async def hand_over(self) -> None:
        """Before a planned stop: if this node leads, let another voter lead. Best effort, at most `_HANDOVER_S`."""
        if self._core is None or not self._core.is_leader:
            return
        try:
            leader = await self.transfer_leadership(None, timeout_s=_HANDOVER_S)
        except LogError as error:
            _log.info("%s: stops while it leads: %s", self.settings.node, error)
        else:
            _log.info("%s: %s leads now; this node can stop", self.settings.node, leader)

    async def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        """See `ports.Log.follow`. Ends with NoLeaderError when the node stops."""
        position = after
        while True:
            batch = await self.next_entries(position)
            if isinstance(batch, SnapshotInstalled):
                position = batch.index
                yield batch
                continue
            for entry in batch:
                position = entry.index
                yield entry

    async def next_entries(self, after: int) -> list[Committed] | SnapshotInstalled:
        """The next committed entries above `after`, at least one, waiting for it; or the state that replaces them.

        Raises NoLeaderError when the node stops.
        """
        while True:
            core, journal = self._running(), self._journal()
            if after >= core.entry_index:
                await self._progress.wait()
                continue
            if after < journal.base_index and journal.base_index > FIRST_INDEX:
                index, term, _, data = core.dump()
                return SnapshotInstalled(index, term, data)
            first = max(after, journal.base_index) + 1
            last = min(core.applied_index, first + _FOLLOW_BATCH - 1)
            entries = journal.entries_from(first, last, _FOLLOW_BATCH_BYTES)
            batch = [Committed(index, term, data[1:]) for data, index, term in entries if data[0] == engine.REGULAR]
            if batch:
                return batch
            after = entries[-1][1]

    async def status(self) -> LogStatus:
        """See `ports.Log.status`."""
        if self._core is None or self._transport is None:
            return starting_status(self.settings)
        uptime_s = engine.monotonic_s() - self._started_at_s
        return running_status(
            self.settings, self._core, self._journal(), self._transport, self._state, self._disk, uptime_s
        )
