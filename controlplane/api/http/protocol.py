"""HTTP/1.1 as uvicorn speaks it with httptools, with a bound on everything that is not a body.

The parser keeps a header until it is whole and every header until the request is done, however many come; h11 has a
bound of its own. Here it is counted what came since the last piece of a body or the end of a request: that is what a
line, headers, trailers and the frames of chunks can hold. Bodies are the application's to bound.

Whoever is connected has a time for each head, from its first byte on or from when he connected, however slowly he goes
on: uvicorn's own timer ends with the first byte that comes, also with one of a body that was refused long ago. Bodies
have a time of their own (`limits`). Connections are counted, all of them and by address.

What is written in one turn of the event loop leaves together: an answer's head and body are one record and one packet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from controlplane.api.http.asgi import WHOLE

MAX_HEAD_BYTES = 64 << 10
"""More than this, and what a single read may add, is never kept."""
_REFUSAL = "The head of the request is too large."


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Generous: a pipeline has a connection for each of its parallel requests."""

    connections: int = 4096
    per_address: int = 1024
    head_timeout_s: float = 15.0


class BoundedProtocol(HttpToolsProtocol):
    limits = ConnectionLimits()
    _head = 0
    _deadline: asyncio.TimerHandle | None = None
    """Of the head that is on its way."""

    @classmethod
    def within(cls, limits: ConnectionLimits) -> type[BoundedProtocol]:
        """The protocol with other limits than the default ones."""
        return type(cls.__name__, (cls,), {"limits": limits})

    @property
    def address(self) -> str | None:
        """The other end's, without its port."""
        return self.client[0] if self.client is not None else None

    @property
    def _is_serving(self) -> bool:
        # uvicorn declares it without the None that it begins with.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(Gathering(transport))
        others = cast("set[BoundedProtocol]", self.connections)
        same = sum(1 for each in others if each.address == self.address)
        if len(self.connections) > self.limits.connections or same > self.limits.per_address:
            self.logger.debug("Too many connections: one more was refused.")
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        if self._deadline is None and not self._is_serving:
            self._expect_head()
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.logger.warning(_REFUSAL)
            self.send_400_response(_REFUSAL)

    def on_headers_complete(self) -> None:
        self._have_head()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self.limits.head_timeout_s, self._too_slow)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        cast("dict[str, object]", self.scope)[WHOLE] = True
        super().on_message_complete()


class Gathering(asyncio.Transport):
    """What uvicorn uses of `below`, with fewer writes."""

    def __init__(self, below: asyncio.Transport) -> None:
        super().__init__()
        self._below = below
        self._written: list[bytes] = []
        self.get_extra_info = below.get_extra_info
        self.is_closing = below.is_closing
        self.pause_reading = below.pause_reading
        self.resume_reading = below.resume_reading
        self.abort = below.abort

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._written:
            asyncio.get_running_loop().call_soon(self._flush)
        self._written.append(bytes(data))

    def close(self) -> None:
        self._flush()
        self._below.close()

    def _flush(self) -> None:
        if self._written:
            data = b"".join(self._written)
            self._written.clear()
            self._below.write(data)
