"""The write-ahead journal: Raft's log and its term, vote and commit index, in a directory of checksummed segments.

What is added between two syncs becomes one batch, so a batch is the unit of group commit and of atomicity. Batches are
appended to the newest segment; at `segment_bytes` the next one begins. Compaction writes one small record and removes
whole segments below it, so nothing is ever written a second time but once: at every start the newest segment is
copied into a new one. What was read from it may be pages that a failed sync left in memory and never on the disk, and
nothing may be counted, voted or acknowledged on them before they are durable.

The whole log above the last compaction is also held in memory. Position 0 of the log is the base: the entry everything
at or below is compacted into (or PySyncObj's own first no-op).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import overload

from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import DiskFullError, disk_error
from controlplane.consensus.records import Base, CommitIndex, Entries, HardState, Record, Start, Truncate
from controlplane.consensus.replay import (
    FIRST_INDEX,
    NO_OP,
    LogEntry,
    LogState,
    Replay,
    Segment,
    segment_path,
)
from controlplane.consensus.segments import SECTOR_BYTES, Header, encode_batch

__all__ = ["FIRST_INDEX", "NO_OP", "SEGMENT_BYTES", "Journal", "LogEntry"]

_log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 << 20
RESERVE_BYTES = 4 << 20
"""With less free space than this, and what is about to be written, no segment is begun."""


class Journal:
    """An open journal. A DiskError means the node must stop: what is durable is then unknown until a restart."""

    def __init__(self, directory: Path, disk: Disk, segment_bytes: int, state: LogState) -> None:
        self._directory = directory
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._fd = -1
        self._segments: list[Segment] = []
        self._sequence = 0
        self._chain = 0
        self._entries = state.entries
        self._current_term = state.current_term
        self._voted_for = state.voted_for
        self._commit_index = state.commit_index
        self._oldest_sequence = state.oldest_sequence
        self._pending: list[Record] = []
        self._run: list[tuple[int, bytes]] = []
        self._commit_dirty = False
        self._failed = False
        self.in_background: Callable[[Callable[[], None]], object] = lambda work: work()
        """Runs the removal of files that nobody needs, which takes milliseconds each; here and now unless set."""

    # -- opening -------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """A new, empty journal in `directory`, which is made, or emptied of what an unfinished creation left."""
        return cls._begin(directory, disk, segment_bytes, LogState())

    @classmethod
    def convert(cls, path: Path, directory: Path, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """The journal of format 1 at `path` as a new one in `directory`. `path` stays as it is."""
        with _disk_errors(f"reading {path}"):
            state = Replay.of_format_1(path).state
        return cls._begin(directory, disk, segment_bytes, state)

    @classmethod
    def _begin(cls, directory: Path, disk: Disk, segment_bytes: int, state: LogState) -> Journal:
        with _disk_errors(f"making {directory}"):
            disk.make_directory(directory)
            for path in directory.iterdir():
                disk.remove(path)
        journal = cls(directory, disk, segment_bytes, state)
        entries = [(term, command) for command, _, term in state.entries[1:]]
        base_index, commit = journal.base_index, CommitIndex(state.commit_index)
        try:
            journal._start_segment([Entries(base_index + 1, entries), commit] if entries else [])
        except BaseException:
            journal._abandon()
            raise
        return journal

    @classmethod
    def open(cls, directory: Path, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """Recover the journal. Raises CorruptDataError when bytes that were durable are damaged or missing."""
        with _disk_errors(f"reading {directory}"):
            replay = Replay.of_directory(directory)
        journal = cls(directory, disk, segment_bytes, replay.state)
        oldest = replay.state.oldest_sequence
        journal._segments = [segment for segment in replay.segments if segment.header.first_sequence >= oldest]
        journal._sequence, journal._chain = replay.tail.next_sequence, replay.tail.chain
        newest = replay.tail.segment
        header = newest.header
        copied = Header(replay.newest + 1, header.follows, header.first_sequence, header.chain, header.salt)
        path = segment_path(directory, copied.number)
        journal._need_space(newest.size)
        with _disk_errors(f"writing {path}"):
            disk.replace(path, copied.encode(), replay.tail.body)
            journal._fd = disk.open_append(path)
        journal._segments[-1] = Segment(path, copied, newest.size, newest.max_index)
        kept = {segment.path for segment in journal._segments}
        journal._remove([path for path in directory.iterdir() if path not in kept])
        return journal

    # -- the log -------------------------------------------------------------------------------------------------------

    @property
    def base_index(self) -> int:
        return self._entries[0][1]

    @property
    def base_term(self) -> int:
        return self._entries[0][2]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        return self._entries[-1][2]

    @property
    def size_bytes(self) -> int:
        """Bytes in the segments."""
        return sum(segment.size for segment in self._segments)

    @property
    def dirty(self) -> bool:
        """Whether a sync has something that an acknowledgement may depend on."""
        return bool(self._pending or self._run)

    @property
    def current_term(self) -> int:
        return self._current_term

    @property
    def voted_for(self) -> str | None:
        return self._voted_for

    @property
    def commit_index(self) -> int:
        return self._commit_index

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, position: int) -> LogEntry: ...
    @overload
    def __getitem__(self, position: slice) -> list[LogEntry]: ...
    def __getitem__(self, position: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[position]

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`, None when it is below the base or above the end."""
        position = index - self.base_index
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    def entries_from(self, first_index: int, last_index: int, max_bytes: int) -> list[LogEntry]:
        """Entries `first_index`..`last_index`, at least one if there is any, then up to `max_bytes` of commands."""
        base = self.base_index
        result: list[LogEntry] = []
        size = 0
        for entry in self._entries[first_index - base : min(last_index - base + 1, first_index - base + 4096)]:
            size += len(entry[0])
            if result and size > max_bytes:
                break
            result.append(entry)
        return result

    def add(self, command: bytes, index: int, term: int) -> None:
        assert index == self.last_index + 1, (index, self.last_index)
        self._entries.append((command, index, term))
        self._run.append((term, command))

    def truncate_from(self, index: int) -> None:
        """Remove the entries at `index` and above. They must not be committed."""
        assert index > max(self.base_index, self._commit_index), (index, self.base_index, self._commit_index)
        self._close_run()
        del self._entries[index - self.base_index :]
        for segment in self._segments:
            segment.max_index = min(segment.max_index, index - 1)
        self._pending.append(Truncate(index))

    def set_term(self, term: int, voted_for: str | None) -> None:
        """Durable when this returns: no vote or message of the new term may leave before."""
        assert term >= self._current_term, (term, self._current_term)
        if (term, voted_for) == (self._current_term, self._voted_for):
            return
        self._current_term, self._voted_for = term, voted_for
        self._close_run()
        self._pending.append(HardState(term, voted_for))
        self.sync()

    def set_commit_index(self, index: int) -> None:
        """Remembered with the next sync. A hint for restarts; Raft itself learns the commit index anew."""
        if index > self._commit_index:
            self._commit_index = index
            self._commit_dirty = True

    # -- the files -----------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make everything added so far durable, as one batch."""
        self._close_run()
        if not self._pending:
            return
        self._note_commit()
        segment = self._segments[-1]
        batch, checksum = encode_batch(segment.header.salt, self._sequence, self._pending)
        self._pending.clear()
        self._failed = True
        try:
            self._disk.append(self._fd, batch)
            self._disk.sync(self._fd)
        except OSError as error:
            raise disk_error(f"writing {segment.path}", error) from error
        self._failed = False
        self._sequence += 1
        self._chain = checksum
        segment.size += len(batch)
        segment.max_index = self.last_index
        if segment.size >= self._segment_bytes:
            self._start_segment([])

    def compact_to(self, index: int) -> None:
        """Forget the entries below `index`, which becomes the base. A snapshot must cover it already."""
        assert self.base_index <= index <= self._commit_index, (self.base_index, index, self._commit_index)
        if index == self.base_index:
            return
        self.sync()
        position = index - self.base_index
        term = self._entries[position][2]
        self._entries[: position + 1] = [(NO_OP, index, term)]
        obsolete = 0
        while obsolete < len(self._segments) - 1 and self._segments[obsolete].max_index <= index:
            obsolete += 1
        self._oldest_sequence = self._segments[obsolete].header.first_sequence
        self._note_commit()
        self._pending.append(Base(index, term, self._oldest_sequence))
        self.sync()
        self._drop(obsolete)

    def reset(self, index: int, term: int) -> None:
        """Replace the whole log by a base at `index`: a snapshot at that index was installed."""
        self._pending.clear()
        self._run = []
        self._commit_dirty = False
        self._entries = [(NO_OP, index, term)]
        self._commit_index = index
        self._oldest_sequence = self._sequence
        obsolete = len(self._segments)
        self._start_segment([], follows=0)
        self._drop(obsolete)

    def close(self) -> None:
        """Flush what is pending, unless a write failed before, and close the file. Idempotent."""
        if self._fd < 0:
            return
        try:
            # Behind a half-written batch another one would make a torn tail look like corruption.
            if not self._failed:
                self.sync()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _close_run(self) -> None:
        if self._run:
            self._pending.append(Entries(self.last_index - len(self._run) + 1, self._run))
            self._run = []

    def _note_commit(self) -> None:
        if self._commit_dirty:
            self._pending.append(CommitIndex(self._commit_index))
            self._commit_dirty = False

    def _start_segment(self, records: list[Record], *, follows: int | None = None) -> None:
        """Begin a segment with the present state and `records`, durable, after everything added so far is."""
        last = self._segments[-1].header.number if self._segments else 0
        follows = last if follows is None else follows
        salt = int.from_bytes(os.urandom(4), "little")
        header = Header(last + 1, follows, self._sequence, self._chain if follows else 0, salt)
        entry = self._entries[0] if records else self._entries[-1]
        start = Start(
            base_index=self.base_index,
            base_term=self.base_term,
            last_index=entry[1],
            last_term=entry[2],
            current_term=self._current_term,
            voted_for=self._voted_for,
            commit_index=min(self._commit_index, entry[1]),
            oldest_sequence=self._oldest_sequence,
        )
        batch, checksum = encode_batch(salt, self._sequence, [start, *records])
        path = segment_path(self._directory, header.number)
        self._need_space(len(batch))
        self._failed = True
        with _disk_errors(f"writing {path}"):
            self._disk.replace(path, header.encode(), batch)
            self._abandon()
            self._fd = self._disk.open_append(path)
        self._failed = False
        self._segments.append(Segment(path, header, SECTOR_BYTES + len(batch), self.last_index))
        self._sequence += 1
        self._chain = checksum

    def _drop(self, count: int) -> None:
        """Remove the oldest `count` segments. Whether that happens, and when, changes nothing."""
        obsolete, self._segments = self._segments[:count], self._segments[count:]
        if obsolete:
            self._remove([segment.path for segment in obsolete])

    def _remove(self, paths: list[Path]) -> None:
        def work() -> None:
            try:
                for path in paths:
                    self._disk.remove(path)
            except OSError as error:
                _log.warning("%s: removing what is obsolete: %s; the next start tries again", self._directory, error)

        self.in_background(work)

    def _need_space(self, size: int) -> None:
        with _disk_errors(f"looking at {self._directory}"):
            free = self._disk.free_bytes(self._directory)
        needed = size + RESERVE_BYTES
        if free < needed:
            raise DiskFullError(f"{self._directory}: disk full: {free} bytes are free, {needed} are needed to go on")
        if free < needed + 2 * self._segment_bytes:
            _log.warning("%s: the disk is nearly full: %d bytes are free", self._directory, free)


@contextmanager
def _disk_errors(doing: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(doing, error) from error
