"""A member's certificate and its successor: when it is due, and how it takes its place.

A certificate is renewed at two thirds of its validity, for the same key, so that a single file is replaced: there is no
moment at which the certificate and the key on disk do not belong together. Whoever wants another key joins anew.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.identity import issuing, storage, trust
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, party_from_certificate


def load(files: TlsFiles) -> x509.Certificate:
    """The certificate in use. Raises IdentityError."""
    try:
        return x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise IdentityError(f"{files.certificate}: {error}") from None


def due_at(certificate: x509.Certificate) -> datetime:
    """When it is to be renewed."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins + (ends - begins) * 2 / 3


def request(files: TlsFiles) -> bytes:
    """A signing request of the key in use. Raises IdentityError."""
    try:
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise IdentityError(f"{files.key}: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{files.key}: not an EC key")
    return issuing.signing_request(key)


def adopt(files: TlsFiles, certificate: str, authorities: str) -> None:
    """Put a new certificate in the place of the old, once its authority is trusted. Raises IdentityError, OSError.

    `certificate` is PEM, and may be followed by what leads from it to an authority that others know.
    """
    old = load(files)
    try:
        new = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as error:
        raise IdentityError(f"what was issued is no certificate: {error}") from None
    if new.public_key() != old.public_key() or party_from_certificate(new) != party_from_certificate(old):
        raise IdentityError("what was issued is for another key, or another name")
    trust.follow(files, authorities)
    storage.replace(files.certificate, certificate.encode(), mode=0o644)
