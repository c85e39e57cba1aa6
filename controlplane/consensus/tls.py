"""Mutual TLS between peers: who the other end is comes from its certificate alone.

Both ends present a certificate of the cluster's CA whose SAN holds exactly one URI `flintlock://node/<id>`. Host
names are not checked: nodes move between addresses, and the identity in the certificate says more.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from controlplane.consensus.errors import CertificateError
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import party_from_peercert, require


@dataclass(frozen=True, slots=True)
class TlsContexts:
    accept: ssl.SSLContext
    dial: ssl.SSLContext


def load_contexts(files: TlsFiles) -> TlsContexts:
    """TLS 1.3 contexts for both directions. Raises OSError (ssl.SSLError included) when a file is unusable."""
    accept = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accept.num_tickets = 0
    dial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dial.check_hostname = False
    for context in (accept, dial):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=files.ca)
        context.load_cert_chain(files.certificate, files.key)
    return TlsContexts(accept, dial)


def check_validity(files: TlsFiles, now: datetime) -> None:
    """Raise CertificateError when a certificate is out of date: every peer would refuse it, each in its own words."""
    for path in (files.ca, files.certificate):
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except ValueError as error:
            raise CertificateError(f"{path}: not a PEM certificate ({error})") from error
        for certificate in certificates:
            name = certificate.subject.rfc4514_string()
            if certificate.not_valid_after_utc < now:
                raise CertificateError(
                    f"{path}: the certificate of {name} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} "
                    "UTC; issue a new one, or set the clock right"
                )
            if certificate.not_valid_before_utc > now:
                raise CertificateError(
                    f"{path}: the certificate of {name} is not valid before "
                    f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is the clock right?"
                )


def peer_identity(connection: ssl.SSLObject | ssl.SSLSocket) -> str:
    """The node id in the verified certificate of the other end. Raises IdentityError."""
    return require(party_from_peercert(connection.getpeercert()), "node")
