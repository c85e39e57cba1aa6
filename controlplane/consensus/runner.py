"""The life of one member inside an event loop: recovery, ticks, peers, snapshots, and stopping for good when
something failed.

Events (a message, a proposal, a deadline) ask for a tick, and at most one is scheduled, so everything that arrived in
one turn of the loop shares it. A failure (disk, corrupt data, a broken invariant) stops the member: `wait_failed`
raises it, calls in flight end as unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from controlplane.consensus import engine
from controlplane.consensus.calls import Calls
from controlplane.consensus.configuration import founding
from controlplane.consensus.connections import Revoked
from controlplane.consensus.core import RaftCore
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import ConsensusError, DivergedError, disk_error
from controlplane.consensus.journal import Journal
from controlplane.consensus.messages import Answer, Message, Propose, ReadIndex
from controlplane.consensus.pacing import AbandonedError, Pacer
from controlplane.consensus.roster import Roster
from controlplane.consensus.settings import RaftSettings
from controlplane.consensus.snapshot import SnapshotDirectory
from controlplane.consensus.tls import check_validity, load_contexts
from controlplane.consensus.transport import PeerTransport
from controlplane.ports import NoLeaderError, ReplicatedState

_log = logging.getLogger(__name__)

_FRAME_OVERHEAD_BYTES = 4 << 20
_DEPOSED_BEATS = 2
"""Heartbeats for which a deposed leader is still listened to."""

Outcome = tuple[tuple[int, int] | None, int]
"""(index and term, reason) of a proposal, as the engine reports it."""


class Runner:
    """Runs one core: disk below, peers beside it, ticks when something happened."""

    def __init__(
        self,
        settings: RaftSettings,
        state: ReplicatedState,
        *,
        disk: Disk | None = None,
        transport: Callable[..., PeerTransport] = PeerTransport,
        settle: Callable[[], None] = lambda: None,
        revoked: Revoked | None = None,
    ) -> None:
        """`transport` makes the connections to the peers. `settle` is called whenever the state was loaded or a
        snapshot of it taken. `revoked` says why a peer's certificate does not count."""
        self.settings = settings
        self._connect = transport
        self._state = state
        self._settle = settle
        self._revoked = revoked
        self._disk = disk or Disk(durable=settings.fsync == "always")
        self._directory: DataDirectory | None = None
        self._core: RaftCore | None = None
        self._transport: PeerTransport | None = None
        self._roster: Roster | None = None
        self._membership_version = 0
        self._calls = Calls()
        self._changes: set[asyncio.Task[None]] = set()
        self._proposed: set[asyncio.Future[Outcome]] = set()
        self._pending_bytes = 0
        self._tick_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._progress = asyncio.Event()
        self._news = asyncio.Event()
        self._leader_seen: str | None = None
        self._followed: str | None = None
        self._failure: ConsensusError | None = None
        self._failed = asyncio.Event()
        self._started_at_s = 0.0
        self._background: dict[asyncio.Task[None], Pacer] = {}

    # -- life ----------------------------------------------------------------------------------------------------------

    def reload_tls(self) -> None:
        """Use the certificate files as they are now for every connection from now on; those that there are stay.

        Raises OSError (ssl.SSLError included): then what was in use stays in use.
        """
        if self._transport is not None and self._transport.tls is not None and self.settings.tls is not None:
            self._transport.tls = load_contexts(self.settings.tls)

    async def start(self) -> None:
        """Recover from disk and join. Raises ConsensusError or OSError; the node has then not started."""
        settings = self.settings
        tls = load_contexts(settings.tls) if settings.tls is not None and settings.listen else None
        if tls is not None and settings.tls is not None:
            check_validity(settings.tls, datetime.now(UTC))
        if settings.fsync == "never":
            _log.warning(
                "%s: fsync is 'never': a power failure loses acknowledged writes, and may make this node vote twice",
                settings.node,
            )
        self._started_at_s = engine.monotonic_s()
        self._directory = DataDirectory(
            settings.data_dir,
            settings.node,
            settings.cluster_id,
            self._disk,
            founding=founding(settings.node, settings.address, settings.peers),
            join=settings.join,
            segment_bytes=settings.segment_bytes,
        )
        loop = asyncio.get_running_loop()
        self._directory.journal.in_background = lambda work: loop.run_in_executor(None, work)
        # How it began is what its directory says, whatever the settings say by now.
        settings = replace(settings, join=self._directory.founding is None)
        try:
            self._roster = Roster(
                node=settings.node,
                cluster_id=settings.cluster_id,
                contacts=settings.peers,
                address=settings.address,
                store=self._directory.store,
                stores=self._directory.stores,
                incarnation=self._directory.incarnation,
                remember=self._remember_store,
                belong=self._remember_incarnation,
                expelled=self._fail,
            )
            self._transport = self._connect(
                node=settings.node,
                cluster_id=settings.cluster_id,
                listen=settings.listen,
                peers={},
                tls=tls,
                max_frame_bytes=settings.max_entry_bytes + _FRAME_OVERHEAD_BYTES,
                events=self,
                roster=self._roster,
                revoked=self._revoked,
            )
            core = self._core = RaftCore(
                settings,
                journal=self._directory.journal,
                snapshots=self._directory.snapshots,
                state=self._state,
                outlet=self._transport,
                hooks=self,
                founding=self._directory.founding,
            )
            self._settle()
            self._meet_members(core)
            _check_listens(settings, self._transport.peers)
            self._compare_with_settings(core)
            if settings.listen:
                await self._transport.start()
            # Meeting the members writes, and the disk may have refused that.
            self._raise_failure()
            if core.is_alone:
                core.campaign()
        except BaseException:
            await self.stop()
            raise
        self.wake()

    def _meet_members(self, core: RaftCore) -> None:
        """Let connections follow the log's configuration."""
        assert self._roster is not None
        assert self._transport is not None
        self._membership_version = core.membership_version
        self._roster.update(core.configuration, core.configuration_index, core.committed_configuration)
        self._transport.set_peers(self._roster.addresses())

    def _compare_with_settings(self, core: RaftCore) -> None:
        """Say once when the settings name other members than the log: the log counts."""
        configuration, settings = core.configuration, self.settings
        if configuration is None or settings.join:
            return
        members = {member.node for member in configuration.members}
        if members != {settings.node, *settings.peers}:
            _log.warning(
                "%s: the members are %s by the log, which counts, and %s by the settings (raft.peers)",
                settings.node,
                ", ".join(sorted(members)),
                ", ".join(sorted({settings.node, *settings.peers})),
            )

    def _remember_store(self, peer: str, store: str) -> None:
        if self._directory is not None:
            self._note(self._directory.remember_store, peer, store)

    def _remember_incarnation(self, incarnation: int) -> None:
        if self._directory is not None:
            self._note(self._directory.remember_incarnation, incarnation)

    def _note(self, write: Callable[..., None], *values: object) -> None:
        try:
            write(*values)
        except OSError as error:
            self._fail(error)

    async def stop(self) -> None:
        """Leave at once; what was acknowledged is on disk. Idempotent."""
        self._core = None
        if self._timer is not None:
            self._timer.cancel()
        for change in self._changes:
            change.cancel()
        if self._transport is not None:
            await self._transport.stop()
            self._transport = None
        for pacer in self._background.values():
            pacer.abandon()
        if self._background:
            await asyncio.wait(list(self._background))
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

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: Exception) -> None:
        if self._failure is not None:
            return
        if isinstance(error, OSError):
            reason: ConsensusError = disk_error("writing", error)
        else:
            reason = error if isinstance(error, ConsensusError) else ConsensusError(f"{type(error).__name__}: {error}")
        if reason is not error:
            reason.__cause__ = error
        # A refusal says all in its text; anything else is a bug, and its traceback says where.
        said = isinstance(error, ConsensusError | OSError)
        _log.critical("%s: stops: %s", self.settings.node, reason, exc_info=None if said else error)
        if isinstance(reason, DivergedError):
            self._remember(reason)
        self._failure = reason
        self._core = None
        self._failed.set()
        self._end_waiting()

    def _remember(self, reason: DivergedError) -> None:
        """A restart must not bring a wrong state back into the cluster."""
        assert self._directory is not None
        try:
            self._directory.mark_diverged(str(reason))
        except OSError as error:
            _log.error("%s: the divergence cannot be written down: %s", self.settings.node, error)

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
        if core.membership_version != self._membership_version:
            self._meet_members(core)
        if core.leader != self._leader_seen:
            if core.leader is not None and self._followed is not None and core.leader != self._followed:
                # A deposed leader answers what it was asked, unless it is frozen.
                asyncio.get_running_loop().call_later(
                    _DEPOSED_BEATS * self.settings.heartbeat_s,
                    partial(self._calls.peer_lost, self._followed, up_to=self._calls.newest),
                )
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

    # -- long work, in threads -----------------------------------------------------------------------------------------

    def snapshot_due(self) -> None:
        self._begin("snapshot", self._take_snapshot)

    def install_due(self) -> None:
        self._begin("install", self._install_snapshot)

    def _begin(self, what: str, work: Callable[[RaftCore, DataDirectory, Pacer], Coroutine[None, None, None]]) -> None:
        pacer = Pacer()
        task = asyncio.create_task(self._guard(work, pacer), name=f"raft {self.settings.node} {what}")
        self._background[task] = pacer
        task.add_done_callback(self._background.pop)

    async def _guard(
        self, work: Callable[[RaftCore, DataDirectory, Pacer], Coroutine[None, None, None]], pacer: Pacer
    ) -> None:
        core, directory = self._core, self._directory
        if core is None or directory is None:
            return
        try:
            await work(core, directory, pacer)
        except AbandonedError:
            return
        except Exception as error:
            self._fail(error)

    async def _take_snapshot(self, core: RaftCore, directory: DataDirectory, pacer: Pacer) -> None:
        started = engine.monotonic_s()
        manifest = await asyncio.to_thread(directory.snapshots.save, core.capture(), pacer)
        _log.info(
            "%s: the snapshot at %d (%d chunks, %d bytes) took %.1f s",
            self.settings.node,
            manifest.index,
            len(manifest.chunks),
            manifest.size,
            engine.monotonic_s() - started,
        )
        if self._core is core:
            core.snapshot_saved(manifest)
            self._settle()

    async def _install_snapshot(self, core: RaftCore, directory: DataDirectory, pacer: Pacer) -> None:
        prepared = await asyncio.to_thread(core.prepare_install, pacer)
        if self._core is core:
            core.finish_install(prepared)
            self._settle()
            self.wake()

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

    def _reserve(self, size: int) -> bool:
        if self._pending_bytes + size > max(self.settings.max_pending_bytes, self.settings.max_entry_bytes):
            return False
        self._pending_bytes += size
        return True

    def _journal(self) -> Journal:
        assert self._directory is not None
        return self._directory.journal

    def _snapshots(self) -> SnapshotDirectory:
        assert self._directory is not None
        return self._directory.snapshots


def _check_listens(settings: RaftSettings, peers: Mapping[str, str]) -> None:
    if peers and not settings.listen:
        raise ConsensusError(f"listen: is needed, the log has other members: {', '.join(sorted(peers))}")
