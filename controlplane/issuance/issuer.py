"""Signs for who joins and who renews.

A certificate is signed, then its serial is committed, and only then is it handed out. So the log orders it with
revocations and with other uses of a token, and what the log refuses nobody ever sees. The key is unsealed once per
process; whoever can read a node's key ring could do so anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from controlplane.identity import issuing, join_tokens
from controlplane.identity.names import IdentityError, Party
from controlplane.machine.joining import UNKNOWN, objection
from controlplane.machine.outcome import Code, Rejected
from controlplane.model.commands import Join, RenewCertificate
from controlplane.model.credentials import ClusterAuthority, MemberKind, Sealed
from controlplane.model.types import replace
from controlplane.ports import Clock, Proposer, StateReader
from controlplane.ports.issuance import Applicant, Issued, Lives, NoAuthorityError, Presented
from controlplane.sealing import KeyRing, SealingError

PROPOSE_TIMEOUT_S = 8.0


def purpose(fingerprint: str) -> str:
    """What the key of an authority is sealed for."""
    return f"the key of the authority {fingerprint}"


class ClusterIssuer:
    """Implements `ports.issuance.Issuer`."""

    def __init__(
        self, cluster_id: str, reader: StateReader, proposer: Proposer, clock: Clock, ring: KeyRing, lives: Lives
    ) -> None:
        self._cluster_id = cluster_id
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._ring = ring
        self.lives = lives
        self._unsealed: tuple[str, issuing.Issuer] | None = None

    def fingerprint(self) -> str:
        return self._authority().fingerprint

    def authorities(self) -> str:
        self._authority()
        found = sorted(self._reader.state.authorities.values(), key=lambda each: each.at, reverse=True)
        return "".join(each.certificate for each in found)

    def key_ring(self) -> str:
        return self._ring.document()

    def sealed(self) -> tuple[str, Sealed]:
        authority = self._authority()
        return authority.certificate, authority.key

    async def join(self, token: str, applicant: Applicant, *, macs: Sequence[str], address: str) -> Issued | Rejected:
        try:
            given = join_tokens.parse(token)
        except IdentityError:
            return Rejected(code=Code.JOIN_REFUSED, message=UNKNOWN, pointer="/token")
        # Of guesses nothing gets into the log, and nothing is signed for them.
        command = Join(
            redeems=given.id,
            sha256=given.sha256,
            role=applicant.kind,
            name=applicant.name,
            serial="",
            expires_at=0,
            macs=list(macs),
            address=address,
        )
        if (refusal := objection(self._reader.state, command, at=self._clock.now_ms())) is not None:
            return refusal
        signed = self._sign(applicant)
        command = replace(command, serial=signed.serial, expires_at=signed.expires_at)
        outcome = await self._proposer.propose(command, actor=f"join-token:{given.id}", timeout_s=PROPOSE_TIMEOUT_S)
        return outcome if isinstance(outcome, Rejected) else signed

    async def renew(self, applicant: Applicant, presented: Presented) -> Issued | Rejected:
        signed = self._sign(applicant)
        command = RenewCertificate(
            kind=applicant.kind,
            name=applicant.name,
            presented=presented.serial,
            presented_expires_at=presented.expires_at,
            serial=signed.serial,
            expires_at=signed.expires_at,
        )
        actor = f"{applicant.kind.value}:{applicant.name}"
        outcome = await self._proposer.propose(command, actor=actor, timeout_s=PROPOSE_TIMEOUT_S)
        return outcome if isinstance(outcome, Rejected) else signed

    def _sign(self, applicant: Applicant) -> Issued:
        """Raises NoAuthorityError, IdentityError."""
        public_key = issuing.requested_key(applicant.csr)
        certificate = self._issuer().issue(
            Party(self._cluster_id, applicant.kind.value, applicant.name),
            public_key,
            life=timedelta(seconds=self.lives.host_s if applicant.kind is MemberKind.HOST else self.lives.node_s),
            now=datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC),
            addresses=applicant.addresses,
        )
        return Issued(
            certificate=issuing.certificate_pem(certificate).decode(),
            authorities=self.authorities(),
            serial=issuing.serial_text(certificate),
            expires_at=round(certificate.not_valid_after_utc.timestamp() * 1000),
        )

    def _authority(self) -> ClusterAuthority:
        """The newest one. Raises NoAuthorityError."""
        newest = max(self._reader.state.authorities.values(), key=lambda each: each.at, default=None)
        if newest is None:
            raise NoAuthorityError("this cluster has no authority of its own: its certificates come from elsewhere")
        return newest

    def _issuer(self) -> issuing.Issuer:
        """Raises NoAuthorityError."""
        authority = self._authority()
        if self._unsealed is None or self._unsealed[0] != authority.fingerprint:
            try:
                key = self._ring.open(authority.key, purpose(authority.fingerprint))
                self._unsealed = (authority.fingerprint, issuing.load_issuer(authority.certificate.encode(), key))
            except (SealingError, IdentityError) as error:
                raise NoAuthorityError(f"this node cannot sign: {error}") from None
        return self._unsealed[1]
