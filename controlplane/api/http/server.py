"""The HTTPS server, inside an event loop that someone else runs.

Stopping has an order: no new connections; whoever only waits (watches, long polls) answers at once; writes in flight
finish, for `grace_s`; then what is left is cut off. uvicorn is kept from handling signals and from exiting the process:
both belong to whoever runs the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import cast

import uvicorn
from fastapi import FastAPI

from controlplane.api.http.protocol import BoundedProtocol, ConnectionLimits
from controlplane.api.http.services import Services
from controlplane.identity.files import TlsFiles

_START_S = 10.0
_BACKLOG = 1024
_KEEP_ALIVE_S = 65
"""Longer than clients pause between two requests of one run, so that they do not meet a connection just closed."""
_LINGER_S = 0.25
"""How long the last bytes of an answer may take to leave."""


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        cut = asyncio.create_task(self._cut_idle())
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
            self._abort_all()
            # Transports report their end in the loop's next round.
            await asyncio.sleep(0)

    async def _cut_idle(self) -> None:
        """A client that is idle does not answer the goodbye of TLS, and would be waited for in vain."""
        await asyncio.sleep(_LINGER_S)
        while self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)
            await asyncio.sleep(_LINGER_S)
        self._abort_all()

    def _abort_all(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class ApiServer:
    """Serves `app` over TLS at `host:port`; port 0 takes a free one, see `address`."""

    def __init__(
        self,
        app: FastAPI,
        *,
        host: str,
        port: int,
        tls: TlsFiles,
        grace_s: float = 10.0,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self.app = app
        self._limits = limits or ConnectionLimits()
        self._host = host
        self._port = port
        self._tls = tls
        self._grace_s = grace_s
        self._server: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext | None = None
        self.address: tuple[str, int] = (host, port)

    async def start(self) -> None:
        """Listening when this returns. Raises OSError (address taken, files missing) or ssl.SSLError."""
        config = uvicorn.Config(
            self.app,
            http=BoundedProtocol.within(self._limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=self._tls.certificate,
            ssl_keyfile=str(self._tls.key),
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(self._grace_s)),
        )
        config.load()
        assert config.ssl is not None
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context = config.ssl
        listener = _listen(self._host, self._port)
        bound = listener.getsockname()
        self.address = (bound[0], bound[1])
        self._server = _Uvicorn(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="api-http")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({listening, self._serving}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        if not self._server.started:
            listening.cancel()
            listener.close()
            await self.stop()
            raise OSError(f"the API could not listen at {self.address[0]}:{self.address[1]}")

    def reload_tls(self) -> None:
        """Show whoever connects from now on the certificate as it is now. Raises OSError (ssl.SSLError included)."""
        if self._context is not None:
            self._context.load_cert_chain(self._tls.certificate, self._tls.key)

    async def stop(self) -> None:
        """Returns when every connection is closed."""
        if self._server is None or self._serving is None:
            return
        cast("Services", self.app.state.services).closing.set()
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)
        self._server = self._serving = None


def _listen(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only where it is; without, each answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
