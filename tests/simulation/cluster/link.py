"""`ports.Log` as a front process has it: the raft process of its node, asked across the boundary between the two.

It stands for the private socket (`consensus.client` and `consensus.server`) with what matters of it: either side may be
stopped or die on its own, a call whose raft process dies after it was sent is unknown, and following begins again where
it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from simulation.cluster.loop import CURRENT, Process

from controlplane.consensus import RaftNode
from controlplane.ports import (
    Committed,
    Led,
    LogError,
    LogStatus,
    NoLeaderError,
    OutcomeUnknownError,
    Position,
    SnapshotInstalled,
)

_RETRY_S = 0.05
_GRACE_S = 0.5
_STATUS_TIMEOUT_S = 5.0
_WAY_S = 0.00005

Serving = Callable[[], tuple[Process, RaftNode] | None]
"""The raft process that serves now, if any."""


Make = Callable[[RaftNode], Coroutine[Any, Any, Any]]


class _LostError(Exception):
    """The raft process ended after the call was sent."""


class LogLink:
    """Implements `ports.Log`. Made and used in the front's process."""

    def __init__(self, serving: Serving) -> None:
        process = CURRENT.get()
        assert process is not None
        self._process = process
        self._serving = serving

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        try:
            return await self._call(lambda node: node.append(entry, timeout_s=timeout_s), timeout_s)
        except (TimeoutError, _LostError) as error:
            raise OutcomeUnknownError(f"the raft process did not answer: {error or 'timeout'}") from None

    async def read_index(self, *, timeout_s: float) -> int:
        return await self._ask(lambda node: node.read_index(timeout_s=timeout_s), timeout_s)

    async def confirm_leadership(self, *, timeout_s: float) -> Led:
        return await self._ask(lambda node: node.confirm_leadership(timeout_s=timeout_s), timeout_s)

    async def status(self) -> LogStatus:
        found = self._serving()
        if found is None or found[0].gate:
            return await self._ask(lambda node: node.status(), _STATUS_TIMEOUT_S)
        # It waits for nothing, and is asked a few times a second: who is not held back answers at once.
        raft, node = found
        return raft.context().run(_result, node.status())

    async def _ask(self, make: Make, timeout_s: float) -> Any:
        try:
            return await self._call(make, timeout_s)
        except (TimeoutError, _LostError):
            raise NoLeaderError("the raft process did not answer") from None

    async def _call(self, make: Make, timeout_s: float) -> Any:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (found := self._serving()) is None:
            if loop.time() >= deadline:
                raise NoLeaderError("the raft process cannot be reached")
            await asyncio.sleep(_RETRY_S)
        raft, node = found
        answer: asyncio.Future[Any] = loop.create_future()

        def answered(result: Any) -> None:
            if not answer.done():
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

        def lost() -> None:
            self._process.post(answered, _LostError("the connection broke"))

        async def work() -> None:
            try:
                result = await make(node)
            except LogError as error:
                result = error
            self._process.post_after(_WAY_S, answered, result)

        def begin() -> None:
            asyncio.get_running_loop().create_task(work())

        raft.ended.append(lost)
        raft.post_after(_WAY_S, begin)
        expiry = loop.call_at(deadline + _GRACE_S, answered, TimeoutError("timeout"))
        try:
            return await answer
        finally:
            expiry.cancel()
            raft.ended.remove(lost)

    async def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        position = after
        while True:
            found = self._serving()
            if found is not None:
                async with aclosing(self._read(*found, position)) as items:
                    async for item in items:
                        yield item
                        position = item.index
            await asyncio.sleep(_RETRY_S)

    async def _read(self, raft: Process, node: RaftNode, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        """Until the raft process ends."""
        arrived: asyncio.Queue[Committed | SnapshotInstalled | None] = asyncio.Queue()
        front = self._process

        def deliver(item: Committed | SnapshotInstalled | None) -> None:
            front.post(arrived.put_nowait, item)

        async def pump() -> None:
            try:
                async for item in node.follow(after):
                    deliver(await _whole(item) if isinstance(item, SnapshotInstalled) else item)
            except LogError:
                deliver(None)

        def lost() -> None:
            deliver(None)

        def begin() -> None:
            pumping = asyncio.get_running_loop().create_task(pump())
            front.ended.append(lambda: raft.post(pumping.cancel))

        raft.ended.append(lost)
        raft.post_after(_WAY_S, begin)
        try:
            while (item := await arrived.get()) is not None:
                yield item
        finally:
            raft.ended.remove(lost)


def _result(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


async def _whole(item: SnapshotInstalled) -> SnapshotInstalled:
    """The same, with chunks that are here already."""
    chunks = [chunk async for chunk in item.chunks]

    async def again() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return SnapshotInstalled(item.index, item.term, item.header, item.count, again())
