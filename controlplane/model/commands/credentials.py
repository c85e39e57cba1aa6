"""API tokens, join tokens, the cluster's authority and its certificates."""

from __future__ import annotations

from msgspec import field

from controlplane.model.access import AccessLimit
from controlplane.model.api_tokens import ApiTokenSpec
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.model.types import record


@record
class CreateApiToken:
    """`sha256` is of the secret, which only its maker knows."""

    name: str
    uid: str
    spec: ApiTokenSpec
    sha256: str
    expires_at: int
    inherited: list[AccessLimit] = field(default_factory=list[AccessLimit])
    """Of the token that asks for it."""


@record
class RotateApiToken:
    """Another secret for the token `uid`; the one before is good until `retired_until`."""

    name: str
    uid: str
    sha256: str
    expires_at: int
    retired_until: int


@record
class RevokeApiToken:
    """The end of the token `uid`."""

    name: str
    uid: str


@record
class NoteApiTokenUses:
    """When tokens were used last, by name. Counts only where what is known is older by an interval."""

    used: dict[str, int]


@record
class EstablishAuthority:
    """The cluster's first certificate authority."""

    fingerprint: str
    certificate: str
    key: Sealed


@record
class RotateAuthority:
    """Another authority signs from now on, and both are trusted until one is retired."""

    fingerprint: str
    certificate: str
    key: Sealed
    succeeds: str
    """The fingerprint of the one that signs as yet."""
    crossed: str
    """PEM of the new certificate, signed by that one."""


@record
class AbortRotation:
    """The authority that a rotation was to replace signs again."""

    fingerprint: str


@record
class RetireAuthority:
    """The one that does not sign is trusted no more, and the rotation is over."""

    fingerprint: str
    force: bool = False
    """Whatever members still depend on it: they lose their certificates."""


@record
class CreateJoinToken:
    id: str
    sha256: str
    role: MemberKind
    ttl_s: int
    uses: int = 1
    name: str | None = None
    macs: list[str] = field(default_factory=list[str])
    cidrs: list[str] = field(default_factory=list[str])


@record
class RevokeJoinToken:
    id: str


@record
class Join:
    """Redeems a token for a certificate that is handed out only if this is accepted."""

    redeems: str
    """The token's id."""
    sha256: str
    """Of the secret that was presented."""
    role: MemberKind
    name: str
    serial: str
    expires_at: int
    macs: list[str] = field(default_factory=list[str])
    address: str = ""
    """Where the joiner's connection came from."""
    authority: str = ""
    """The fingerprint of who signed."""


@record
class RenewCertificate:
    """Another certificate for who shows `presented`, handed out only if this is accepted."""

    kind: MemberKind
    name: str
    presented: str
    presented_expires_at: int
    """Known from now on, if it was not: one from before the state, or from another authority."""
    serial: str
    expires_at: int
    authority: str = ""
    """The fingerprint of who signed."""


@record
class RevokeCertificates:
    """All certificates of a member, or one."""

    kind: MemberKind
    name: str
    reason: str
    serial: str | None = None
