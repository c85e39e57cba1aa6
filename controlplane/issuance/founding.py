"""The authority of a new cluster, from the file that `flintctl init` wrote into the state.

The file holds what the state will hold: the certificate, and the key sealed with the node's key ring. It stays beside
the node's settings: with it a node can be given a certificate while the cluster is down (`flintctl node certify`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import structlog
from cryptography import x509
from pydantic import BaseModel, ConfigDict, ValidationError

from controlplane.identity import issuing
from controlplane.identity.names import IdentityError
from controlplane.issuance.issuer import purpose
from controlplane.machine.outcome import Rejected
from controlplane.model.commands import EstablishAuthority
from controlplane.model.credentials import Sealed
from controlplane.ports import LogError, Proposer, StateReader
from controlplane.sealing import KeyRing, SealingError

RETRY_S = 1.0
_log = structlog.get_logger(__name__)


class _SealedKey(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: str
    wrapped: str
    box: str


class AuthorityFile(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    certificate: str
    key: _SealedKey

    @classmethod
    def of(cls, certificate: str, key: Sealed) -> AuthorityFile:
        return cls(certificate=certificate, key=_SealedKey(key_id=key.key_id, wrapped=key.wrapped, box=key.box))

    @classmethod
    def load(cls, path: Path) -> AuthorityFile:
        """Raises IdentityError naming the file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise IdentityError(f"{path}: the authority's file cannot be read: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise IdentityError(f"{path}: /{'/'.join(map(str, first['loc']))}: {first['msg']}") from None

    @property
    def sealed(self) -> Sealed:
        return Sealed(key_id=self.key.key_id, wrapped=self.key.wrapped, box=self.key.box)

    @property
    def fingerprint(self) -> str:
        """Raises IdentityError."""
        try:
            return issuing.fingerprint(x509.load_pem_x509_certificate(self.certificate.encode()))
        except ValueError as error:
            raise IdentityError(f"/certificate: {error}") from None

    def issuer(self, ring: KeyRing) -> issuing.Issuer:
        """Raises IdentityError."""
        try:
            key = ring.open(self.sealed, purpose(self.fingerprint))
        except SealingError as error:
            raise IdentityError(str(error)) from None
        return issuing.load_issuer(self.certificate.encode(), key)


def new_authority(issuer: issuing.Issuer, ring: KeyRing) -> AuthorityFile:
    """`issuer` as its file holds it."""
    sealed = ring.seal(issuing.key_pem(issuer.key), purpose(issuing.fingerprint(issuer.certificate)))
    return AuthorityFile.of(issuing.certificate_pem(issuer.certificate).decode(), sealed)


async def establish(file: AuthorityFile, reader: StateReader, proposer: Proposer) -> None:
    """Until the state has an authority."""
    command = EstablishAuthority(fingerprint=file.fingerprint, certificate=file.certificate, key=file.sealed)
    while True:
        try:
            state = await reader.fresh()
            if len(state.authorities):
                return
            outcome = await proposer.propose(command, actor="init")
        except LogError:
            pass
        else:
            if not isinstance(outcome, Rejected):
                _log.info("authority.established", fingerprint=file.fingerprint)
            return
        await asyncio.sleep(RETRY_S)
