"""The disk of one simulated process, under the `Disk` seam and above real files.

It knows how much of every file was synced. A power loss keeps a random part of the rest, perhaps with sectors that
never reached the platter; a killed process loses nothing, but what it had not synced stays so until somebody syncs the
file. A process can also die inside an operation, with half of a write done.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from controlplane.consensus.disk import Disk

SECTOR_BYTES = 512


class ProcessDiedError(BaseException):
    """The simulated process ends here. Not an Exception: nothing may handle it but the process's own frame."""


class SimulatedDisk(Disk):
    def __init__(self, chance: random.Random, spend: Callable[[float], None], seen: Counter[str]) -> None:
        super().__init__(durable=False)
        self._chance = chance
        self._spend = spend
        self._seen = seen
        self._synced: dict[int, int] = {}
        self._removed: dict[Path, bytes] = {}
        self._inside = False
        self._open: set[int] = set()
        self.sync_s = (0.0, 0.0)
        """Range of true seconds that a sync takes."""
        self.honest = True
        """False: a sync is claimed, but nothing is made durable."""
        self.dead = False
        """True while a dead process's files are closed: nothing is written any more."""
        self.dies_in: int | None = None
        """Operations until the process dies inside one."""
        self.fails_in: int | None = None
        """Operations until one fails, as with a broken disk."""
        self._poisoned: set[int] = set()
        """Files of which the kernel believes, after a failed sync, that nothing is left to be synced."""

    def open_append(self, path: Path) -> int:
        fd = super().open_append(path)
        self._open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        super().close(fd)

    def end(self) -> None:
        """The process is gone, and so are its descriptors."""
        self.dead = True
        for fd in sorted(self._open):
            self.close(fd)

    def append(self, fd: int, data: bytes | bytearray) -> None:
        if self._inside:
            super().append(fd, data)
            return
        if self.dead:
            raise OSError(errno.EIO, "the process is dead")
        status = os.fstat(fd)
        known = self._synced.get(status.st_ino)
        if known is None or known > status.st_size:
            self._synced[status.st_ino] = status.st_size
        if self._fails("append"):
            super().append(fd, data[: self._chance.randint(0, len(data))])
            raise OSError(errno.EIO, "Input/output error")
        if self._dies("append"):
            super().append(fd, data[: self._chance.randint(0, len(data))])
            raise ProcessDiedError
        super().append(fd, data)

    def sync(self, fd: int) -> None:
        assert not self.dead, "nothing is written before it is appended"
        inode = os.fstat(fd).st_ino
        if self._fails("sync"):
            self._poisoned.add(inode)
            raise OSError(errno.EIO, "Input/output error")
        dies = self._dies("sync")
        if dies and self._chance.random() < 0.5:
            raise ProcessDiedError
        self._spend(self._chance.uniform(*self.sync_s))
        if self.honest and inode not in self._poisoned:
            self._synced.pop(inode, None)
        if dies:
            raise ProcessDiedError

    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        assert not self.dead, "nothing is written before it is appended"
        if self._fails("replace"):
            path.with_name(path.name + ".tmp").write_bytes(b"".join(parts)[: self._chance.randint(0, 600)])
            raise OSError(errno.EIO, "Input/output error")
        dies = self._dies("replace")
        if dies and self._chance.random() < 0.5:
            path.with_name(path.name + ".tmp").write_bytes(b"".join(parts)[: self._chance.randint(0, 600)])
            raise ProcessDiedError
        self._spend(self._chance.uniform(*self.sync_s))
        self._inside = True
        try:
            super().replace(path, *parts)
        finally:
            self._inside = False
        self._removed.pop(path, None)
        if self.honest:
            self._synced.pop(path.stat().st_ino, None)
        else:
            self._synced[path.stat().st_ino] = 0
        if dies:
            raise ProcessDiedError

    def remove(self, path: Path) -> None:
        assert not self.dead, "nothing is written before it is appended"
        dies = self._dies("remove")
        if not dies or self._chance.random() < 0.5:
            if path.is_file():
                self._removed[path] = path.read_bytes()
            super().remove(path)
        if dies:
            raise ProcessDiedError

    def sync_directory(self, path: Path) -> None:
        if self.honest:
            self._removed = {gone: data for gone, data in self._removed.items() if gone.parent != path}

    def free_bytes(self, path: Path) -> int:
        return 1 << 40

    def _dies(self, operation: str) -> bool:
        if self.dies_in is None:
            return False
        self.dies_in -= 1
        if self.dies_in > 0:
            return False
        self.dies_in = None
        self._seen[f"died in {operation}"] += 1
        return True

    def _fails(self, operation: str) -> bool:
        if self.fails_in is None:
            return False
        self.fails_in -= 1
        if self.fails_in > 0:
            return False
        self.fails_in = None
        self._seen[f"failed in {operation}"] += 1
        return True

    def forget(self) -> None:
        """Another disk is there, with nothing on it."""
        self._synced.clear()
        self._removed.clear()
        self._poisoned.clear()

    def lose_power(self, directory: Path) -> None:
        """Keep a random part of what was not synced below `directory`; what was removed may be there again."""
        for path, data in self._removed.items():
            if self._chance.random() < 0.5 and not path.exists():
                self._seen["removed file back after a power loss"] += 1
                path.write_bytes(data)
        self._removed.clear()
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            status = path.stat()
            synced = self._synced.get(status.st_ino)
            if synced is None or synced >= status.st_size:
                continue
            self._seen["unsynced bytes at a power loss"] += 1
            keep = synced if not self.honest else self._chance.randint(synced, status.st_size)
            raw = bytearray(path.read_bytes()[:keep])
            for start in range(-(-synced // SECTOR_BYTES) * SECTOR_BYTES, len(raw), SECTOR_BYTES):
                if self._chance.random() < 0.2:
                    end = min(start + SECTOR_BYTES, len(raw))
                    raw[start:end] = bytes(end - start)
            path.write_bytes(raw)
        self._synced.clear()
        self._poisoned.clear()
