"""The write-ahead journal: Raft's log and its term, vote and commit index in one checksummed, append-only file.

What is added between two syncs becomes one batch, so a batch is the unit of group commit and of atomicity. A batch
starts on a 512-byte sector, carries a sequence number, and both its header and its payload have a CRC. The next batch
is written only after the previous one is durable; therefore a damaged batch with another one after it was once
durable, and the node refuses it. A damaged LAST batch is a torn write only when it looks like one (cut short, or a
whole sector of it never reached the disk); anything else is corruption and is refused too. The whole log above the
last compaction is also held in memory.

Position 0 of the log is the base: the entry everything at or below is compacted into (or PySyncObj's own first no-op).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import overload

import msgspec

from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.framing import DECODE_ERRORS

SECTOR_BYTES = 512
NO_OP = b"\x01"
FIRST_INDEX = 1

_FILE_MAGIC = b"FLJOURNL"
_FILE_FORMAT = 1
_FILE_HEADER = struct.Struct("<8sII")
_BATCH_MAGIC = 0x314A4C46
_BATCH_HEADER = struct.Struct("<IIQII")
_BATCH_HEADER_BYTES = _BATCH_HEADER.size + 4
_HAS_ZERO_RUN = 1
# A sector with a few flipped bits must not pass for one that was never written, so payloads with long runs of zeros
# say so.
_ZERO_RUN = bytes(128)
_FILLER = b"\xa5"

LogEntry = tuple[bytes, int, int]
"""(command, index, term), the shape PySyncObj reads."""


class _Checkpoint(msgspec.Struct, tag=0, array_like=True, frozen=True):
    index: int
    term: int
    current_term: int
    voted_for: str | None
    commit_index: int
    entries: list[tuple[int, bytes]]


class _Entries(msgspec.Struct, tag=1, array_like=True, frozen=True):
    first_index: int
    entries: list[tuple[int, bytes]]


class _Truncate(msgspec.Struct, tag=2, array_like=True, frozen=True):
    from_index: int


class _HardState(msgspec.Struct, tag=3, array_like=True, frozen=True):
    current_term: int
    voted_for: str | None


class _CommitIndex(msgspec.Struct, tag=4, array_like=True, frozen=True):
    index: int


_Record = _Checkpoint | _Entries | _Truncate | _HardState | _CommitIndex
_decoder = msgspec.msgpack.Decoder(list[_Record])
_encoder = msgspec.msgpack.Encoder()


class Journal:
    """An open journal. Any OSError it raises means the node must stop: what is durable is then unknown until a
    restart.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._fd = -1
        self._sequence = 0
        self._size = 0
        self._entries: list[LogEntry] = [(NO_OP, FIRST_INDEX, 0)]
        self._current_term = 0
        self._voted_for: str | None = None
        self._commit_index = FIRST_INDEX
        self._pending: list[_Record] = []
        self._run: list[tuple[int, bytes]] = []
        self._commit_dirty = False
        self._failed = False

    # -- opening -------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, disk: Disk) -> Journal:
        """A new, empty journal at `path`."""
        journal = cls(path, disk)
        journal._rewrite()
        return journal

    @classmethod
    def open(cls, path: Path, disk: Disk) -> Journal:
        """Recover the journal at `path`. Raises CorruptDataError when bytes that were durable are damaged."""
        journal = cls(path, disk)
        data = path.read_bytes()
        end = journal._replay(data)
        journal._fd = disk.open_append(path)
        journal._size = end
        if end < len(data):
            disk.truncate(journal._fd, end)
        return journal

    def _replay(self, data: bytes) -> int:
        if len(data) < SECTOR_BYTES:
            raise CorruptDataError(f"{self._path}: the journal is shorter than its header")
        magic, version, crc = _FILE_HEADER.unpack_from(data)
        if magic != _FILE_MAGIC or crc != zlib.crc32(data[:12]):
            raise CorruptDataError(f"{self._path}: the journal's header is damaged")
        if version != _FILE_FORMAT:
            raise CorruptDataError(f"{self._path}: journal format {version}, this program reads {_FILE_FORMAT}")
        offset = SECTOR_BYTES
        while offset < len(data):
            payload = self._read_batch(data, offset)
            if payload is None:
                break
            try:
                records = _decoder.decode(payload)
            except DECODE_ERRORS as error:
                raise self._corrupt(offset, f"a record is not readable ({error})") from error
            for record in records:
                self._replay_record(record, offset)
            self._sequence += 1
            offset += _batch_bytes(len(payload))
        if self._sequence == 0:
            raise CorruptDataError(f"{self._path}: the journal has no checkpoint")
        return offset

    def _read_batch(self, data: bytes, offset: int) -> bytes | None:
        """The payload of the batch at `offset`, or None when it is the torn last write."""
        header = data[offset : offset + _BATCH_HEADER_BYTES]
        if len(header) < _BATCH_HEADER_BYTES:
            return None
        magic, length, sequence, crc, flags = _BATCH_HEADER.unpack_from(header)
        if magic != _BATCH_MAGIC or int.from_bytes(header[_BATCH_HEADER.size :], "little") != zlib.crc32(header[:-4]):
            unwritten = not any(data[offset : offset + SECTOR_BYTES])
            if unwritten and not self._batch_follows(data, offset + SECTOR_BYTES):
                return None
            raise self._corrupt(offset, "a batch header is damaged")
        if sequence != self._sequence:
            raise self._corrupt(offset, f"batch {sequence} stands where {self._sequence} belongs")
        end = offset + _batch_bytes(length)
        if end > len(data):
            return None
        body = data[offset + _BATCH_HEADER_BYTES : end]
        if zlib.crc32(body) == crc:
            return body[:length]
        if end == len(data) and not flags & _HAS_ZERO_RUN and _has_unwritten_sector(data, offset, end):
            return None
        raise self._corrupt(offset, "a batch does not match its checksum")

    def _batch_follows(self, data: bytes, offset: int) -> bool:
        magic = _BATCH_MAGIC.to_bytes(4, "little")
        for at in range(offset, len(data) - _BATCH_HEADER_BYTES + 1, SECTOR_BYTES):
            header = data[at : at + _BATCH_HEADER_BYTES]
            if header.startswith(magic) and int.from_bytes(header[-4:], "little") == zlib.crc32(header[:-4]):
                return _BATCH_HEADER.unpack_from(header)[2] > self._sequence
        return False

    def _replay_record(self, record: _Record, offset: int) -> None:
        if self._sequence == 0 and not isinstance(record, _Checkpoint):
            raise self._corrupt(offset, "the journal does not begin with a checkpoint")
        match record:
            case _Checkpoint():
                self._entries = [(NO_OP, record.index, record.term)]
                self._extend(record.index + 1, record.entries, offset)
                self._current_term, self._voted_for = record.current_term, record.voted_for
                self._commit_index = record.commit_index
            case _Entries():
                self._extend(record.first_index, record.entries, offset)
            case _Truncate():
                if not max(self.base_index, self._commit_index) < record.from_index <= self.last_index:
                    raise self._corrupt(offset, f"truncation at {record.from_index} is outside the log")
                del self._entries[record.from_index - self.base_index :]
            case _HardState():
                if record.current_term < self._current_term:
                    raise self._corrupt(offset, "the term goes back")
                self._current_term, self._voted_for = record.current_term, record.voted_for
            case _CommitIndex():
                self._commit_index = record.index
        if not self.base_index <= self._commit_index <= self.last_index:
            raise self._corrupt(offset, f"commit index {self._commit_index} is outside the log")

    def _extend(self, first_index: int, entries: list[tuple[int, bytes]], offset: int) -> None:
        if first_index != self.last_index + 1:
            raise self._corrupt(offset, f"entry {first_index} follows entry {self.last_index}")
        self._entries.extend((command, first_index + i, term) for i, (term, command) in enumerate(entries))

    def _corrupt(self, offset: int, what: str) -> CorruptDataError:
        return CorruptDataError(
            f"{self._path}: {what} at byte {offset}. These bytes were durable once, so acknowledged entries may be "
            "lost; the node will not start with them. Restore the disk, or remove this node and add it under a new id."
        )

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
        """Bytes in the file."""
        return self._size

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
        self._pending.append(_Truncate(index))

    def set_term(self, term: int, voted_for: str | None) -> None:
        """Durable when this returns: no vote or message of the new term may leave before."""
        assert term >= self._current_term, (term, self._current_term)
        if (term, voted_for) == (self._current_term, self._voted_for):
            return
        self._current_term, self._voted_for = term, voted_for
        self._close_run()
        self._pending.append(_HardState(term, voted_for))
        self.sync()

    def set_commit_index(self, index: int) -> None:
        """Remembered with the next sync. A hint for restarts; Raft itself learns the commit index anew."""
        if index > self._commit_index:
            self._commit_index = index
            self._commit_dirty = True

    # -- the file ------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make everything added so far durable, as one batch."""
        self._close_run()
        if not self._pending:
            return
        if self._commit_dirty:
            self._pending.append(_CommitIndex(self._commit_index))
            self._commit_dirty = False
        batch = _encode_batch(self._sequence, self._pending)
        self._pending.clear()
        self._failed = True
        self._disk.append(self._fd, batch)
        self._disk.sync(self._fd)
        self._failed = False
        self._sequence += 1
        self._size += len(batch)

    def compact_to(self, index: int) -> None:
        """Forget the entries below `index`, which becomes the base. A snapshot must cover it already."""
        assert self.base_index <= index <= self._commit_index, (self.base_index, index, self._commit_index)
        keep = self._entries[index - self.base_index :]
        self._entries = [(NO_OP, index, keep[0][2]), *keep[1:]]
        self._rewrite()

    def reset(self, index: int, term: int) -> None:
        """Replace the whole log by a base at `index`: a snapshot at that index was installed."""
        self._entries = [(NO_OP, index, term)]
        self._commit_index = index
        self._rewrite()

    def close(self) -> None:
        """Flush what is pending, unless a write failed before, and close the file. Idempotent."""
        if self._fd < 0:
            return
        try:
            # Behind a half-written batch another one would make a torn tail look like corruption.
            if not self._failed:
                self.sync()
        finally:
            self._disk.close(self._fd)
            self._fd = -1

    def _close_run(self) -> None:
        if self._run:
            self._pending.append(_Entries(self.last_index - len(self._run) + 1, self._run))
            self._run = []

    def _rewrite(self) -> None:
        """Write a new file that begins with the present state, and put it in the old one's place."""
        self._pending.clear()
        self._run = []
        self._commit_dirty = False
        checkpoint = _Checkpoint(
            index=self.base_index,
            term=self.base_term,
            current_term=self._current_term,
            voted_for=self._voted_for,
            commit_index=self._commit_index,
            entries=[(term, command) for command, _, term in self._entries[1:]],
        )
        head = _FILE_MAGIC + _FILE_FORMAT.to_bytes(4, "little")
        header = (head + zlib.crc32(head).to_bytes(4, "little")).ljust(SECTOR_BYTES, _FILLER)
        batch = _encode_batch(0, [checkpoint])
        self._disk.replace(self._path, header, batch)
        if self._fd >= 0:
            self._disk.close(self._fd)
        self._fd = self._disk.open_append(self._path)
        self._sequence = 1
        self._size = len(header) + len(batch)


def _batch_bytes(payload_bytes: int) -> int:
    return -(-(_BATCH_HEADER_BYTES + payload_bytes) // SECTOR_BYTES) * SECTOR_BYTES


def _encode_batch(sequence: int, records: list[_Record]) -> bytearray:
    batch = bytearray(_BATCH_HEADER_BYTES)
    _encoder.encode_into(records, batch, _BATCH_HEADER_BYTES)
    length = len(batch) - _BATCH_HEADER_BYTES
    flags = _HAS_ZERO_RUN if _ZERO_RUN in batch else 0
    batch += _FILLER * (_batch_bytes(length) - len(batch))
    crc = zlib.crc32(memoryview(batch)[_BATCH_HEADER_BYTES:])
    header = _BATCH_HEADER.pack(_BATCH_MAGIC, length, sequence, crc, flags)
    batch[:_BATCH_HEADER_BYTES] = header + zlib.crc32(header).to_bytes(4, "little")
    return batch


def _has_unwritten_sector(data: bytes, start: int, end: int) -> bool:
    return any(not any(data[at : at + SECTOR_BYTES]) for at in range(start, end, SECTOR_BYTES))
