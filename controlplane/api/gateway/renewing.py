"""Another certificate for a host that has one: what the gateway's `Renew` does."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from grpc import aio

from controlplane.api.gateway.access import RENEW, Doorkeeper
from controlplane.api.gateway.peer import caller
from controlplane.api.gateway.session import AgentSession
from controlplane.identity.names import IdentityError
from controlplane.machine.outcome import Rejected
from controlplane.model.credentials import MemberKind
from controlplane.ports import LogError
from controlplane.ports.issuance import Applicant, Issuer, NoAuthorityError, Presented
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

Context = aio.ServicerContext[wire.RenewRequest, wire.RenewReply]


class Renewing:
    """`issuer` None: this node signs nothing."""

    def __init__(
        self, issuer: Issuer | None, doorkeeper: Doorkeeper, session_of: Callable[[str], AgentSession | None]
    ) -> None:
        self._issuer = issuer
        self._doorkeeper = doorkeeper
        self._session_of = session_of

    async def renew(self, request: wire.RenewRequest, context: Context) -> wire.RenewReply:
        """For the host that its certificate names, and for the key that the request is signed with."""
        if (reason := self._doorkeeper.refused(context, RENEW)) is not None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
        shown = caller(context.auth_context())
        host = shown.party.name
        if self._issuer is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this node signs no certificates")
        applicant = Applicant(kind=MemberKind.HOST, name=host, csr=request.csr)
        try:
            issued = await self._issuer.renew(applicant, Presented(shown.serial, round(shown.expires_at_s * 1000)))
        except NoAuthorityError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except IdentityError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"csr: {error}")
        except LogError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error) or type(error).__name__)
        if isinstance(issued, Rejected):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, issued.message)
        session = self._session_of(host)
        # By what it shows it belongs to the session, which may be another party's of the same name.
        if session is not None and shown.serial in session.serials:
            session.serials.add(issued.serial)
        return wire.RenewReply(
            certificate=issued.certificate, authorities=issued.authorities, expires_at_ms=issued.expires_at
        )
