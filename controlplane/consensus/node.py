"""The Log port of one member, in its own event loop.

`append` and `read_index` work on any member: a follower forwards to the leader under its own deadline. What was
certainly not appended is tried again until the deadline and then ends as NoLeaderError; once a proposal may be in a
log, everything but its answer ends as OutcomeUnknownError. `confirm_leadership` is about this very member and never
leaves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from controlplane.consensus import engine
from controlplane.consensus.calls import PeerLostError
from controlplane.consensus.caretaker import Caretaker
from controlplane.consensus.core import RaftCore
from controlplane.consensus.journal import FIRST_INDEX
from controlplane.consensus.messages import Propose, ReadIndex
from controlplane.consensus.runner import Outcome
from controlplane.consensus.status import running_status, starting_status
from controlplane.consensus.stored import SnapshotReader
from controlplane.consensus.streaming import Chunks, installed
from controlplane.ports import (
    Committed,
    EntryTooLargeError,
    Led,
    LogStatus,
    NoLeaderError,
    OutcomeUnknownError,
    Position,
    Reign,
    SnapshotInstalled,
)

_FOLLOW_BATCH = 512
_FOLLOW_BATCH_BYTES = 1 << 20


class RaftNode(Caretaker):
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

    async def confirm_leadership(self, *, timeout_s: float) -> Led:
        """See `ports.Log.confirm_leadership`. The index is always that of a delivered entry (or 0)."""
        core = self._running()
        future: asyncio.Future[tuple[int, int] | None] = asyncio.get_running_loop().create_future()
        core.confirm(lambda led: None if future.done() else future.set_result(led))
        try:
            async with asyncio.timeout(timeout_s):
                led = await future
        except TimeoutError:
            raise NoLeaderError(f"no quorum confirmed in time that {self.settings.node} leads") from None
        if led is None:
            raise NoLeaderError(f"{self.settings.node} does not lead")
        index, term = led
        return Led(index, Reign(term, core.incarnation))

    async def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        """See `ports.Log.follow`. Ends with NoLeaderError when the node stops."""
        position = after
        while True:
            batch = await self.next_entries(position)
            if isinstance(batch, SnapshotReader):
                item, chunks = self.installed(batch)
                yield item
                position = item.index if chunks.complete else position
                continue
            for entry in batch:
                position = entry.index
                yield entry

    async def next_entries(self, after: int) -> list[Committed] | SnapshotReader:
        """The next committed entries above `after`, at least one, waiting for it; or the snapshot that replaces them.

        Raises NoLeaderError when the node stops.
        """
        while True:
            core, journal = self._running(), self._journal()
            if after >= core.entry_index:
                await self._progress.wait()
                continue
            if after < journal.base_index and journal.base_index > FIRST_INDEX:
                reader = self._snapshots().reader()
                if reader is None:
                    raise NoLeaderError("the log begins after what is asked for, and there is no snapshot")
                if after < reader.manifest.entry_index:
                    return reader
                # What follows up to the snapshot is the engine's own.
                after = reader.manifest.index
                reader.close()
            first = max(after, journal.base_index) + 1
            last = min(core.applied_index, first + _FOLLOW_BATCH - 1)
            entries = journal.entries_from(first, last, _FOLLOW_BATCH_BYTES)
            batch = [Committed(index, term, data[1:]) for data, index, term in entries if data[0] == engine.REGULAR]
            if batch:
                return batch
            after = entries[-1][1]

    def installed(self, reader: SnapshotReader) -> tuple[SnapshotInstalled, Chunks]:
        """The item of the log that the snapshot of `reader` is, and its chunks. Not being able to read it stops the
        node.
        """
        return installed(reader, self._fail)

    async def status(self) -> LogStatus:
        """See `ports.Log.status`."""
        if self._core is None or self._transport is None:
            return starting_status(self.settings)
        uptime_s = engine.monotonic_s() - self._started_at_s
        return running_status(
            self.settings,
            self._core,
            self._journal(),
            self._transport,
            self._state,
            self._disk,
            uptime_s,
            self._removed_dead,
        )
