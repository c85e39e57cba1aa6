"""The directory of the plugin's socket: only we may enter it, and none is left behind for long.

A provider that ends removes its own. One that is killed cannot; so each holds a lock on its directory while it lives,
and the next one to start removes those that are old and unlocked. A lock, unlike a process id, also tells the truth
across containers that share a temporary directory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "flintlock-"
SOCKET = "s"
_MAX_SOCKET_PATH = 107
_SETTLE_S = 60.0
"""A directory younger than this may not be locked yet."""


class SocketDirectory:
    """A fresh 0700 directory whose socket path fits into the 107 bytes that the kernel allows."""

    def __init__(self) -> None:
        chosen = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir()
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=chosen))
        if len(str(path / SOCKET).encode()) > _MAX_SOCKET_PATH:
            path.rmdir()
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))  # made anew, for us alone # nosec B108
        self.path = path
        self._lock = _try_lock(path)
        remove_stale(path.parent)

    @property
    def socket(self) -> Path:
        return self.path / SOCKET

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_stale(parent: Path) -> None:
    """Remove what killed providers of this user left behind. What cannot be looked at is left alone."""
    for path in parent.glob(f"{PREFIX}*"):
        try:
            found = path.lstat()
        except OSError:
            continue
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _SETTLE_S:
            continue
        lock = _try_lock(path)
        if lock is not None:
            if {each.name for each in path.iterdir()} <= {SOCKET}:
                shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if someone else does (or it is no directory)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
