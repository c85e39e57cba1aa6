"""Keeps this node's own certificate valid: it signs for itself, through the log like for everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from controlplane.identity import issuing, renewing
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError
from controlplane.machine.outcome import Rejected
from controlplane.model.credentials import MemberKind, holder_key
from controlplane.ports import Clock, LogError, StateReader
from controlplane.ports.issuance import Applicant, Issuer, NoAuthorityError, Presented

RETRY_S = 30.0
LONGEST_WAIT_S = 600.0
"""The clock may be set, and the file replaced, meanwhile."""
_log = structlog.get_logger(__name__)


class NodeRenewal:
    def __init__(
        self, node: str, files: TlsFiles, addresses: Sequence[str], issuer: Issuer, reader: StateReader, clock: Clock
    ) -> None:
        """`addresses`: at which this node is dialled."""
        self._node = node
        self._files = files
        self._addresses = tuple(addresses)
        self._issuer = issuer
        self._reader = reader
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._left_s() <= 0 or not await self._is_known():
                    await self._renew()
                left_s = self._left_s()
            except (IdentityError, LogError, NoAuthorityError, OSError) as error:
                _log.warning("certificate.not_renewed", reason=str(error) or type(error).__name__)
                left_s = self._retry_s()
            await asyncio.sleep(min(max(left_s, 1.0), LONGEST_WAIT_S))

    def _retry_s(self) -> float:
        """Often enough to be tried some times before the certificate expires."""
        try:
            ends_s = renewing.load(self._files).not_valid_after_utc.timestamp() - self._clock.now_ms() / 1000
        except IdentityError:
            return RETRY_S
        return min(ends_s / 10, RETRY_S)

    async def _is_known(self) -> bool:
        """The state has this node's certificate: else nobody could take it back by the node's name."""
        state = await self._reader.fresh()
        holder = state.holders.get(holder_key(MemberKind.NODE, self._node))
        serial = issuing.serial_text(renewing.load(self._files))
        return holder is not None and any(each.serial == serial for each in holder.certificates)

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
