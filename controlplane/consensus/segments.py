"""The bytes of a journal segment: a header sector, then batches.

A batch begins on a 512-byte sector, carries a sequence number, and both its header and its payload have a CRC; the
header's is seeded with the segment's random salt, so that no payload can imitate one. The next batch is written only
after the previous one is durable; therefore a damaged batch with another one after it was once durable, and is
refused. A damaged LAST batch is a torn write only when it looks like one (cut short, or a whole sector of it never
reached the disk); anything else is corruption and is refused too.

A segment is created whole (see `Disk.replace`), so its header and its first batch are never torn. The header names the
segment it follows, the sequence number it begins with and the checksum of the batch before that: what is missing,
shortened or put in another order does not fit together.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.records import Record, encoder

SECTOR_BYTES = 512
FORMAT = 2
FIRST_FORMAT = 1

_MAGIC = b"FLJOURNL"
_HEADER = struct.Struct("<8sIIQQQI")
_FORMAT_1 = struct.Struct("<8sII")
_BATCH_MAGIC = 0x314A4C46
_BATCH_HEADER = struct.Struct("<IIQII")
_BATCH_HEADER_BYTES = _BATCH_HEADER.size + 4
_HAS_ZERO_RUN = 1
# A sector with a few flipped bits must not pass for one that was never written, so payloads with long runs of zeros
# say so.
_ZERO_RUN = bytes(128)
_FILLER = b"\xa5"


@dataclass(frozen=True, slots=True)
class Header:
    """`follows` is the number of the segment before, 0 for the first of a chain; `chain` its last batch's checksum."""

    number: int
    follows: int
    first_sequence: int
    chain: int
    salt: int
    format: int = FORMAT

    def encode(self) -> bytes:
        head = _HEADER.pack(_MAGIC, FORMAT, self.salt, self.number, self.follows, self.first_sequence, self.chain)
        sector = head.ljust(SECTOR_BYTES - 4, _FILLER)
        return sector + zlib.crc32(sector).to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Batch:
    offset: int
    end: int
    sequence: int
    checksum: int
    payload: bytes


def corrupt(path: Path, what: str) -> CorruptDataError:
    """The refusal of bytes that cannot be a torn write."""
    return CorruptDataError(
        f"{path}: {what}. These bytes were durable once, so acknowledged entries may be lost; the node will not start "
        "with them. Restore the disk, or remove this node and add it under a new id."
    )


def read_header(path: Path, data: bytes) -> Header:
    """The header of a segment, or of a journal of format 1 as a segment without predecessor."""
    if len(data) < SECTOR_BYTES:
        raise corrupt(path, "the journal is shorter than its header")
    magic, version, salt, number, follows, first_sequence, chain = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise corrupt(path, "the journal's header is damaged")
    if version == FIRST_FORMAT and zlib.crc32(data[:12]) == _FORMAT_1.unpack_from(data)[2]:
        return Header(number=1, follows=0, first_sequence=0, chain=0, salt=0, format=FIRST_FORMAT)
    if zlib.crc32(data[: SECTOR_BYTES - 4]) != int.from_bytes(data[SECTOR_BYTES - 4 : SECTOR_BYTES], "little"):
        raise corrupt(path, "the journal's header is damaged")
    if version != FORMAT:
        raise CorruptDataError(f"{path}: journal format {version}, this program reads up to {FORMAT}")
    return Header(number, follows, first_sequence, chain, salt)


def batch_bytes(payload_bytes: int) -> int:
    """Size on disk of a batch with a payload of this size."""
    return -(-(_BATCH_HEADER_BYTES + payload_bytes) // SECTOR_BYTES) * SECTOR_BYTES


def encode_batch(salt: int, sequence: int, records: Iterable[Record]) -> tuple[bytearray, int]:
    """The batch, and the checksum that the next segment's header repeats."""
    batch = bytearray(_BATCH_HEADER_BYTES)
    encoder.encode_into(records, batch, _BATCH_HEADER_BYTES)
    length = len(batch) - _BATCH_HEADER_BYTES
    flags = _HAS_ZERO_RUN if _ZERO_RUN in batch else 0
    batch += _FILLER * (batch_bytes(length) - len(batch))
    crc = zlib.crc32(memoryview(batch)[_BATCH_HEADER_BYTES:])
    header = _BATCH_HEADER.pack(_BATCH_MAGIC, length, sequence, crc, flags)
    checksum = _header_checksum(header, salt)
    batch[:_BATCH_HEADER_BYTES] = header + checksum.to_bytes(4, "little")
    return batch, checksum


def read_batches(path: Path, data: bytes, header: Header, *, may_be_torn: bool) -> Iterator[Batch]:
    """The batches of a segment in order. Only the newest segment may end in a torn one, which is left out.

    Raises CorruptDataError.
    """
    offset, sequence = SECTOR_BYTES, header.first_sequence
    while offset < len(data):
        batch = _read_batch(path, data, offset, sequence, header.salt)
        if batch is None:
            if not may_be_torn or offset == SECTOR_BYTES:
                raise corrupt(path, f"a batch at byte {offset} is cut short or was never written")
            return
        yield batch
        offset, sequence = batch.end, sequence + 1
    if offset == SECTOR_BYTES:
        raise corrupt(path, "the journal has no batch")


def _read_batch(path: Path, data: bytes, offset: int, expected: int, salt: int) -> Batch | None:
    """The batch at `offset`, or None when it is the torn last write."""
    header = data[offset : offset + _BATCH_HEADER_BYTES]
    if len(header) < _BATCH_HEADER_BYTES:
        return None
    _, length, sequence, crc, flags = _BATCH_HEADER.unpack_from(header)
    if not _is_batch_header(header, salt):
        unwritten = not any(data[offset : offset + SECTOR_BYTES])
        if unwritten and not _batch_follows(data, offset + SECTOR_BYTES, salt):
            return None
        raise corrupt(path, f"a batch header is damaged at byte {offset}")
    if sequence != expected:
        raise corrupt(path, f"batch {sequence} stands where {expected} belongs, at byte {offset}")
    end = offset + batch_bytes(length)
    if end > len(data):
        return None
    body = data[offset + _BATCH_HEADER_BYTES : end]
    if zlib.crc32(body) == crc:
        return Batch(offset, end, sequence, int.from_bytes(header[-4:], "little"), body[:length])
    if end == len(data) and not flags & _HAS_ZERO_RUN and _has_unwritten_sector(data, offset, end):
        return None
    raise corrupt(path, f"a batch does not match its checksum at byte {offset}")


def _header_checksum(header: bytes, salt: int) -> int:
    return zlib.crc32(header, salt)


def _is_batch_header(header: bytes, salt: int) -> bool:
    magic = int.from_bytes(header[:4], "little")
    return magic == _BATCH_MAGIC and int.from_bytes(header[-4:], "little") == _header_checksum(header[:-4], salt)


def _batch_follows(data: bytes, offset: int, salt: int) -> bool:
    """Whether anything at or after `offset` is a batch: it was written after what lies before it was durable."""
    last = len(data) - _BATCH_HEADER_BYTES + 1
    return any(_is_batch_header(data[at : at + _BATCH_HEADER_BYTES], salt) for at in range(offset, last, SECTOR_BYTES))


def _has_unwritten_sector(data: bytes, start: int, end: int) -> bool:
    return any(not any(data[at : at + SECTOR_BYTES]) for at in range(start, end, SECTOR_BYTES))
