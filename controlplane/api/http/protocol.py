"""HTTP/1.1 as uvicorn speaks it with httptools, with a bound on everything that is not a body.

The parser keeps a header until it is whole and every header until the request is done, however many come; h11 has a
bound of its own. Here it is counted what came since the last piece of a body or the end of a request: that is what a
line, headers, trailers and the frames of chunks can hold. Bodies are the application's to bound.

What is written in one turn of the event loop leaves together: an answer's head and body are one record and one packet.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
"""More than this, and what a single read may add, is never kept."""
_REFUSAL = "The head of the request is too large."


class BoundedProtocol(HttpToolsProtocol):
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(Gathering(transport))

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.logger.warning(_REFUSAL)
            self.send_400_response(_REFUSAL)

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
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
