"""The Log port seen from a front process, over the raft process's unix socket.

Calls share one connection, made when first needed and again when it broke; each `follow` has a connection of its own,
so the socket itself carries the back pressure and a slow reader never delays calls. A call that was certainly not
sent is tried again until its deadline; one that was sent and lost its connection ends as unknown (append) or is
repeated (the others).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from controlplane.consensus import rpc
from controlplane.consensus.framing import DECODE_ERRORS, LENGTH_BYTES, FrameDecoder, encode_frame
from controlplane.consensus.streaming import Chunks
from controlplane.ports import (
    Committed,
    EntryTooLargeError,
    Led,
    LogError,
    LogStatus,
    Member,
    NoLeaderError,
    OutcomeUnknownError,
    Position,
    RefusedError,
    Reign,
    SnapshotInstalled,
    SnapshotInterruptedError,
)

_ERRORS: dict[str, type[LogError]] = {
    kind.__name__: kind for kind in (NoLeaderError, OutcomeUnknownError, EntryTooLargeError, RefusedError)
}
_RETRY_MIN_S = 0.02
_RETRY_MAX_S = 0.5
# The raft process keeps the deadline; this much later the client stops believing that it does.
_GRACE_S = 0.5
_STATUS_TIMEOUT_S = 5.0
_READ_AHEAD_BYTES = 4 << 20


class _LostError(Exception):
    """The connection broke after the call was sent."""


class LogClient:
    """Implements `ports.Log` and `ports.LogAdmin`. Use from one event loop; `aclose` when done."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._channel: _Channel | None = None
        self._connecting = asyncio.Lock()

    async def aclose(self) -> None:
        if self._channel is not None:
            self._channel.abort()
            self._channel = None

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        """See `ports.Log.append`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        channel = await self._connected(deadline)
        remaining = deadline - asyncio.get_running_loop().time()
        try:
            answer = await channel.call(rpc.AppendCall(channel.number(), entry, remaining), deadline + _GRACE_S)
        except (TimeoutError, _LostError) as error:
            raise OutcomeUnknownError(f"the raft process did not answer: {error or 'timeout'}") from None
        assert isinstance(answer, rpc.AppendAnswer)
        return Position(answer.index, answer.term)

    async def read_index(self, *, timeout_s: float) -> int:
        """See `ports.Log.read_index`."""
        answer = await self._ask(rpc.ReadIndexCall, timeout_s)
        assert isinstance(answer, rpc.ReadIndexAnswer)
        return answer.index

    async def confirm_leadership(self, *, timeout_s: float) -> Led:
        """See `ports.Log.confirm_leadership`."""
        answer = await self._ask(rpc.ConfirmLeadershipCall, timeout_s)
        assert isinstance(answer, rpc.ConfirmLeadershipAnswer)
        return Led(answer.index, Reign(answer.term, answer.incarnation))

    async def _ask(
        self, make: Callable[[int, float], rpc.ReadIndexCall | rpc.ConfirmLeadershipCall], timeout_s: float
    ) -> rpc.Answer:
        """The answer to a call that changes nothing: repeated when its connection broke."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            channel = await self._connected(deadline)
            remaining = deadline - asyncio.get_running_loop().time()
            try:
                return await channel.call(make(channel.number(), remaining), deadline + _GRACE_S)
            except TimeoutError:
                raise NoLeaderError("the raft process did not answer in time") from None
            except _LostError:
                continue

    async def status(self) -> LogStatus:
        """See `ports.Log.status`. Raises NoLeaderError when the raft process does not answer."""
        deadline = asyncio.get_running_loop().time() + _STATUS_TIMEOUT_S
        while True:
            channel = await self._connected(deadline)
            try:
                answer = await channel.call(rpc.StatusCall(channel.number()), deadline)
            except TimeoutError:
                raise NoLeaderError("the raft process did not answer in time") from None
            except _LostError:
                continue
            assert isinstance(answer, rpc.StatusAnswer)
            return answer.status

    async def add_member(self, member: Member, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.add_member`."""
        await self._administer(lambda call, left_s: rpc.AddMemberCall(call, member, left_s), timeout_s)

    async def promote_member(self, node: str, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.promote_member`."""
        await self._administer(lambda call, left_s: rpc.PromoteMemberCall(call, node, left_s), timeout_s)

    async def remove_member(self, node: str, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.remove_member`."""
        await self._administer(lambda call, left_s: rpc.RemoveMemberCall(call, node, left_s), timeout_s)

    async def transfer_leadership(self, target: str | None, *, timeout_s: float) -> str:
        """See `ports.LogAdmin.transfer_leadership`."""
        return await self._administer(lambda call, left_s: rpc.TransferCall(call, target, left_s), timeout_s)

    async def _administer(self, make: Callable[[int, float], rpc.AdminCall], timeout_s: float) -> str:
        """Make the call once; the leader it answers with, for a transfer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        channel = await self._connected(deadline)
        try:
            answer = await channel.call(make(channel.number(), deadline - loop.time()), deadline + _GRACE_S)
        except (TimeoutError, _LostError) as error:
            raise OutcomeUnknownError(f"the raft process did not answer: {error or 'timeout'}") from None
        assert isinstance(answer, rpc.DoneAnswer)
        return answer.leader

    async def _connected(self, deadline: float) -> _Channel:
        """The open channel. Raises NoLeaderError at the deadline: nothing was sent."""
        channel = self._channel
        if channel is not None and channel.open:
            return channel
        loop = asyncio.get_running_loop()
        delay = _RETRY_MIN_S
        try:
            async with asyncio.timeout_at(deadline), self._connecting:
                while True:
                    if self._channel is not None and self._channel.open:
                        return self._channel
                    try:
                        _, self._channel = await loop.create_unix_connection(_Channel, str(self._path))
                    except OSError:
                        await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                        delay = min(2 * delay, _RETRY_MAX_S)
        except TimeoutError:
            raise NoLeaderError(f"the raft process at {self._path} cannot be reached") from None

    async def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        """See `ports.Log.follow`. Goes on by itself after the raft process restarted."""
        position = after
        delay = _RETRY_MIN_S
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_READ_AHEAD_BYTES)
            except OSError:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                delay = min(2 * delay, _RETRY_MAX_S)
                continue
            try:
                writer.write(encode_frame(rpc.Follow(position)))
                async for item, chunks in _read_stream(reader):
                    delay = _RETRY_MIN_S
                    yield item
                    if chunks is not None and not chunks.complete:
                        raise ConnectionError("a snapshot was not read to its end")
                    position = item.index
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                delay = min(2 * delay, _RETRY_MAX_S)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()


_Item = tuple[Committed | SnapshotInstalled, Chunks | None]
"""An item of the log, and its chunks if it is a snapshot."""


async def _read_stream(reader: asyncio.StreamReader) -> AsyncIterator[_Item]:
    """The items of a followed log. Raises IncompleteReadError or OSError when the connection ends."""
    while True:
        item = await _read_item(reader)
        match item:
            case rpc.Entries():
                for index, term, data in item.entries:
                    yield Committed(index, term, data), None
            case rpc.SnapshotBegin():
                chunks = Chunks(_read_chunks(reader, item.chunks))
                yield SnapshotInstalled(item.index, item.term, item.header, item.chunks, chunks), chunks
            case rpc.SnapshotChunks():
                raise ConnectionError("a snapshot chunk out of place")


async def _read_chunks(reader: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
    """Raises SnapshotInterruptedError when they do not all come."""
    left = count
    while left:
        try:
            item = await _read_item(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise SnapshotInterruptedError(f"the raft process broke off: {error}") from None
        if not isinstance(item, rpc.SnapshotChunks) or not 0 < len(item.chunks) <= left:
            raise SnapshotInterruptedError("the raft process sent something else than chunks")
        left -= len(item.chunks)
        for chunk in item.chunks:
            yield chunk
        # What is buffered already is read without waiting for anything: let others have a turn.
        await asyncio.sleep(0)


async def _read_item(reader: asyncio.StreamReader) -> rpc.StreamItem:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > rpc.MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame of {length} bytes")
    return rpc.stream_decoder.decode(await reader.readexactly(length))


class _Channel(asyncio.Protocol):
    """One connection with its open calls."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(rpc.MAX_FRAME_BYTES)
        self._last_number = 0
        self._calls: dict[int, asyncio.Future[rpc.Answer]] = {}
        self._writable = asyncio.Event()
        self._writable.set()

    def number(self) -> int:
        self._last_number += 1
        return self._last_number

    async def call(
        self,
        request: rpc.AppendCall | rpc.ReadIndexCall | rpc.ConfirmLeadershipCall | rpc.StatusCall | rpc.AdminCall,
        deadline: float,
    ) -> rpc.Answer:
        """The answer. Raises LogError as the raft process said, TimeoutError, or _LostError."""
        future: asyncio.Future[rpc.Answer] = asyncio.get_running_loop().create_future()
        self._calls[request.call] = future
        try:
            async with asyncio.timeout_at(deadline):
                if not self._writable.is_set():
                    await self._writable.wait()
                if not self.open:
                    raise _LostError("the connection is closed")
                cast("asyncio.Transport", self._transport).write(encode_frame(request))
                answer = await future
        finally:
            del self._calls[request.call]
        if isinstance(answer, rpc.Failed):
            raise _ERRORS[answer.error](answer.text)
        return answer

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._writable.set()
        for future in self._calls.values():
            if not future.done():
                future.set_exception(_LostError("the connection to the raft process broke"))

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._decoder.feed(data):
                answer = rpc.answer_decoder.decode(body)
                future = self._calls.get(answer.call)
                if future is not None and not future.done():
                    future.set_result(answer)
        except DECODE_ERRORS:
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
