"""What the state holds of who belongs to the cluster: its authority, the tokens by which others join, and the
certificates that they were issued.

Times are milliseconds since the Unix epoch. Nothing here can be used by whoever reads it: the authority's key is
sealed, of a token there is a digest.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from controlplane.model.types import record


class MemberKind(StrEnum):
    NODE = "node"
    HOST = "host"


@record
class Sealed:
    """A secret that only holders of the key-encryption key `key_id` can read (`controlplane.sealing`)."""

    key_id: str
    wrapped: str
    """Nonce and encrypted data key, in base64."""
    box: str
    """Nonce and what the data key encrypts, in base64."""


@record
class ClusterAuthority:
    """A certificate authority of the cluster: one, and during a rotation two that are trusted, of which one signs."""

    fingerprint: str
    """SHA-256 of its certificate, in hex."""
    certificate: str
    """PEM."""
    key: Sealed
    """Blank once it is retired."""
    actor: str
    at: int
    turn: int = 0
    """Of those that are trusted, the one with the highest signs."""
    succeeds: str = ""
    """The fingerprint of the one whose place it takes; empty: the first of the cluster."""
    crossed: str = ""
    """PEM: its name and key, signed by the one that it succeeds: who knows that one alone believes this one by it."""
    retired_at: int | None = None
    """Since when it is trusted no more."""


@record
class JoinToken:
    """Lets somebody who has no certificate yet get one, until it expires or is used up."""

    id: str
    sha256: str
    """Of its secret, in hex."""
    role: MemberKind
    actor: str
    at: int
    expires_at: int
    uses: int
    used: int = 0
    name: str | None = None
    """Who may join by it; None: whoever is not there yet."""
    macs: list[str] = field(default_factory=list[str])
    """One of these addresses has to be the joiner's; empty: any."""
    cidrs: list[str] = field(default_factory=list[str])
    """The joiner's connection has to come from one of these networks; empty: any."""


@record
class IssuedCertificate:
    serial: str
    """In hex."""
    at: int
    expires_at: int
    revoked_at: int | None = None
    revoked_by: str | None = None
    reason: str = ""
    authority: str = ""
    """The fingerprint of who signed it; empty: not known, or not the cluster."""
    shown: bool = False
    """Its holder has asked for another one with it, so it has taken its place there."""


@record
class Holder:
    """The certificates of one member that have not expired."""

    kind: MemberKind
    name: str
    certificates: list[IssuedCertificate]


def holder_key(kind: str, name: str) -> str:
    return f"{kind}/{name}"
