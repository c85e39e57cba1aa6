"""A snapshot store that is a directory: local disk, or whatever is mounted there.

An object is written beside its place, synced, read back and compared, and only then renamed into it, so a crash leaves
the old object or the new one. Files are readable by their owner alone, since metadata of microVMs may hold secrets.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from controlplane.backup.objects import MAX_OBJECT_BYTES, check_content, check_name, check_prefix, check_size, collect
from controlplane.backup.objects import not_found as no_such_object
from controlplane.ports import StoredObject, StoreError

_PARTIAL = ".partial"
_ABANDONED_S = 86_400


class DirectoryStore:
    """Implements `ports.SnapshotStore`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def location(self) -> str:
        return str(self._root)

    @property
    def shared(self) -> bool:
        return True

    def put(self, name: str, data: Iterable[bytes], *, sha256: str) -> None:
        target = self._root / check_name(name)
        content = collect(name, data, sha256)
        partial = self._root / _PARTIAL / secrets.token_hex(16)
        try:
            self._make_room(target.parent)
            try:
                _write(partial, content)
                check_content(name, partial.read_bytes(), sha256)
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            _sync_directory(target.parent)
        except OSError as error:
            raise self._failed(f"cannot write {name}", error) from None

    def get(self, name: str, *, sha256: str | None = None) -> bytes:
        path = self._root / check_name(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_OBJECT_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise no_such_object(name, self.location) from None
        except OSError as error:
            raise self._failed(f"cannot read {name}", error) from None
        check_size(name, len(data))
        check_content(name, data, sha256)
        return data

    def exists(self, name: str) -> bool:
        return (self._root / check_name(name)).is_file()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        top = self._root / check_prefix(prefix)
        try:
            for folder, folders, files in os.walk(top, onerror=_raise_unless_absent):
                folders[:] = [each for each in folders if not each.startswith(".")]
                for file in files:
                    path = Path(folder) / file
                    with suppress(FileNotFoundError):
                        found = path.stat()
                        name = path.relative_to(self._root).as_posix()
                        yield StoredObject(name, found.st_size, found.st_mtime)
        except OSError as error:
            raise self._failed("cannot be listed", error) from None

    def delete(self, name: str) -> None:
        try:
            (self._root / check_name(name)).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(f"cannot delete {name}", error) from None

    def _make_room(self, folder: Path) -> None:
        """The folders for an object, and no leftovers of writers that were killed."""
        partial = self._root / _PARTIAL
        if not partial.is_dir():
            partial.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(folder.parent)
            for leftover in partial.iterdir():
                with suppress(FileNotFoundError):
                    if leftover.stat().st_mtime < time.time() - _ABANDONED_S:
                        leftover.unlink()

    def _failed(self, what: str, error: OSError) -> StoreError:
        reason = error.strerror or type(error).__name__
        hints = {
            "PermissionError": "give this user access to the directory",
            "FileExistsError": "a file is where a directory is needed",
            "NotADirectoryError": "a file is where a directory is needed",
        }
        denied = isinstance(error, PermissionError)
        hint = hints.get(type(error).__name__, "is the disk there, writable and not full?")
        return StoreError("denied" if denied else "failed", f"{self.location}: {what}: {reason}", hint=hint)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
