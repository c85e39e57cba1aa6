"""The recent events of one replica, for watchers: a bounded ring with a wake-up that many can wait on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from controlplane.machine.events import Event
from controlplane.ports import CompactedError


class Signal:
    """Wakes everyone who waits, any number of times."""

    def __init__(self) -> None:
        self._future: asyncio.Future[None] | None = None

    def wait(self) -> asyncio.Future[None]:
        """A future that the next `fire` resolves. Take it BEFORE looking at what may have changed."""
        if self._future is None or self._future.done():
            self._future = asyncio.get_running_loop().create_future()
        return self._future

    def fire(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class History:
    def __init__(self, limit: int) -> None:
        self._events: deque[Event] = deque()
        self._limit = limit
        self._offset = 0
        """How many events were dropped before the first one held."""
        self._compacted = 0
        """The highest revision whose events are not all held."""
        self._changed = Signal()

    def add(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        while len(self._events) > self._limit:
            self._compacted = self._events.popleft().revision
            self._offset += 1
        self._changed.fire()

    def restart(self, revision: int) -> None:
        """The state was replaced as a whole: nothing at or below `revision` can be told event by event."""
        # One more than was held: whoever had read everything missed what led to the new state, too.
        self._offset += len(self._events) + 1
        self._events.clear()
        self._compacted = revision
        self._changed.fire()

    async def watch(self, after: int | None) -> AsyncIterator[Event]:
        """Every event above `after` (None: from now), without end. Raises CompactedError."""
        if after is None:
            position = self._offset + len(self._events)
        else:
            if after < self._compacted:
                raise CompactedError(f"events after revision {after} are no longer held; list again")
            position = self._offset + sum(1 for event in self._events if event.revision <= after)
        while True:
            changed = self._changed.wait()
            if position < self._offset:
                raise CompactedError("the watcher is too slow: what it has not read is no longer held; list again")
            index = position - self._offset
            if index < len(self._events):
                position += 1
                yield self._events[index]
            else:
                await asyncio.shield(changed)
