"""Keeps this node's own certificate valid: it signs for itself, through the log like for everybody else.

Its files follow the state, too: whom it trusts, and the authority that signs while the cluster is down. When another
authority signs, the certificate is renewed at once, and once more: by the second request the state knows that the first
certificate lies here (`machine.authorities`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog
from cryptography import x509

from controlplane.identity import issuing, renewing, storage, trust
from controlplane.identity.check import issued_by
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError
from controlplane.issuance.founding import AuthorityFile
from controlplane.machine import authorities
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.credentials import ClusterAuthority, MemberKind, holder_key
from controlplane.ports import Clock, LogError, StateReader
from controlplane.ports.issuance import Applicant, Issuer, NoAuthorityError, Presented

LOOK_S = 1.0
"""How often the state is asked whether another authority signs."""
RETRY_S = 5.0
LONGEST_WAIT_S = 600.0
"""The clock may be set, and the file replaced, meanwhile."""
_log = structlog.get_logger(__name__)


class NodeRenewal:
    def __init__(
        self,
        node: str,
        files: TlsFiles,
        authority_file: Path,
        addresses: Sequence[str],
        issuer: Issuer,
        reader: StateReader,
        clock: Clock,
    ) -> None:
        """`addresses`: at which this node is dialled."""
        self._node = node
        self._files = files
        self._authority_file = authority_file
        self._addresses = tuple(addresses)
        self._issuer = issuer
        self._reader = reader
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._reader.state.authorities
            try:
                left_s = await self._look()
            except (IdentityError, LogError, NoAuthorityError, OSError) as error:
                _log.warning("certificate.not_renewed", reason=str(error) or type(error).__name__)
                left_s = self._retry_s()
            await self._pause(min(max(left_s, LOOK_S), LONGEST_WAIT_S), seen)

    async def _look(self) -> float:
        """Gives the seconds until the next one. Raises IdentityError, LogError, NoAuthorityError, OSError."""
        state = await self._reader.fresh()
        if not (present := authorities.trusted(state)):
            raise NoAuthorityError("the state has no authority yet")
        self._follow(state, present[0])
        if (
            self._left_s() <= 0
            or not self._is_known(state)
            or not self._is_of(present[0])
            or self._is_waited_for(state)
        ):
            await self._renew()
        return 0.0 if self._is_waited_for(self._reader.state) else self._left_s()

    async def _pause(self, longest_s: float, seen: Table[ClusterAuthority]) -> None:
        """Until then, or until the authorities are others than `seen`."""
        ends_s = self._clock.monotonic_s() + longest_s
        while (left_s := ends_s - self._clock.monotonic_s()) > 0:
            if self._reader.state.authorities is not seen:
                return
            await asyncio.sleep(min(left_s, LOOK_S))

    def _follow(self, state: State, signs: ClusterAuthority) -> None:
        """Raises IdentityError, OSError."""
        trusted = "".join(each.certificate for each in authorities.trusted(state))
        if trust.follow(self._files, trusted, authorities.retired_fingerprints(state)):
            _log.info("authorities.trusted", signs=signs.fingerprint)
        file = AuthorityFile.of(signs.certificate, signs.key)
        try:
            if AuthorityFile.load(self._authority_file) != file:
                storage.replace(self._authority_file, file.model_dump_json(indent=2).encode(), mode=0o600)
        except (IdentityError, OSError) as error:  # no reason to let the certificate expire
            _log.warning("authority.not_kept", reason=str(error))

    def _retry_s(self) -> float:
        """Often enough to be tried some times before the certificate expires."""
        try:
            ends_s = renewing.load(self._files).not_valid_after_utc.timestamp() - self._clock.now_ms() / 1000
        except IdentityError:
            return RETRY_S
        return min(ends_s / 10, RETRY_S)

    def _is_known(self, state: State) -> bool:
        """The state has this node's certificate: else nobody could take it back by the node's name."""
        holder = state.holders.get(holder_key(MemberKind.NODE, self._node))
        serial = issuing.serial_text(renewing.load(self._files))
        return holder is not None and any(each.serial == serial for each in holder.certificates)

    def _is_of(self, authority: ClusterAuthority) -> bool:
        return issued_by(renewing.load(self._files), x509.load_pem_x509_certificate(authority.certificate.encode()))

    def _is_waited_for(self, state: State) -> bool:
        return authorities.waits_for(state, MemberKind.NODE, self._node, self._clock.now_ms())

    def _left_s(self) -> float:
        return renewing.due_at(renewing.load(self._files)).timestamp() - self._clock.now_ms() / 1000

    async def _renew(self) -> None:
        """Raises IdentityError, LogError, NoAuthorityError, OSError."""
        applicant = Applicant(
            kind=MemberKind.NODE, name=self._node, csr=renewing.request(self._files), addresses=self._addresses
        )
        old = renewing.load(self._files)
        presented = Presented(issuing.serial_text(old), round(old.not_valid_after_utc.timestamp() * 1000))
        issued = await self._issuer.renew(applicant, presented)
        if isinstance(issued, Rejected):
            raise IdentityError(issued.message)
        renewing.adopt(self._files, issued.certificate, issued.authorities)
        _log.info("certificate.renewed", serial=issued.serial, expires_at=issued.expires_at)
