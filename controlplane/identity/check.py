"""Whether TLS files can be what they are meant to be, before any handshake fails on them.

A handshake says little of why it failed, and to the other side least of all. What can be seen in the files alone is
said here, in words, by the name of the file: no PEM, a key of another certificate, a certificate of another authority
or of another party.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, Party, party_from_certificate

Fault = tuple[str, str]
"""Which of `ca`, `certificate` and `key`, and what is wrong with it."""


def check(files: TlsFiles, party: Party | None = None) -> list[Fault]:
    """What is wrong with files that exist; with `party`, also whether its authority issued the certificate to it."""
    authorities, faults = _certificates("ca", files.ca)
    chain, found = _certificates("certificate", files.certificate)
    faults += found
    key = _key(files.key)
    if key is None:
        faults.append(("key", f"{files.key} holds no PEM key without a passphrase"))
    elif chain and key.public_key() != chain[0].public_key():
        faults.append(("key", f"{files.key} is not the key of {files.certificate}"))
    if party is not None and authorities and chain:
        faults += _identity_faults(files, party, authorities, chain)
    return faults


def _identity_faults(
    files: TlsFiles, party: Party, authorities: list[x509.Certificate], chain: list[x509.Certificate]
) -> list[Fault]:
    # With intermediate authorities beside the certificate, only a handshake can tell.
    if len(chain) == 1 and not any(_issued(chain[0], authority) for authority in authorities):
        return [("certificate", f"{files.certificate} was not issued by the authority in {files.ca}")]
    try:
        owner = party_from_certificate(chain[0])
    except IdentityError as error:
        return [("certificate", f"{files.certificate}: {error}")]
    return [] if owner == party else [("certificate", f"{files.certificate} belongs to {owner}, not to {party}")]


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificates(name: str, path: Path) -> tuple[list[x509.Certificate], list[Fault]]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes()), []
    except (OSError, ValueError):
        return [], [(name, f"{path} holds no PEM certificate")]


def _key(path: Path) -> PrivateKeyTypes | None:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):  # TypeError: it has a passphrase
        return None
