"""The audit chain in files: one JSON line per record, appended, synced, and found again after any crash.

A file is called after its first record, `audit-0000000000000001.jsonl`, and another one begins after `file_bytes`. The
files themselves say how far the export is: it ends with the last whole line of the newest file. What a crash left of a
line after that is cut off, so a record is written once, whenever the process died. Files are for their owner alone, and
one process at a time holds the directory.

After a restore of an older state the chain goes on otherwise than these files do. They are then set aside, whole, in a
directory of their own: they are what is left of a history that was undone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from controlplane.model.audit import AuditRecord, line_of, read_line

FILE_BYTES = 16 << 20
_PATTERN = "audit-*.jsonl"
_LOCK = ".lock"
_TAIL_BYTES = 64 << 10
"""More than the longest line: every text of a record is bounded."""


class ExportError(Exception):
    """The files cannot be used; the message says what to do."""


class ExportFiles:
    """`last` is the newest record in the files, or None."""

    def __init__(self, directory: Path, *, file_bytes: int = FILE_BYTES) -> None:
        """Raises ExportError (also while another process has it) and OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._file_bytes = file_bytes
        self._lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file: int | None = None
        self._size = 0
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.last = self._recover()
        except BlockingIOError:
            self.close()
            raise ExportError(f"{directory}: another process exports to it") from None
        except BaseException:
            self.close()
            raise

    def append(self, records: Sequence[AuditRecord]) -> None:
        """On disk when this returns. Raises OSError; what was written of them then is found by opening anew."""
        lines = bytearray()
        for each in records:
            if self._file is None or self._size + len(lines) >= self._file_bytes:
                self._write(lines)
                lines.clear()
                self._begin(each.sequence)
            lines += line_of(each)
        self._write(lines)
        if records:
            self.last = records[-1]

    def set_aside(self) -> Path:
        """Move all files away; gives where they are now."""
        assert self.last is not None
        aside = self._directory / f"undone-{self.last.sequence:016d}-{self.last.hash[:12]}"
        aside.mkdir(mode=0o700, exist_ok=True)
        self._close_file()
        for path in self._paths():
            path.rename(aside / path.name)
        _sync_directory(aside)
        _sync_directory(self._directory)
        self.last = None
        return aside

    def close(self) -> None:
        self._close_file()
        os.close(self._lock)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _recover(self) -> AuditRecord | None:
        for path in reversed(self._paths()):
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                begin = max(0, size - _TAIL_BYTES)
                file.seek(begin)
                tail = file.read()
                whole = tail.rfind(b"\n") + 1
                if whole == 0 and begin > 0:
                    raise ExportError(f"{path}: its end is no export; move the file away")
                if whole < len(tail):
                    file.truncate(begin + whole)
                    os.fsync(file.fileno())
            if whole == 0:
                path.unlink()
                continue
            try:
                last = read_line(tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole])
            except ValueError as error:
                raise ExportError(f"{path}: its last line is {error}; move the file away") from error
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._size = begin + whole
            return last
        return None

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob(_PATTERN))

    def _begin(self, sequence: int) -> None:
        self._close_file()
        path = self._directory / f"audit-{sequence:016d}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0
        _sync_directory(self._directory)

    def _write(self, lines: bytes | bytearray) -> None:
        """All at once: each write lets go of the interpreter, and waits for the event loop's turn to end."""
        if not lines:
            return
        assert self._file is not None
        left = lines
        while left:
            left = left[os.write(self._file, left) :]
        self._size += len(lines)
        os.fdatasync(self._file)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
