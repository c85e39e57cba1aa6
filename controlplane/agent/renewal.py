"""Keeps the host's certificate valid, beside the session and without touching it.

When two thirds of its validity are over, the node of the present session is asked for another one, over a connection of
its own that shows the certificate as it is then: the session's connection showed an older one after the first renewal.
The new file counts from the next connection on; the session goes on as it is.

The node also says whom to trust, and to renew at once when another authority signs. It says so again until a request
has shown it a certificate of that authority, so a host that missed something is asked anew.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc
import structlog
from grpc import aio

from controlplane.agent.dialling import OPTIONS, credentials
from controlplane.identity import renewing, trust
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError
from controlplane.ports import Clock
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

TIMEOUT_S = 10.0
LONGEST_WAIT_S = 600.0
"""The clock may be set, and the file replaced, meanwhile."""
RETRY_S = 30.0
NOT_OFFERED_S = LONGEST_WAIT_S
_NOT_OFFERED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED)
"""The cluster's certificates come from elsewhere, or the node is older."""
log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class CertificateRenewal:
    def __init__(self, files: TlsFiles, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._asked = asyncio.Event()
        """The node said to renew."""

    def trust(self, told: wire.Trust) -> None:
        """What a node says that is wrong changes nothing."""
        try:
            if trust.follow(self._files, told.authorities, told.retired):
                log.info("other authorities are trusted", retired=len(told.retired))
        except (IdentityError, OSError) as error:
            log.warning("authorities not taken", reason=str(error))
            return
        if told.renew:
            self._asked.set()

    async def keep(self, address: str) -> None:
        """Until cancelled; `address` is the gateway of the session's node."""
        while True:
            try:
                left_s = await self._look(address)
            except (IdentityError, OSError) as error:
                log.warning("certificate not renewed", reason=str(error))
                left_s = RETRY_S
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(left_s, 0.5), LONGEST_WAIT_S)):
                    await self._asked.wait()

    async def _look(self, address: str) -> float:
        """Renew it if it is due or asked for; gives the seconds until the next look. Raises IdentityError, OSError."""
        if (left_s := self._left_s()) > 0 and not self._asked.is_set():
            return left_s
        self._asked.clear()
        try:
            await self._renew(address)
        except aio.AioRpcError as error:
            log.warning("certificate not renewed", reason=f"{error.code().name}: {error.details()}")
            return NOT_OFFERED_S if error.code() in _NOT_OFFERED else self._retry_s()
        return self._left_s()

    def _left_s(self) -> float:
        """Raises IdentityError."""
        return renewing.due_at(renewing.load(self._files)).timestamp() - self._clock.now_ms() / 1000

    def _retry_s(self) -> float:
        """Often enough to be tried some times before the certificate expires."""
        ends_s = renewing.load(self._files).not_valid_after_utc.timestamp() - self._clock.now_ms() / 1000
        return min(max(ends_s / 10, 0.5), RETRY_S)

    async def _renew(self, address: str) -> None:
        """Raises AioRpcError, IdentityError, OSError."""
        request = wire.RenewRequest(csr=renewing.request(self._files))
        async with aio.secure_channel(address, credentials(self._files), options=OPTIONS) as channel:
            reply = await rpc.AgentGatewayStub(channel).Renew(request, timeout=TIMEOUT_S)
        renewing.adopt(self._files, reply.certificate, reply.authorities)
        log.info("certificate renewed", expires_at=reply.expires_at_ms)
