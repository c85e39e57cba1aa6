"""Scheduled backups: the node that leads saves a snapshot when the newest one in the store is old enough.

What is due is read from the store, not remembered, so a change of the leader or a restart neither skips a backup nor
takes one too many. Every node looks at the store, so that each can say whether backups are overdue; only the leader
writes. The work runs in a thread; a node that is told to stop meanwhile leaves no snapshot, and what it uploaded is
used by the next save.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Sequence

import structlog

from controlplane.backup.repository import Entry, Repository, Saved
from controlplane.manifest import ChunkRef
from controlplane.ports import (
    BackupStatus,
    Clock,
    HeldSnapshot,
    LogError,
    SnapshotGoneError,
    SnapshotsBusyError,
    SnapshotSource,
    SnapshotStore,
    StoreError,
)

LOOK_S = 60.0
TAKE_TIMEOUT_S = 10.0
OVERDUE_PERIODS = 2

_log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """The node is told to stop."""


class BackupSchedule:
    """`open_store` gives the store, `location` says where it is. `leading` tells whether this node leads."""

    def __init__(
        self,
        *,
        cluster_id: str,
        source: SnapshotSource,
        open_store: Callable[[], SnapshotStore],
        location: str,
        leading: Callable[[], bool],
        clock: Clock,
        every_s: float,
        keep: int,
    ) -> None:
        self._cluster_id = cluster_id
        self._source = source
        self._open_store = open_store
        self._location = location
        self._leading = leading
        self._clock = clock
        self._every_s = every_s
        self._keep = keep
        self._newest: Entry | None = None
        self._began_s = clock.monotonic_s()
        self._error = ""
        self._error_at_ms: int | None = None
        self._stopped = False

    async def run(self) -> None:
        """Until cancelled. A failure is logged and shown, and tried again."""
        period_s = min(self._every_s / 4, LOOK_S)
        try:
            while True:
                await self.look()
                await asyncio.sleep(period_s)
        finally:
            self._stopped = True

    async def look(self) -> None:
        """Read what is in the store, and save if that is due and this node leads."""
        try:
            store = self._open_store()
            self._newest = await asyncio.to_thread(self._find_newest, store)
            if self._leading() and self._due():
                saved = await self._save(store)
                self._newest = saved.entry
        except (StoreError, LogError, SnapshotsBusyError, SnapshotGoneError, StoppedError) as error:
            self._failed(str(error))
        except Exception as error:
            # The front's other parts must not end with this one.
            _log.exception("backup.broke")
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._error, self._error_at_ms = "", None

    def status(self) -> BackupStatus:
        newest = self._newest
        return BackupStatus(
            location=self._location,
            every_s=self._every_s,
            last_saved_at_ms=None if newest is None else round(_taken_s(newest) * 1000),
            last_index=None if newest is None else newest.index,
            error=self._error,
            error_at_ms=self._error_at_ms,
            overdue=self._age_s() > OVERDUE_PERIODS * self._every_s,
        )

    def _failed(self, error: str) -> None:
        self._error, self._error_at_ms = error, self._clock.now_ms()
        _log.error("backup.failed", location=self._location, error=error)

    def _find_newest(self, store: SnapshotStore) -> Entry | None:
        entries = Repository(store).entries(self._cluster_id)
        return entries[-1] if entries else None

    def _due(self) -> bool:
        return self._newest is None or self._age_s() >= self._every_s

    def _age_s(self) -> float:
        """Of the newest snapshot, by the wall clock; without one, since this node began to look."""
        if self._newest is None:
            return self._clock.monotonic_s() - self._began_s
        # One from the future says only that a clock was wrong: it does not put off the next one for ever.
        return abs(self._clock.now_ms() / 1000 - _taken_s(self._newest))

    async def _save(self, store: SnapshotStore) -> Saved:
        began_s = self._clock.monotonic_s()
        held = await self._source.take(timeout_s=TAKE_TIMEOUT_S)
        try:
            saved = await asyncio.to_thread(self._upload, store, held, asyncio.get_running_loop())
        finally:
            await self._source.release(held.id)
        _log.info(
            "backup.saved",
            snapshot=saved.entry.name,
            location=self._location,
            size=saved.size,
            uploaded_bytes=saved.uploaded_bytes,
            duration_s=round(self._clock.monotonic_s() - began_s, 2),
        )
        return saved

    def _upload(self, store: SnapshotStore, held: HeldSnapshot, loop: asyncio.AbstractEventLoop) -> Saved:
        """In a thread: chunks are asked for in the event loop, a batch at a time."""

        def fetch(refs: Sequence[ChunkRef]) -> Sequence[bytes]:
            if self._stopped:
                raise StoppedError("the node stops")
            names = [ref.name for ref in refs]
            return asyncio.run_coroutine_threadsafe(self._source.chunks(held.id, names), loop).result()

        repository = Repository(store)
        saved = repository.save(held.encoded, fetch, now_s=self._clock.now_ms() / 1000)
        try:
            pruned = repository.prune(keep=self._keep, cluster_id=self._cluster_id)
            if pruned.snapshots:
                _log.info("backup.pruned", snapshots=pruned.snapshots, freed_bytes=pruned.size)
        except StoreError as error:
            # What was saved counts; old snapshots are no danger.
            _log.warning("backup.not_pruned", location=self._location, error=str(error))
        return saved


def _taken_s(entry: Entry) -> float:
    return datetime.datetime.fromisoformat(entry.taken_at).timestamp()
