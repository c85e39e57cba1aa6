"""The name inside a certificate: a SPIFFE id.

A member's certificate carries exactly one SAN URI, `spiffe://<cluster id>/node/<id>` for a node,
`spiffe://<cluster id>/host/<name>` for a host's agent, `spiffe://<cluster id>/user/<name>` for a person or program. The
cluster's id is the trust domain: whoever is of another one is a stranger, whatever authority signed its name. That the
certificate was issued by our authority is checked by the TLS handshake; the functions here only say whose certificate
it is, from whatever form the transport hands out (PEM, DER, `ssl.getpeercert()`, gRPC's list of SANs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from cryptography import x509

from controlplane.model.types import NAME_PATTERN

PartyKind = Literal["node", "host", "user"]
SCHEME = "spiffe"
_NAME = re.compile(NAME_PATTERN)
_URI = re.compile(rf"{SCHEME}://([^/?#]+)/(node|host|user)/([^/?#]+)")


class IdentityError(Exception):
    """A certificate, key or token is not what it must be; the message says what is wrong with which."""


@dataclass(frozen=True, slots=True)
class Party:
    """Whom a certificate names. `cluster` is the trust domain in which the name means something."""

    cluster: str
    kind: PartyKind
    name: str

    @property
    def uri(self) -> str:
        return f"{trust_domain(self.cluster)}/{self.kind}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name} of cluster {self.cluster}"


def trust_domain(cluster: str) -> str:
    """The SPIFFE id of the cluster itself, which its authority's certificate carries."""
    return f"{SCHEME}://{cluster}"


def parse_uri(uri: str) -> Party:
    """The party that a SAN URI names. Raises IdentityError."""
    found = _URI.fullmatch(uri)
    if found is None or _NAME.fullmatch(found[1]) is None or _NAME.fullmatch(found[3]) is None:
        raise IdentityError(f"{uri!r} is not of the form {SCHEME}://CLUSTER/node/NAME, .../host/NAME or .../user/NAME")
    return Party(cluster=found[1], kind=cast(PartyKind, found[2]), name=found[3])


def party_from_sans(sans: Iterable[str]) -> Party:
    """The one party among subject alternative names of any type (gRPC hands them out without their types).

    Raises IdentityError when there is none, or more than one.
    """
    uris = [san for san in sans if san.startswith(f"{SCHEME}:")]
    if len(uris) != 1:
        found = "no" if not uris else f"{len(uris)}"
        raise IdentityError(f"the certificate has {found} {SCHEME}:// names; it needs exactly one")
    return parse_uri(uris[0])


def party_from_certificate(certificate: x509.Certificate) -> Party:
    """Raises IdentityError."""
    return party_from_sans(uris_of(certificate))


def uris_of(certificate: x509.Certificate) -> list[str]:
    """Its SAN URIs. Raises IdentityError."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate has no subject alternative names") from None
    return extension.value.get_values_for_type(x509.UniformResourceIdentifier)


def party_from_pem(pem: bytes) -> Party:
    """Raises IdentityError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError(f"not a PEM certificate: {error}") from error
    return party_from_certificate(certificate)


def party_from_peercert(peercert: Mapping[str, object] | None) -> Party:
    """From `ssl.SSLSocket.getpeercert()`; None or empty: the peer showed none. Raises IdentityError."""
    if not peercert:
        raise IdentityError("the peer showed no certificate")
    sans = cast(Iterable[tuple[str, str]], peercert.get("subjectAltName", ()))
    return party_from_sans(value for kind, value in sans if kind == "URI")


def require(party: Party, cluster: str, kind: PartyKind, name: str | None = None) -> str:
    """The party's name if it is what is asked for. Raises IdentityError saying who it is instead."""
    wanted = f"{kind} {name}" if name is not None else f"a {kind}"
    if party.cluster != cluster or party.kind != kind or (name is not None and party.name != name):
        raise IdentityError(f"the certificate belongs to {party}, not to {wanted} of cluster {cluster}")
    return party.name
