"""What the routes about join tokens, joining and certificates are asked and answer."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from controlplane.api.http.declarations import Input
from controlplane.api.http.shape import Shape
from controlplane.api.http.times import Timestamp
from controlplane.machine.certificates import MAX_REASON
from controlplane.machine.joining import MAX_TTL_S, MAX_USES
from controlplane.model.credentials import MemberKind
from controlplane.model.types import LINE_PATTERN, MAC_PATTERN, Flag, Integer, Name
from controlplane.settings import split_address

_MAX_LISTED = 16


def _check_network(text: str) -> str:
    ip_network(text, strict=False)
    return text


def _check_address(address: str) -> str:
    split_address(address)
    return address


Mac = Annotated[str, StringConstraints(pattern=MAC_PATTERN)]
Network = Annotated[str, Field(max_length=64), AfterValidator(_check_network)]
Address = Annotated[str, Field(max_length=255), AfterValidator(_check_address)]
Serial = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,40}$")]


class JoinTokenBody(Input):
    role: MemberKind
    ttl_s: Annotated[Integer, Field(ge=1, le=MAX_TTL_S, description="It can be used for so long.")] = 3600
    uses: Annotated[Integer, Field(ge=1, le=MAX_USES, description="How often; a token for a name once.")] = 1
    name: Name | None = Field(default=None, description="Who may join by it; null: who is not there yet.")
    macs: Annotated[list[Mac], Field(max_length=_MAX_LISTED)] = Field(
        default_factory=list[str], description="The joiner has to have one of these addresses; any when empty."
    )
    cidrs: Annotated[list[Network], Field(max_length=_MAX_LISTED)] = Field(
        default_factory=list[str], description="Its connection has to come from one of these; any when empty."
    )


class JoinTokenShape(Shape):
    id: str
    role: MemberKind
    name: str | None
    macs: list[str]
    cidrs: list[str]
    uses: int
    used: int
    created_by: str
    created_at: Timestamp
    expires_at: Timestamp


class JoinTokenCreated(JoinTokenShape):
    token: str = Field(description="The token itself: it is told here and never again.")


class JoinTokenList(Shape):
    revision: int
    items: list[JoinTokenShape]


class NodeAddresses(Input):
    """`HOST:PORT` at which the others dial the new node."""

    raft: Address
    gateway: Address
    api: Address


class JoinBody(Input):
    token: Annotated[str, Field(max_length=512)]
    name: Name
    csr: Annotated[str, Field(max_length=8192, description="PEM. Nothing of it counts but its key.")]
    macs: Annotated[list[Mac], Field(max_length=64)] = Field(default_factory=list[str])
    node: NodeAddresses | None = Field(default=None, description="Of a node that joins; null: a host joins.")


class SealedKey(Shape):
    key_id: str
    wrapped: str
    box: str


class LivesShape(Shape):
    """How long certificates are valid."""

    host_s: int
    node_s: int


class NodeSecrets(Shape):
    """What a node needs besides its certificate."""

    key_ring: str = Field(description="The key-encryption keys: the file's content.")
    authority: str = Field(description="PEM of the authority that signs.")
    authority_key: SealedKey
    lives: LivesShape
    peers: dict[str, str] = Field(description="Where the members' logs are dialled.")
    gateways: dict[str, str]
    apis: dict[str, str]
    learner: bool = Field(description="It was added to the log, as a learner.")
    message: str = Field(description="Why it was not, and what to do.")


class Joined(Shape):
    cluster_id: str
    certificate: str = Field(description="PEM.")
    authorities: str = Field(description="PEM of every authority to be trusted.")
    gateways: dict[str, str] = Field(description="Where agents dial in.")
    node: NodeSecrets | None


class AuthorityCertificate(Shape):
    cluster_id: str
    fingerprint: str = Field(description="SHA-256 of the certificate, as in every join token.")
    certificate: str = Field(description="PEM.")
    authorities: str = Field(
        description="PEM of every authority that is trusted: during a rotation of two, and tokens of both count."
    )


class CertificateShape(Shape):
    kind: MemberKind
    name: str
    serial: str
    issued_at: Timestamp
    expires_at: Timestamp
    revoked_at: Timestamp | None
    revoked_by: str | None
    reason: str
    authority: str = Field(description="The fingerprint of who signed it; empty where that was never asked.")


class AuthorityShape(Shape):
    fingerprint: str
    certificate: str
    created_by: str
    created_at: Timestamp
    signs: bool = Field(description="New certificates are signed by it.")
    sealed_with: str = Field(description="The id of the key-encryption key.")
    retired_at: Timestamp | None = Field(description="Since when it is trusted no more.")


class MemberShape(Shape):
    kind: MemberKind
    name: str


class RotationShape(Shape):
    """Another authority is taking the place of one; both are trusted."""

    signs: str = Field(description="The fingerprint of the one that stays.")
    leaves: str = Field(description="The fingerprint of the one that is to be retired.")
    aborted: bool = Field(description="The older one stays.")
    waiting: list[MemberShape] = Field(description="Who has not shown a certificate of the one that stays yet.")


class AuthorityStatus(Shape):
    revision: int
    authorities: list[AuthorityShape] = Field(
        description="The one that signs first, retired ones last; none where certificates come from elsewhere."
    )
    rotation: RotationShape | None = Field(description="Null when none is under way.")
    certificates: list[CertificateShape] = Field(description="Issued and not expired.")


class RevokeBody(Input):
    kind: MemberKind
    name: Name
    serial: Serial | None = Field(default=None, description="Null: every certificate that it has.")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON, pattern=LINE_PATTERN)]


class RetireBody(Input):
    force: Flag = Field(
        default=False,
        description="Whoever still depends on it loses its certificates: it has to join or be certified again.",
    )


class DataKeyShape(Shape):
    id: str
    created_by: str
    created_at: Timestamp
    seals: bool = Field(description="The newest one does.")
    sealed_with: str = Field(description="Id of the key of the key ring that seals it.")
    microvms: int = Field(description="With a secret that it encrypts.")


class SecretsStatus(Shape):
    revision: int
    microvms: int = Field(description="With secrets.")
    data_keys: list[DataKeyShape] = Field(description="Newest first; more than one while a rotation goes on.")
