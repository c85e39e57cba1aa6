"""The few file operations durability depends on, in one place, so that a test can make a disk fail, stall or forget.

`Disk(durable=False)` is `fsync = never`: everything is written, nothing is waited for. A failed write or sync is never
retried (after a failed fsync the kernel may have dropped the dirty pages); it surfaces as OSError and stops the node.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import perf_counter

from controlplane.consensus.latency import LatencyWindow


class Disk:
    """File operations with durability. All methods raise OSError."""

    def __init__(self, *, durable: bool) -> None:
        self._durable = durable
        self.sync_latency = LatencyWindow()
        """How long the last calls of `sync` waited for the disk."""

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

    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        """Create or replace `path` by the concatenation of `parts`: afterwards it is wholly old or wholly new."""
        temporary = path.with_name(path.name + ".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            for part in parts:
                self.append(fd, part)
            if self._durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        self.sync_directory(path.parent)

    def remove(self, path: Path) -> None:
        """Unlink `path`, which may come back after a power loss."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        if not self._durable:
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        """What this user can still write to the file system of `path`."""
        return shutil.disk_usage(path).free
