"""HTTP/1.1 as uvicorn speaks it with httptools, with a bound on everything that is not a body.

The parser keeps a header until it is whole and every header until the request is done, however many come; h11 has a
bound of its own. Here what stands in heads and trailers is counted, with what the parser has taken in and not handed
on yet. Bodies are the application's to bound.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
"""Of a request's line, headers and trailers."""
_REFUSAL = "The head of the request is too large."


class BoundedProtocol(HttpToolsProtocol):
    _head = 0
    """Bytes of the line, the headers and the trailers so far."""
    _pending = 0
    """Bytes since the parser last handed anything on."""

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._head + self._pending > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.logger.warning(_REFUSAL)
            self.send_400_response(_REFUSAL)

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name)
        self._count(value)
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = self._pending = 0
        super().on_message_complete()

    def _count(self, part: bytes) -> None:
        self._pending = 0
        self._head += len(part)
