"""A snapshot store that is one file: `NAME.flsnap`, a tar of one snapshot's manifest and chunks.

It is written as `NAME.flsnap.part`, chunk after chunk, and takes its name when the manifest, which comes last, is in
it and synced. What an interrupted writer left in the `.part` file is found again: whole members are kept, a torn tail
is cut off, so saving again goes on where it stopped. A finished archive is never changed.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from controlplane.backup.objects import MAX_OBJECT_BYTES, check_content, check_name, check_prefix, check_size, collect
from controlplane.backup.objects import not_found as no_such_object
from controlplane.ports import StoredObject, StoreError

SUFFIX = ".flsnap"
LAST = "snapshots/"
"""The object that completes an archive is in this folder."""
_BLOCK = tarfile.BLOCKSIZE
_MAX_MEMBERS = 1_000_000


class ArchiveStore:
    """Implements `ports.SnapshotStore` for one snapshot; nothing can be deleted from it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._lock = threading.Lock()
        self._index: dict[str, tuple[int, int]] | None = None
        """Offset and size of each object's bytes."""
        self._end = 0

    @property
    def location(self) -> str:
        return str(self._path)

    @property
    def shared(self) -> bool:
        return False

    def put(self, name: str, data: Iterable[bytes], *, sha256: str) -> None:
        content = collect(check_name(name), data, sha256)
        with self._lock, self._guard(f"cannot write {name}"):
            if self._path.exists():
                raise StoreError("invalid", f"{self.location}: exists already", hint="name another file")
            index = self._found()
            with self._open_part() as file:
                header = tarfile.TarInfo(name)
                header.size, header.mode = len(content), 0o600
                encoded = header.tobuf(tarfile.USTAR_FORMAT)
                file.seek(self._end)
                padding = bytes(-len(content) % _BLOCK)
                file.write(encoded + content + padding)
                if name.startswith(LAST):
                    file.write(bytes(2 * _BLOCK))
                file.truncate()
                file.flush()
                start = self._end + len(encoded)
                file.seek(start)
                check_content(name, file.read(len(content)), sha256)
                index[name] = (start, len(content))
                self._end = start + len(content) + len(padding)
                if name.startswith(LAST):
                    os.fsync(file.fileno())
                    self._part.rename(self._path)
                    _sync_directory(self._path.parent)

    def get(self, name: str, *, sha256: str | None = None) -> bytes:
        with self._lock, self._guard(f"cannot read {name}"):
            place = self._found().get(check_name(name))
            if place is None:
                raise no_such_object(name, self.location)
            start, size = place
            with self._present().open("rb") as file:
                file.seek(start)
                data = file.read(size)
        check_content(name, data, sha256)
        return data

    def exists(self, name: str) -> bool:
        with self._lock, self._guard("cannot be read"):
            return check_name(name) in self._found()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder = check_prefix(prefix)
        with self._lock, self._guard("cannot be read"):
            index = self._found()
            at_s = self._present().stat().st_mtime if index else 0.0
            found = [StoredObject(name, size, at_s) for name, (_, size) in index.items()]
        yield from (each for each in found if not folder or each.name.startswith(folder + "/"))

    def delete(self, name: str) -> None:
        raise StoreError("invalid", f"{self.location}: nothing is deleted from an archive", hint="delete the file")

    # -- inside; called with the lock ----------------------------------------------------------------------------------

    def _present(self) -> Path:
        return self._path if self._path.exists() else self._part

    def _open_part(self) -> BinaryIO:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")

    def _found(self) -> dict[str, tuple[int, int]]:
        if self._index is None:
            self._index, self._end = {}, 0
            path = self._present()
            if path.exists():
                with path.open("rb") as file:
                    self._index, self._end = _scan(file, finished=path == self._path, location=self.location)
            elif path == self._part and self._path.suffix != SUFFIX:
                raise StoreError("invalid", f"{self.location}: an archive's name ends with {SUFFIX}")
        return self._index

    def _guard(self, what: str) -> _Guard:
        return _Guard(f"{self.location}: {what}")


class _Guard:
    """Turns what the file system says into StoreError."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            code = "denied" if isinstance(error, PermissionError) else "failed"
            raise StoreError(code, f"{self._what}: {error.strerror or error}", hint="is the disk there and not full?")


def _scan(file: BinaryIO, *, finished: bool, location: str) -> tuple[dict[str, tuple[int, int]], int]:
    """The whole members of an archive, and where they end. A torn tail is left out, but for a finished archive's."""
    index: dict[str, tuple[int, int]] = {}
    size = file.seek(0, io.SEEK_END)
    at = 0
    while at + _BLOCK <= size and len(index) < _MAX_MEMBERS:
        file.seek(at)
        try:
            header = tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "strict")
            name = check_name(header.name)
            check_size(name, header.size)
        except (tarfile.HeaderError, UnicodeDecodeError, StoreError):
            break
        whole = header.size + (-header.size % _BLOCK)
        if not header.isreg() or not 0 <= header.size <= MAX_OBJECT_BYTES or at + _BLOCK + whole > size:
            break
        index[name] = (at + _BLOCK, header.size)
        at += _BLOCK + whole
    if finished and not any(name.startswith(LAST) for name in index):
        raise StoreError(
            "damaged", f"{location}: no snapshot archive, or one that was cut short", hint="use another copy of it"
        )
    return index, at


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
