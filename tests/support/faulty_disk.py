"""A disk that fails on command, for members that run as processes of their own.

Control from outside: write the control file (atomically, `write_control` does) as JSON and the next operation obeys:

    {"mode": "ok"}                       works (also when there is no control file)
    {"mode": "eio"}                      every matching operation raises EIO
    {"mode": "enospc"}                   a matching append writes half of its bytes and raises ENOSPC; replace raises it
    {"mode": "slow", "ms": 200}          every matching operation takes that much longer
    {"mode": "no-sync"}                  syncs of appended bytes return without syncing: the deliberately broken build

    "operations": ["append", "sync", "replace", "remove"]   narrows the mode to these (default: all)
    "path": "wal"                                           narrows it to paths that contain this

With a ledger (a file of JSON lines) the disk also notes how long every file was when it was last really synced.
After `kill -9`, `lose_power(ledger)` cuts every file back to that, which is what a power loss leaves; with a random
generator it keeps a random part of what was not synced. A real sync is noted before its caller learns of it, so
whatever the node acknowledged with an honest sync stays.

    python -m support.faulty_raft CONFIG CONTROL [LEDGER]   is a node's real raft process on such a disk.
    FaultyDisk(durable=True, control=..., ledger=...)       is the disk itself, for `RaftNode(..., disk=...)`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import time
from pathlib import Path

from controlplane.consensus.disk import Disk

OPERATIONS = ("append", "sync", "replace", "remove")


def write_control(control: Path, mode: str, **details: object) -> None:
    """Make the disks that watch `control` behave as `mode` from their next operation on."""
    temporary = control.with_name(control.name + ".new")
    temporary.write_text(json.dumps({"mode": mode, **details}))
    temporary.replace(control)


class FaultyDisk(Disk):
    """See the module. Without faults it is the real disk."""

    def __init__(self, *, durable: bool = True, control: Path | None = None, ledger: Path | None = None) -> None:
        super().__init__(durable=durable)
        self._control = control
        self._seen: tuple[int, int] | None = None
        self._order: dict[str, object] = {"mode": "ok"}
        self._paths: dict[int, str] = {}
        self._ledger = -1 if ledger is None else os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def open_append(self, path: Path) -> int:
        fd = super().open_append(path)
        self._paths[fd] = str(path.absolute())
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        super().close(fd)

    def append(self, fd: int, data: bytes | bytearray) -> None:
        # Inside `replace` the descriptor is not one of ours: that operation obeyed already.
        if fd in self._paths and self._obey("append", self._paths[fd]) == "enospc":
            super().append(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().append(fd, data)

    def sync(self, fd: int) -> None:
        path = self._paths[fd]
        if self._obey("sync", path) == "no-sync":
            return
        super().sync(fd)
        self._note(path, os.fstat(fd).st_size)

    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        if self._obey("replace", str(path)) == "enospc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        super().replace(path, *parts)
        self._note(str(path.absolute()), sum(map(len, parts)))

    def remove(self, path: Path) -> None:
        self._obey("remove", str(path))
        super().remove(path)
        self._note(str(path.absolute()), None)

    def _note(self, path: str, size: int | None) -> None:
        if self._ledger >= 0:
            os.write(self._ledger, json.dumps([path, size]).encode() + b"\n")

    def _obey(self, operation: str, path: str) -> str:
        """Do what the control file says; the mode that is in force for this operation."""
        order = self._read_order()
        if operation not in (order.get("operations") or OPERATIONS) or str(order.get("path", "")) not in path:
            return "ok"
        mode = str(order["mode"])
        if mode == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if mode == "slow":
            time.sleep(float(str(order.get("ms", 100))) / 1000)
        return mode

    def _read_order(self) -> dict[str, object]:
        if self._control is None:
            return self._order
        try:
            found = self._control.stat()
            if (found.st_mtime_ns, found.st_ino) != self._seen:
                self._order = json.loads(self._control.read_text())
                self._seen = found.st_mtime_ns, found.st_ino
        except FileNotFoundError:
            self._order = {"mode": "ok"}
        return self._order


def lose_power(ledger: Path, chance: random.Random | None = None) -> dict[str, int]:
    """Cut every file of a killed node back to what was synced. Gives the bytes lost by path.

    With `chance`, a random prefix of the bytes that were not synced stays, as after a real power loss.
    """
    lost: dict[str, int] = {}
    synced: dict[str, int | None] = dict(json.loads(line) for line in ledger.read_text().splitlines())
    for name, size in synced.items():
        path = Path(name)
        if size is None or not path.exists():
            continue
        present = path.stat().st_size
        keep = size if chance is None else chance.randint(min(size, present), present)
        if present > keep:
            os.truncate(path, keep)
            lost[name] = present - keep
    return lost
