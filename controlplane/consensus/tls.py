"""Mutual TLS between peers: who the other end is comes from its certificate alone.

Both ends present a certificate of the cluster's CA whose SAN holds exactly one URI `flintlock://node/<id>`. Host
names are not checked: nodes move between addresses, and the identity in the certificate says more.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import cast

from controlplane.identity.files import TlsFiles

URI_PREFIX = "flintlock://node/"


class PeerIdentityError(Exception):
    """The peer's certificate does not name the node it should."""


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


def peer_identity(connection: ssl.SSLObject | ssl.SSLSocket) -> str:
    """The node id in the verified certificate of the other end. Raises PeerIdentityError."""
    certificate = connection.getpeercert() or {}
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    nodes = [value.removeprefix(URI_PREFIX) for kind, value in names if kind == "URI" and value.startswith(URI_PREFIX)]
    if len(nodes) != 1:
        raise PeerIdentityError(f"the certificate names {len(nodes)} nodes, expected one {URI_PREFIX}<id>")
    return nodes[0]
