"""Reading the journal back: which segments count, and the log, term and vote that their batches add up to.

The newest segment counts, then the one it follows, and so on while they are there; every other file is a leftover of
an interrupted removal. What compaction took away is recorded in the log itself, so anything else that is missing is
noticed. Raises CorruptDataError, which names the file, whenever the pieces do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.framing import DECODE_ERRORS
from controlplane.consensus.records import (
    Base,
    Checkpoint,
    CommitIndex,
    Entries,
    HardState,
    Record,
    Start,
    Truncate,
    decoder,
)
from controlplane.consensus.segments import SECTOR_BYTES, Batch, Header, corrupt, read_batches, read_header

NO_OP = b"\x01"
FIRST_INDEX = 1

LogEntry = tuple[bytes, int, int]
"""(command, index, term), the shape PySyncObj reads."""

_SUFFIX = ".wal"
_UNKNOWN_TERM = -1


@dataclass(slots=True)
class Segment:
    """One file of the journal. No entry above `max_index` that still counts is in it."""

    path: Path
    header: Header
    size: int
    max_index: int


@dataclass(slots=True)
class Tail:
    """The newest segment as it was read: what of it counts."""

    segment: Segment
    body: bytes
    next_sequence: int
    chain: int


@dataclass(slots=True)
class LogState:
    """The log and the hard state. Position 0 of `entries` is the base."""

    entries: list[LogEntry] = field(default_factory=lambda: [(NO_OP, FIRST_INDEX, 0)])
    current_term: int = 0
    voted_for: str | None = None
    commit_index: int = FIRST_INDEX
    oldest_sequence: int = 0

    @property
    def last(self) -> tuple[int, int]:
        return self.entries[-1][1], self.entries[-1][2]


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:016d}{_SUFFIX}"


def segment_numbers(directory: Path) -> dict[int, Path]:
    """The segments' files by number, stale ones included."""
    return {int(p.stem): p for p in directory.glob("*" + _SUFFIX) if p.stem.isascii() and p.stem.isdigit()}


