"""TLS over a plain asyncio transport, so that a stranger's handshake costs what OpenSSL needs and no more.

asyncio's own TLS allots a quarter of a megabyte to every connection before anything is known of the other end, in
objects that refer to each other; with a collector that seldom makes a full pass (see `bootstrap.process`), a crowd of
strangers leaves hundreds of megabytes behind. Here everything heavy is let go when the connection ends.

The inner protocol sees a transport once the handshake has succeeded, and `connection_lost` in any case.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import cast

_READ_BYTES = 256 << 10


class SecureStream(asyncio.Transport, asyncio.Protocol):
    """The protocol of the plain transport below and the transport of the protocol above."""

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol, *, server_side: bool) -> None:
        super().__init__()
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._below: asyncio.Transport | None = None
        self._ready = False
        self._error: Exception | None = None

    @property
    def was_connected(self) -> bool:
        return self._below is not None

    # -- asyncio.Protocol, from below ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast("asyncio.Transport", transport)
        self._advance()

    def data_received(self, data: bytes) -> None:
        if self._tls is not None:
            self._incoming.write(data)
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tls = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner.connection_lost(self._error or exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _advance(self) -> None:
        """Go on with the handshake, or hand up what can be read by now."""
        assert self._tls is not None
        try:
            if not self._ready:
                self._tls.do_handshake()
                self._ready = True
                self._flush()
                self._inner.connection_made(self)
            self._read()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            # The alert that says why is in the buffer.
            self._flush()
            self._error = error
            self._close_below()

    def _read(self) -> None:
        parts: list[bytes] = []
        ended = False
        try:
            while self._tls is not None and not ended:
                part = self._tls.read(_READ_BYTES)
                parts.append(part)
                ended = not part
        finally:
            if parts and not self.is_closing():
                self._inner.data_received(b"".join(parts))
            if ended:
                self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._below is not None:
            self._below.write(self._outgoing.read())

    # -- asyncio.Transport, for above ----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._tls is None or self.is_closing():
            return
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def get_extra_info(self, name: str, default: object = None) -> object:
        if name == "ssl_object":
            return self._tls
        return default if self._below is None else self._below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._below is None or self._below.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return 0 if self._below is None else self._below.get_write_buffer_size()

    def close(self) -> None:
        """Say goodbye and close once what was written has left."""
        if self._tls is not None and self._ready and not self.is_closing():
            # The other end's goodbye is not waited for.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self._close_below()

    def _close_below(self) -> None:
        if self._below is not None:
            self._below.close()

    def abort(self) -> None:
        if self._below is not None:
            self._below.abort()
