"""The few file operations durability depends on, in one place, so that a test can make a disk fail, stall or forget.

`Disk(durable=False)` is `fsync = never`: everything is written, nothing is waited for. A failed write or sync is never
retried (after a failed fsync the kernel may have dropped the dirty pages); it surfaces as OSError and stops the node.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from time import perf_counter, sleep

from controlplane.consensus.latency import LatencyWindow

_SHRINK_BYTES = 8 << 20
_SHRINK_REST_S = 0.002


class Disk:
    """File operations with durability. All methods raise OSError.

    The primitives are one system call each; `replace` and `make_directory` are made of them.
    """

    def __init__(self, *, durable: bool) -> None:
        self._durable = durable
        self.sync_latency = LatencyWindow()
        """How long the last calls of `sync` waited for the disk."""

    # -- primitives ----------------------------------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        """A descriptor that writes to the new or emptied file `path`; ended by `close`."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open_append(self, path: Path) -> int:
        """A descriptor that writes at the end of the existing file `path`; ended by `close`."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def append(self, fd: int, data: bytes | bytearray) -> None:
        """Write all of `data` at the end of `fd`; not yet durable."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        """Make what was appended to `fd` survive a power loss."""
        if self._durable:
            began = perf_counter()
            os.fdatasync(fd)
            self.sync_latency.note(perf_counter() - began)

    def sync_new(self, fd: int) -> None:
        """Make a file that `create` made survive a power loss, but for its name."""
        if self._durable:
            os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Not durable until the directory is synced."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Unlink `path`, which may come back after a power loss."""
        path.unlink(missing_ok=True)

    def shrink(self, path: Path) -> None:
        """Give the blocks of `path`, which is to be removed, back step by step; it takes a moment.

        To free many blocks at once holds up the syncs of everybody on that file system (300 MB on ext4: 50 ms). A file
        that somebody reads under a lock (`flock`) stays as it is: it goes when the last reader closes it.
        """
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for size in range(os.fstat(fd).st_size - _SHRINK_BYTES, 0, -_SHRINK_BYTES):
                os.ftruncate(fd, size)
                sleep(_SHRINK_REST_S)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

    def sync_directory(self, path: Path) -> None:
        """Make the names in `path` survive a power loss."""
        if not self._durable:
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def add_directory(self, path: Path) -> None:
        """Not durable until the directory above is synced."""
        path.mkdir(mode=0o700, exist_ok=True)

    def free_bytes(self, path: Path) -> int:
        """What this user can still write to the file system of `path`."""
        return shutil.disk_usage(path).free

    # -- made of them --------------------------------------------------------------------------------------------------

    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        """Create or replace `path` by the concatenation of `parts`: afterwards it is wholly old or wholly new."""
        temporary = path.with_name(path.name + ".tmp")
        fd = self.create(temporary)
        try:
            for part in parts:
                self.append(fd, part)
            self.sync_new(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)

    def make_directory(self, path: Path) -> None:
        """Make `path` and what is missing above it, durable."""
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        for directory in reversed(missing):
            self.add_directory(directory)
            self.sync_directory(directory.parent)
        if not missing:
            # A process that was killed may have made it and no more.
            self.sync_directory(path.parent)
