"""Whether TLS files can be what they are meant to be, before any handshake fails on them.

A handshake says little of why it failed, and to the other side least of all. What can be seen in the files alone is
said here, in words, by the name of the file: no PEM, a key of another certificate, a certificate of another authority
or of another party, one that is out of date.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from controlplane.identity import issuing
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, PartyKind, party_from_certificate, require

Fault = tuple[str, str]
"""Which of `ca`, `certificate` and `key`, and what is wrong with it."""


def check(files: TlsFiles, now: datetime) -> list[Fault]:
    """What is wrong with files that exist."""
    authorities, faults = _certificates("ca", files.ca)
    chain, found = _certificates("certificate", files.certificate)
    faults += found
    key = _key(files.key)
    if key is None:
        faults.append(("key", f"{files.key} holds no PEM key without a passphrase"))
    elif chain and key.public_key() != chain[0].public_key():
        faults.append(("key", f"{files.key} is not the key of {files.certificate}"))
    # Of several authorities, as while one takes the place of another, the old one may be out of date.
    for name, path, certificates in (("ca", files.ca, authorities[:1]), ("certificate", files.certificate, chain)):
        faults += [(name, f"{path}: {why}") for each in certificates if (why := out_of_date(each, now)) is not None]
    return faults


def check_member(
    files: TlsFiles, now: datetime, *, kind: PartyKind, name: str, cluster: str | None = None
) -> list[Fault]:
    """As `check`, and whether its authority issued the certificate to this member; of any cluster when it is None."""
    if faults := check(files, now):
        return faults
    authorities, _ = _certificates("ca", files.ca)
    chain, _ = _certificates("certificate", files.certificate)
    # With intermediate authorities beside the certificate, only a handshake can tell.
    if len(chain) == 1 and not any(issued_by(chain[0], authority) for authority in authorities):
        return [("certificate", f"{files.certificate} was not issued by the authority in {files.ca}")]
    try:
        owner = party_from_certificate(chain[0])
        require(owner, cluster or owner.cluster, kind, name)
    except IdentityError as error:
        return [("certificate", f"{files.certificate}: {error}")]
    return []


def out_of_date(certificate: x509.Certificate, now: datetime) -> str | None:
    """Why every peer would refuse it at this time, each in its own words; None where it holds."""
    name = certificate.subject.rfc4514_string()
    if certificate.not_valid_after_utc < now:
        return (
            f"the certificate of {name} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; issue a new "
            "one, or set the clock right"
        )
    if certificate.not_valid_before_utc > now:
        return (
            f"the certificate of {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is "
            "the clock right?"
        )
    return None


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def issuer_retired(certificate: x509.Certificate, retired: Iterable[str]) -> str | None:
    """Why a certificate counts no more that one of these authorities (PEM) issued; None: none of them did."""
    for pem in retired:
        if _is_issued_by(certificate, pem):
            serial = issuing.serial_text(certificate)
            return f"the authority that issued the certificate {serial} was retired"
    return None


@lru_cache(maxsize=4096)
def _is_issued_by(certificate: x509.Certificate, pem: str) -> bool:
    """Connections show the same certificates again and again, and what these are never changes."""
    return issued_by(certificate, x509.load_pem_x509_certificate(pem.encode()))


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
