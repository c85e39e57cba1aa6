"""Keeps this node's own certificate valid: it signs for itself, through the log like for everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from controlplane.identity import issuing, renewing
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError
from controlplane.machine.outcome import Rejected
from controlplane.model.credentials import MemberKind
from controlplane.ports import Clock, LogError
from controlplane.ports.issuance import Applicant, Issuer, NoAuthorityError

LONGEST_WAIT_S = 600.0
"""The clock may be set, and the file replaced, meanwhile."""
_log = structlog.get_logger(__name__)


class NodeRenewal:
    def __init__(self, node: str, files: TlsFiles, addresses: Sequence[str], issuer: Issuer, clock: Clock) -> None:
        """`addresses`: at which this node is dialled."""
        self._node = node
        self._files = files
        self._addresses = tuple(addresses)
        self._issuer = issuer
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                left_s = self._left_s()
                if left_s <= 0:
                    await self._renew()
                    left_s = self._left_s()
            except (IdentityError, LogError, NoAuthorityError, OSError) as error:
                _log.warning("certificate.not_renewed", reason=str(error) or type(error).__name__)
                left_s = 0.0
            await asyncio.sleep(min(max(left_s, 1.0), LONGEST_WAIT_S))

    def _left_s(self) -> float:
        return renewing.due_at(renewing.load(self._files)).timestamp() - self._clock.now_ms() / 1000

    async def _renew(self) -> None:
        """Raises IdentityError, LogError, NoAuthorityError, OSError."""
        applicant = Applicant(
            kind=MemberKind.NODE, name=self._node, csr=renewing.request(self._files), addresses=self._addresses
        )
        presented = issuing.serial_text(renewing.load(self._files))
        issued = await self._issuer.renew(applicant, presented=presented)
        if isinstance(issued, Rejected):
            raise IdentityError(issued.message)
        renewing.adopt(self._files, issued.certificate, issued.authorities)
        _log.info("certificate.renewed", serial=issued.serial, expires_at=issued.expires_at)
