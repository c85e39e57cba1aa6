"""Following one process to its end: its pidfd in the event loop, and what is known about how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controlplane.drivers.qemu.process import Found, Handle


class Following:
    """At most one process at a time. on_end: called in the event loop when it ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._handle: Handle | None = None
        self._since_s = 0.0

    @property
    def handle(self) -> Handle | None:
        return self._handle

    @property
    def running(self) -> bool:
        return self._handle is not None and self._handle.running

    @property
    def age_s(self) -> float:
        """Seconds since this process is followed."""
        return asyncio.get_running_loop().time() - self._since_s

    def adopt(self, found: Found) -> Handle | None:
        """Follow a process that was found, unless one is followed already; gives the one that is."""
        if self._handle is None:
            handle = Handle.open(found)
            if handle is not None:
                self.begin(handle)
        return self._handle

    def begin(self, handle: Handle) -> None:
        self.release()
        loop = asyncio.get_running_loop()
        self._handle, self._since_s = handle, loop.time()
        loop.add_reader(handle.fd, self._ended, handle)

    def release(self) -> None:
        """Let go of the process, which runs on."""
        if self._handle is not None:
            asyncio.get_running_loop().remove_reader(self._handle.fd)
            self._handle.close()
            self._handle = None

    def take_end(self) -> str | None:
        """When the process has ended: let go of it, and say how it ended if we were its parent."""
        handle = self._handle
        if handle is None or handle.running:
            return None
        status = handle.exit_status()
        self.release()
        return status

    def _ended(self, handle: Handle) -> None:
        asyncio.get_running_loop().remove_reader(handle.fd)
        handle.exit_status()
        self._on_end()
