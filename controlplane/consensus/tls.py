"""Mutual TLS between peers: who the other end is comes from its certificate alone.

Both ends present a certificate of the cluster's CA whose SAN holds exactly one URI, `spiffe://<cluster id>/node/<id>`.
Host names are not checked: nodes move between addresses, and the identity in the certificate says more.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from controlplane.consensus.errors import CertificateError
from controlplane.identity.check import out_of_date
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, party_from_peercert, require


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
            if (why := out_of_date(certificate, now)) is not None:
                raise CertificateError(f"{path}: {why}")


def peer_identity(connection: ssl.SSLObject | ssl.SSLSocket, cluster_id: str) -> str:
    """The node id in the verified certificate of the other end, a node of this cluster. Raises IdentityError."""
    return require(party_from_peercert(connection.getpeercert()), cluster_id, "node")


def peer_certificate(connection: ssl.SSLObject | ssl.SSLSocket) -> x509.Certificate:
    """Raises IdentityError."""
    try:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    except ValueError as error:
        raise IdentityError(f"the peer's certificate cannot be read: {error}") from None
