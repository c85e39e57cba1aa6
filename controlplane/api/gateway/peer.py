"""Who called: the one party that the client certificate of a gRPC call names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from controlplane.identity.issuing import serial_text
from controlplane.identity.names import IdentityError, Party, party_from_certificate

_CERTIFICATE = "x509_pem_cert"


@dataclass(frozen=True, slots=True)
class Caller:
    party: Party
    serial: str
    """Of the certificate that it showed, in hex."""
    expires_at_s: float
    """Of that certificate, in seconds since the Unix epoch: a connection may be older than it is valid."""
    certificate: x509.Certificate


def caller(auth_context: Mapping[str, Iterable[bytes]]) -> Caller:
    """From `ServicerContext.auth_context()`; TLS has verified the chain. Raises IdentityError."""
    certificates = tuple(auth_context.get(_CERTIFICATE, ()))
    if len(certificates) != 1:
        raise IdentityError("the caller showed no certificate")
    return _read(certificates[0])


@lru_cache(maxsize=1024)
def _read(pem: bytes) -> Caller:
    """Agents and nodes call every second with the same certificate, and what it says never changes."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError(f"not a PEM certificate: {error}") from error
    return Caller(
        party=party_from_certificate(certificate),
        serial=serial_text(certificate),
        expires_at_s=certificate.not_valid_after_utc.timestamp(),
        certificate=certificate,
    )