def _read_file(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


class Replay:
    """The journal read; `state`, `segments` (oldest first), `newest` (a number) and `tail` are the result.

    `files` are the segments by number, `read(path, limit)` gives the first `limit` bytes, all for -1.
    """

    def __init__(self, files: Mapping[int, Path], read: Callable[[Path, int], bytes] = _read_file) -> None:
        self.state = LogState()
        self.segments: list[Segment] = []
        self._read = read
        self._base = (FIRST_INDEX, 0)
        self.newest = max(files)
        self.tail = self._read_all(self._chain(files))
        self._finish()

    @classmethod
    def of_directory(cls, directory: Path) -> Replay:
        files = segment_numbers(directory)
        if not files:
            raise CorruptDataError(f"{directory}: the journal has no segment")
        return cls(files)

    @classmethod
    def of_format_1(cls, path: Path) -> Replay:
        """A journal of format 1: one file, which reads as the first segment."""
        return cls({1: path})

    def _chain(self, files: Mapping[int, Path]) -> list[Path]:
        """The segments that count, oldest first."""
        chain: list[Path] = []
        number = self.newest
        while number in files:
            chain.append(files[number])
            header = read_header(files[number], self._read(files[number], SECTOR_BYTES))
            if header.number != number or header.follows >= number:
                raise corrupt(files[number], f"this is segment {header.number} after {header.follows} by its header")
            number = header.follows
        return chain[::-1]

    def _read_all(self, paths: list[Path]) -> Tail:
        tail: Tail | None = None
        for path in paths:
            data = self._read(path, -1)
            header = read_header(path, data)
            if tail is not None and (header.first_sequence, header.chain) != (tail.next_sequence, tail.chain):
                raise corrupt(
                    tail.segment.path,
                    f"it ends with batch {tail.next_sequence - 1}, but {path.name} continues another batch "
                    f"{header.first_sequence - 1}",
                )
            tail = self._read_segment(path, data, header, may_be_torn=path is paths[-1])
        assert tail is not None
        return tail

    def _read_segment(self, path: Path, data: bytes, header: Header, *, may_be_torn: bool) -> Tail:
        segment = Segment(path, header, 0, 0)
        self.segments.append(segment)
        last: Batch | None = None
        for last in read_batches(path, data, header, may_be_torn=may_be_torn):
            try:
                records = decoder.decode(last.payload)
            except DECODE_ERRORS as error:
                raise corrupt(path, f"a record is not readable ({error}) at byte {last.offset}") from error
            for position, record in enumerate(records):
                begins = last.offset == SECTOR_BYTES and position == 0
                if begins != isinstance(record, Start | Checkpoint):
                    raise corrupt(path, f"a {type(record).__name__} is out of place at byte {last.offset}")
                problem = self._apply(record, segment)
                if problem:
                    raise corrupt(path, f"{problem} at byte {last.offset}")
        assert last is not None
        segment.size = last.end
        return Tail(segment, data[SECTOR_BYTES : last.end], last.sequence + 1, last.checksum)

    def _apply(self, record: Record, segment: Segment) -> str:
        """What is wrong with `record`, empty when nothing is."""
        state = self.state
        last_index = state.last[0]
        match record:
            case Start():
                return self._begin(record, segment)
            case Checkpoint():
                self._base = record.index, record.term
                state.entries = [(NO_OP, record.index, record.term)]
                state.current_term, state.voted_for = record.current_term, record.voted_for
                state.commit_index = record.commit_index
                self._extend(record.index + 1, record.entries, segment)
            case Entries():
                if record.first_index != last_index + 1:
                    return f"entry {record.first_index} follows entry {last_index}"
                self._extend(record.first_index, record.entries, segment)
            case Truncate():
                if not max(self._base[0], state.commit_index) < record.from_index <= last_index:
                    return f"truncation at {record.from_index} is outside the log"
                self._truncate(record.from_index)
            case HardState():
                if record.current_term < state.current_term:
                    return "the term goes back"
                state.current_term, state.voted_for = record.current_term, record.voted_for
            case CommitIndex():
                state.commit_index = record.index
            case Base():
                return self._move_base(record)
        if not self._base[0] <= state.commit_index <= state.last[0]:
            return f"commit index {state.commit_index} is outside the log"
        return ""

    def _begin(self, record: Start, segment: Segment) -> str:
        state = self.state
        base, last = (record.base_index, record.base_term), (record.last_index, record.last_term)
        if not base[0] <= record.commit_index <= last[0]:
            return f"commit index {record.commit_index} is outside the log"
        if len(self.segments) == 1:
            # Entries up to `last` were in segments that are gone; whether that was right shows at the end.
            state.entries = [(NO_OP, *last)]
            self._base = base
        elif (base, record.current_term, record.voted_for) != (self._base, state.current_term, state.voted_for) or (
            last != state.last and state.last != (last[0], _UNKNOWN_TERM)
        ):
            return "its beginning contradicts the segment before it"
        state.current_term, state.voted_for = record.current_term, record.voted_for
        state.commit_index = max(state.commit_index, record.commit_index)
        state.oldest_sequence = record.oldest_sequence
        segment.max_index = 0
        return ""

    def _extend(self, first_index: int, entries: list[tuple[int, bytes]], segment: Segment) -> None:
        self.state.entries.extend((command, first_index + i, term) for i, (term, command) in enumerate(entries))
        segment.max_index = self.state.last[0]

    def _truncate(self, index: int) -> None:
        entries = self.state.entries
        if index > entries[0][1]:
            del entries[index - entries[0][1] :]
        else:
            # The entry before it was in a segment that is gone.
            entries[:] = [(NO_OP, index - 1, _UNKNOWN_TERM)]
        for segment in self.segments:
            segment.max_index = min(segment.max_index, index - 1)

    def _move_base(self, record: Base) -> str:
        state = self.state
        if not self._base[0] <= record.index <= state.commit_index:
            return f"base {record.index} is outside the log"
        self._base = record.index, record.term
        state.oldest_sequence = record.oldest_sequence
        position = record.index - state.entries[0][1]
        if position >= 0:
            if state.entries[position][2] not in (record.term, _UNKNOWN_TERM):
                return f"the base {record.index} has another term than its entry"
            state.entries[: position + 1] = [(NO_OP, record.index, record.term)]
        return ""

    def _finish(self) -> None:
        first, state = self.segments[0], self.state
        if first.header.first_sequence > state.oldest_sequence or state.entries[0][1:] != self._base:
            raise corrupt(
                first.path,
                f"the segment {first.header.follows} before it is missing (the log begins at {self._base[0]}, entries "
                f"after {state.entries[0][1]} are here)",
            )
