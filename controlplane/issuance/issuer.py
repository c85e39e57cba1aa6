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
from controlplane.machine import authorities
from controlplane.machine.joining import UNKNOWN, objection
from controlplane.machine.outcome import Code, Rejected
from controlplane.model.commands import Join, RenewCertificate, RotateAuthority
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
        """The one before, until every node shows a certificate that is followed by what leads to the new one."""
        state, authority = self._reader.state, self._authority()
        trusted = {each.fingerprint for each in authorities.trusted(state)}
        left = authorities.waiting(state, self._clock.now_ms())
        if authority.succeeds in trusted and any(each.kind is MemberKind.NODE for each in left):
            return authority.succeeds
        return authority.fingerprint

    def authorities(self) -> str:
        self._authority()
        return "".join(each.certificate for each in authorities.trusted(self._reader.state))

    def successor(self) -> RotateAuthority:
        old, now = self._authority(), datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        new = issuing.new_issuer(self._cluster_id, now=now)
        fingerprint = issuing.fingerprint(new.certificate)
        return RotateAuthority(
            fingerprint=fingerprint,
            certificate=issuing.certificate_pem(new.certificate).decode(),
            key=self._ring.seal(issuing.key_pem(new.key), purpose(fingerprint)),
            succeeds=old.fingerprint,
            crossed=issuing.certificate_pem(self._issuer(old).cross(new.certificate, now=now)).decode(),
        )

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
        command = replace(command, serial=signed.serial, expires_at=signed.expires_at, authority=signed.authority)
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
            authority=signed.authority,
        )
        actor = f"{applicant.kind.value}:{applicant.name}"
        outcome = await self._proposer.propose(command, actor=actor, timeout_s=PROPOSE_TIMEOUT_S)
        return outcome if isinstance(outcome, Rejected) else signed

    def _sign(self, applicant: Applicant) -> Issued:
        """Raises NoAuthorityError, IdentityError."""
        public_key, authority = issuing.requested_key(applicant.csr), self._authority()
        certificate = self._issuer(authority).issue(
            Party(self._cluster_id, applicant.kind.value, applicant.name),
            public_key,
            life=timedelta(seconds=self.lives.host_s if applicant.kind is MemberKind.HOST else self.lives.node_s),
            now=datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC),
            addresses=applicant.addresses,
        )
        return Issued(
            certificate=issuing.certificate_pem(certificate).decode() + self._crossed(authority),
            authority=authority.fingerprint,
            authorities=self.authorities(),
            serial=issuing.serial_text(certificate),
            expires_at=round(certificate.not_valid_after_utc.timestamp() * 1000),
        )

    def _authority(self) -> ClusterAuthority:
        """The one that signs. Raises NoAuthorityError."""
        trusted = authorities.trusted(self._reader.state)
        if not trusted:
            raise NoAuthorityError("this cluster has no authority of its own: its certificates come from elsewhere")
        return trusted[0]

    def _crossed(self, authority: ClusterAuthority) -> str:
        """What leads from `authority` to the one before, for as long as somebody may know only that one."""
        before = self._reader.state.authorities.get(authority.succeeds)
        return authority.crossed if before is not None and before.retired_at is None else ""

    def _issuer(self, authority: ClusterAuthority) -> issuing.Issuer:
        """Raises NoAuthorityError."""
        if self._unsealed is None or self._unsealed[0] != authority.fingerprint:
            try:
                key = self._ring.open(authority.key, purpose(authority.fingerprint))
                self._unsealed = (authority.fingerprint, issuing.load_issuer(authority.certificate.encode(), key))
            except (SealingError, IdentityError) as error:
                raise NoAuthorityError(f"this node cannot sign: {error}") from None
        return self._unsealed[1]
