"""One member of the log inside one event loop: core, disk, peers and the Log port.

Events (a message, a proposal, a deadline) ask for a tick, and at most one is scheduled, so everything that arrived in
one turn of the loop shares it. `append` and `read_index` work on any member: a follower forwards to the leader under
its own deadline. A failure (disk, corrupt data, a broken invariant) stops the node for good: `wait_failed` raises it,
calls in flight end as unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from controlplane.consensus import engine
from controlplane.consensus.calls import Calls, PeerLostError
from controlplane.consensus.core import RaftCore
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import ConsensusError
from controlplane.consensus.journal import FIRST_INDEX, Journal
from controlplane.consensus.messages import Answer, Message, Propose, ReadIndex
from controlplane.consensus.settings import RaftSettings
from controlplane.consensus.tls import load_contexts
from controlplane.consensus.transport import PeerTransport
from controlplane.ports import (
    Committed,
    EntryTooLargeError,
    LogStatus,
    NoLeaderError,
    OutcomeUnknownError,
    PeerStatus,
    Position,
    ReplicatedState,
    SnapshotInstalled,
)

_log = logging.getLogger(__name__)

_FRAME_OVERHEAD_BYTES = 4 << 20
_FOLLOW_BATCH = 512
_FOLLOW_BATCH_BYTES = 1 << 20
_RETRY_S = 0.05


_Outcome = tuple[tuple[int, int] | None, int]


class RaftNode:
    """A member of the log; implements `ports.Log`. `state` must be empty when `start` is called."""

    def __init__(self, settings: RaftSettings, state: ReplicatedState, *, disk: Disk | None = None) -> None:
        self.settings = settings
        self._state = state
        self._disk = disk or Disk(durable=settings.fsync == "always")
        self._directory: DataDirectory | None = None
        self._core: RaftCore | None = None
        self._transport: PeerTransport | None = None
        self._calls = Calls()
        self._proposed: set[asyncio.Future[_Outcome]] = set()
        self._pending_bytes = 0
        self._tick_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()
        self._news = asyncio.Event()
        self._leader_seen: str | None = None
        self._followed: str | None = None
        self._failure: ConsensusError | None = None
        self._failed = asyncio.Event()
        self._snapshot_task: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover from disk and join. Raises ConsensusError or OSError; the node has then not started."""
        settings = self.settings
        tls = load_contexts(settings.tls) if settings.tls is not None and settings.peers else None
        self._directory = DataDirectory(settings.data_dir, settings.node, settings.cluster_id, self._disk)
        try:
            self._transport = PeerTransport(
                node=settings.node,
                cluster_id=settings.cluster_id,
                listen=settings.listen,
                peers=settings.peers,
                tls=tls,
                max_frame_bytes=settings.max_entry_bytes + _FRAME_OVERHEAD_BYTES,
                events=self,
            )
            self._core = RaftCore(
                settings,
                journal=self._directory.journal,
                snapshots=self._directory.snapshots,
                state=self._state,
                outlet=self._transport,
                hooks=self,
            )
            if settings.peers:
                await self._transport.start()
            else:
                self._core.campaign()
        except BaseException:
            await self.stop()
            raise
        self.wake()

    async def stop(self) -> None:
        """Leave at once; what was acknowledged is on disk. Idempotent."""
        self._core = None
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            await self._transport.stop()
            self._transport = None
        if self._snapshot_task is not None:
            await asyncio.wait([self._snapshot_task])
        if self._directory is not None:
            directory, self._directory = self._directory, None
            try:
                directory.close()
            except OSError as error:
                _log.error("%s: closing the journal: %s", self.settings.node, error)
        self._end_waiting()

    async def wait_failed(self) -> None:
        """Returns never; raises the ConsensusError that stopped the node."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    def _fail(self, error: Exception) -> None:
        if self._failure is not None:
            return
        reason = error if isinstance(error, ConsensusError) else ConsensusError(f"{type(error).__name__}: {error}")
        if reason is not error:
            reason.__cause__ = error
        _log.critical("%s: stops: %s", self.settings.node, reason, exc_info=error)
        self._failure = reason
        self._core = None
        self._failed.set()
        self._end_waiting()

    def _end_waiting(self) -> None:
        """The core is gone: whoever waits for an outcome, entries or a leader learns it now."""
        self._calls.fail_all()
        for future in self._proposed:
            if not future.done():
                future.set_result((None, engine.UNKNOWN_OUTCOME))
        self._progress.set()
        self._progress = asyncio.Event()
        self._news.set()
        self._news = asyncio.Event()

    def _running(self) -> RaftCore:
        if self._core is None:
            why = f"stopped: {self._failure}" if self._failure is not None else "not running"
            raise NoLeaderError(f"node {self.settings.node} is {why}")
        return self._core

    # -- ticks ---------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Run a tick in the next turn of the loop."""
        if not self._tick_scheduled:
            self._tick_scheduled = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_scheduled = False
        core = self._core
        if core is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            core.tick()
        except Exception as error:
            self._fail(error)
            return
        if core.leader != self._leader_seen:
            if core.leader is not None and self._followed is not None and core.leader != self._followed:
                # A deposed leader may answer late or, when it is frozen, never.
                self._calls.peer_lost(self._followed)
            self._leader_seen = core.leader
            self._followed = core.leader or self._followed
            self._news.set()
            self._news = asyncio.Event()
        due = core.next_deadline_s()
        delay = max(0.0, due - engine.monotonic_s()) + 0.001
        self._timer = asyncio.get_running_loop().call_later(delay, self._deadline, due)

    def _deadline(self, due_s: float) -> None:
        if self._core is not None and engine.monotonic_s() - due_s > self.settings.heartbeat_s:
            self._core.excuse_stall()
        self.wake()

    def progressed(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def snapshot_due(self) -> None:
        self._snapshot_task = asyncio.create_task(self._take_snapshot(), name=f"raft {self.settings.node} snapshot")

    async def _take_snapshot(self) -> None:
        core, directory = self._core, self._directory
        if core is None or directory is None:
            return
        try:
            index, term, entry_index, data = core.dump()
            meta = await asyncio.to_thread(directory.snapshots.describe, index, term, entry_index, data)
            await asyncio.to_thread(directory.snapshots.save, meta, data)
            if self._core is core:
                core.snapshot_saved(meta)
        except Exception as error:
            self._fail(error)

    # -- peers ---------------------------------------------------------------------------------------------------------

    def on_message(self, peer: str, message: Message) -> None:
        core = self._core
        if core is None:
            return
        try:
            match message:
                case Answer():
                    self._calls.answer(peer, message)
                case Propose():
                    self._propose_for(core, peer, message)
                case ReadIndex():
                    self._read_for(core, peer, message)
                case _:
                    core.receive(peer, message)
        except Exception as error:
            self._fail(error)

    def on_connected(self, peer: str) -> None:
        if self._core is not None:
            self._core.connected(peer)

    def on_disconnected(self, peer: str) -> None:
        if self._core is not None:
            self._core.disconnected(peer)
        self._calls.peer_lost(peer)

    def on_writable(self, peer: str) -> None:
        self.wake()

    def _answer(self, peer: str, message: Answer) -> None:
        if self._transport is not None:
            self._transport.send(peer, message)

    def _propose_for(self, core: RaftCore, peer: str, message: Propose) -> None:
        size = len(message.entry)
        if size > self.settings.max_entry_bytes or not self._reserve(size):
            self._answer(peer, Answer(message.request, 0, 0, refused=True))
            return

        def resolved(position: tuple[int, int] | None, reason: int) -> None:
            self._pending_bytes -= size
            index, term = position or (0, 0)
            unknown = position is None and reason == engine.UNKNOWN_OUTCOME
            self._answer(peer, Answer(message.request, index, term, refused=position is None, unknown=unknown))

        core.propose(message.entry, resolved)

    def _read_for(self, core: RaftCore, peer: str, message: ReadIndex) -> None:
        core.read(lambda index: self._answer(peer, Answer(message.request, index or 0, 0, refused=index is None)))

    # -- the Log port --------------------------------------------------------------------------------------------------

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
        future: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()

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
            try:
                async with asyncio.timeout_at(wait_until):
                    await self._news.wait()
            except TimeoutError:
                pass
        if loop.time() >= deadline:
            raise NoLeaderError("no leader in time; nothing was appended")

    def _reserve(self, size: int) -> bool:
        if self._pending_bytes + size > max(self.settings.max_pending_bytes, self.settings.max_entry_bytes):
            return False
        self._pending_bytes += size
        return True

    async def follow(self, after: int) -> AsyncIterator[Committed | SnapshotInstalled]:
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

    def _journal(self) -> Journal:
        assert self._directory is not None
        return self._directory.journal

    async def status(self) -> LogStatus:
        core, transport = self._core, self._transport
        settings = self.settings
        if core is None or transport is None:
            return LogStatus(
                node=settings.node,
                role="starting",
                leader=None,
                term=0,
                last_index=0,
                commit_index=0,
                applied_index=0,
                has_quorum=False,
                fsync=settings.fsync,
                state_hash="",
                state_hash_index=0,
                snapshot_index=0,
                log_bytes=0,
                peers=(),
            )
        journal = self._journal()
        return LogStatus(
            node=settings.node,
            role=core.role,
            leader=core.leader,
            term=core.term,
            last_index=journal.last_index,
            commit_index=core.commit_index,
            applied_index=core.applied_index,
            has_quorum=core.has_quorum,
            fsync=settings.fsync,
            state_hash=self._state.digest(),
            state_hash_index=core.applied_index,
            snapshot_index=core.snapshot_index,
            log_bytes=journal.size_bytes,
            peers=tuple(self._peer_status(core, transport, peer) for peer in sorted(settings.peers)),
        )

    def _peer_status(self, core: RaftCore, transport: PeerTransport, peer: str) -> PeerStatus:
        heard_s = core.last_heard_s(peer)
        return PeerStatus(
            node=peer,
            address=self.settings.peers[peer],
            connected=transport.is_connected(peer),
            match_index=core.match_index(peer),
            last_contact_ms=None if heard_s is None else round(heard_s * 1000),
        )
