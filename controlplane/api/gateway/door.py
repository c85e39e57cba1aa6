"""The gateway's listener: a gRPC server with the certificates of the files, and another one after they were replaced.

gRPC for Python can ask for certificates at each handshake, and crashes when hundreds of agents dial at once. So the
credentials of a server never change. Once the files did, the server stops listening and goes on for the sessions that
it has, however long they last, and another one takes its place at the same port. Whoever dials in the instant between
is refused and dials again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import structlog
from grpc import aio

from controlplane.identity.check import check
from controlplane.identity.files import TlsFiles
from controlplane.identity.reloading import PERIOD_S, stamp

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
SESSIONS_LAST_S = 10 * 365 * 86_400.0
_AGAIN_S = 0.02


class DoorError(Exception):
    """The certificates cannot be read, or the port cannot be had."""


class Door:
    """`furnish` adds the services to a new server."""

    def __init__(
        self, listen: str, tls: TlsFiles, options: list[tuple[str, Any]], furnish: Callable[[aio.Server], None]
    ) -> None:
        self._listen = listen
        self._tls = tls
        self._options = options
        self._furnish = furnish
        self._known = stamp(tls)
        self._server: aio.Server | None = None
        self._retired: dict[aio.Server, asyncio.Task[None]] = {}
        self.port = 0
        """The bound one, once open; `listen` may have asked for any."""

    async def open(self) -> None:
        """Raises DoorError."""
        self._known = stamp(self._tls)
        self._server = await self._opened(self._listen)

    async def follow(self) -> None:
        """Listen with the files as they are, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            if (found := stamp(self._tls)) == self._known:
                continue
            # Of several files some may be new and others not yet: then what is in use stays in use.
            if faults := check(self._tls, datetime.now(UTC)):
                log.warning("certificates not reloaded", reason="; ".join(why for _, why in faults))
                continue
            self._known = found
            await self._reopen()

    async def close(self, grace_s: float) -> None:
        """Returns when every connection is closed."""
        for server, waiting in self._retired.items():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await server.stop(grace_s)
        self._retired = {}
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    async def _reopen(self) -> None:
        if (old := self._server) is not None:
            self._server = None
            self._retired = {server: task for server, task in self._retired.items() if not task.done()}
            self._retired[old] = asyncio.create_task(old.stop(SESSIONS_LAST_S))
        host, _, _ = self._listen.rpartition(":")
        while self._server is None:
            # The port is free once the other one has stopped listening.
            await asyncio.sleep(_AGAIN_S)
            try:
                self._server = await self._opened(f"{host}:{self.port}")
            except DoorError as error:
                log.info("not listening yet", reason=str(error))
        log.info("listening with other certificates", listen=self._listen)

    async def _opened(self, listen: str) -> aio.Server:
        credentials = self._credentials()
        server = aio.server(options=self._options)
        self._furnish(server)
        try:
            self.port = server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise DoorError(f"listen: {listen} cannot be bound: {error}") from error
        await server.start()
        return server

    def _credentials(self) -> grpc.ServerCredentials:
        """Clients have to show a certificate. Raises DoorError."""
        try:
            pair = self._tls.key.read_bytes(), self._tls.certificate.read_bytes()
            return grpc.ssl_server_credentials([pair], self._tls.ca.read_bytes(), require_client_auth=True)
        except OSError as error:
            raise DoorError(f"tls: {error}") from error
