"""What wakes the agent: ends of processes, QEMU's events, ready lines, and a slow look for everything else.

Wakes are coalesced: a consumer that is busy gets one wake for all that happened meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog

LOOK_S = 1.0
"""How soon a process that appears, disappears or is halted behind the agent's back is noticed."""
BOOT_LOOK_S = 0.1
"""How soon a ready line is noticed."""

_log = structlog.get_logger(__name__)


class Watch:
    """signature: cheap and thread-safe, differs when the host has changed.
    booting: looks at guests that are not ready yet, True while there are any; it wakes the agent itself.
    """

    def __init__(self, signature: Callable[[], object], booting: Callable[[], bool]) -> None:
        self._signature = signature
        self._booting = booting
        self._watchers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def wake(self) -> None:
        for event in self._watchers:
            event.set()

    async def changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield None
        finally:
            self._watchers.discard(event)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        seen: object = None
        next_look = loop.time()
        while True:
            try:
                if loop.time() >= next_look:
                    next_look = loop.time() + LOOK_S
                    now = await asyncio.to_thread(self._signature)
                    if now != seen:
                        seen = now
                        self.wake()
                booting = self._booting()
            except Exception:
                _log.exception("the watch over microVMs failed; it goes on")
                booting = False
            await asyncio.sleep(BOOT_LOOK_S if booting else LOOK_S)
