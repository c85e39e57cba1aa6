"""The serial console: one file that QEMU only appends to, bounded by giving its oldest blocks back.

Offsets count from the creation of the microVM and stay true for ever, because old output is removed by punching a hole
at the front of the file instead of moving what is left; the file's length goes on growing while its blocks do not
(docs/adr/0032). What was removed is skipped by readers.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from controlplane.ports import DriverError

READY_LINE = b"flintlock: ready"
"""A guest writes this at the start of a line of its first serial port when its services are up (docs/adr/0031)."""
MAX_KEPT_BYTES = 8 << 20
KEEP_BYTES = 4 << 20
_BLOCK_BYTES = 4096
_KEEP_SIZE_PUNCH_HOLE = 3
_CHUNK_BYTES = 1 << 16


def size(path: Path) -> int:
    """The offset after the last byte; 0 when there is no console yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def read(path: Path, *, offset: int, limit: int) -> tuple[int, bytes]:
    """(next offset, bytes) from `offset`; a negative one counts from the end."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0, b""
    try:
        end = os.fstat(descriptor).st_size
        begin = min(max(offset if offset >= 0 else end + offset, 0), end)
        begin = _first_kept(descriptor, begin, end)
        data = os.pread(descriptor, min(max(limit, 0), end - begin), begin)
        return begin + len(data), data
    finally:
        os.close(descriptor)


def trim(path: Path, *, max_kept: int = MAX_KEPT_BYTES, keep: int = KEEP_BYTES) -> None:
    """When more than `max_kept` bytes are kept, keep the last `keep`, rounded up to whole blocks.

    Raises DriverError(`StateUnavailable`) when the file system cannot punch holes.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        end = os.fstat(descriptor).st_size
        first = _first_kept(descriptor, 0, end)
        if end - first > max_kept:
            _punch(descriptor, (end - keep) // _BLOCK_BYTES * _BLOCK_BYTES)
    except OSError as error:
        raise DriverError("StateUnavailable", f"cannot bound {path}: {error}") from error
    finally:
        os.close(descriptor)


def _first_kept(descriptor: int, begin: int, end: int) -> int:
    """The first offset from `begin` on whose bytes are still there."""
    if begin >= end:
        return end
    try:
        return os.lseek(descriptor, begin, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        raise


def _punch(descriptor: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(descriptor, _KEEP_SIZE_PUNCH_HOLE, 0, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class ReadyWatch:
    """Looks for the ready line in what was written from `start` on; each byte is read once."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._next = start
        # The start of a run counts as the start of a line.
        self._carry = b"\n"
        self.seen = False

    def look(self) -> bool:
        """Read on; True once the line was seen."""
        while not self.seen:
            following, data = read(self._path, offset=self._next, limit=_CHUNK_BYTES)
            if not data:
                break
            self._next = following
            text = self._carry + data
            self.seen = b"\n" + READY_LINE in text
            self._carry = text[-len(READY_LINE) - 1 :]
        return self.seen
