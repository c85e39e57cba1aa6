"""What may be asked of the machine, and the envelope that carries it through the log.

A log entry is a batch: `{"v": 1, "commands": [envelope, ...]}` in msgpack. Each envelope names its kind and carries the
id and the time that the proposer stamped once, who asked (`actor`), the trace it belongs to, and an idempotency key.
Kinds are appended, never renamed: an unknown kind or version means that this node is older than the cluster, and
decoding raises UnknownEntryError, which stops the node.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import field

from controlplane.model.access import AccessLimit, RoleBindingSpec, RoleSpec
from controlplane.model.api_tokens import ApiTokenSpec
from controlplane.model.audit import Origin
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.model.gc import Leftover, Subject, Trigger
from controlplane.model.resources import Bid, Inventory, Observation, Unmanaged
from controlplane.model.spec import (
    FailoverPolicySpec,
    GCPolicySpec,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
    PowerState,
)
from controlplane.model.types import DECODE_ERRORS, Kind, record

ENTRY_VERSION = 1


class UnknownEntryError(Exception):
    """The entry is of a version or kind that this build does not know."""


@record
class Precondition:
    """What must hold for a declaration to be accepted. `create_only`: there is no such object yet."""

    revision: int | None = None
    create_only: bool = False


@record
class DeclareNamespace:
    name: str
    uid: str
    """Used if this creates the object; ids come from the proposer."""
    spec: NamespaceSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclarePlacementPolicy:
    name: str
    uid: str
    spec: PlacementPolicySpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareFailoverPolicy:
    name: str
    uid: str
    spec: FailoverPolicySpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareGCPolicy:
    name: str
    uid: str
    spec: GCPolicySpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareRole:
    name: str
    uid: str
    spec: RoleSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareRoleBinding:
    name: str
    uid: str
    spec: RoleBindingSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


DeclarePolicy = DeclarePlacementPolicy | DeclareFailoverPolicy | DeclareGCPolicy | DeclareRole | DeclareRoleBinding


@record
class DeclareHost:
    name: str
    uid: str
    spec: HostSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


@record
class DeclareMicroVM:
    namespace: str
    name: str
    uid: str
    spec: MicroVMSpec
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    when: Precondition = Precondition()


Declaration = DeclareNamespace | DeclarePolicy | DeclareHost | DeclareMicroVM


@record
class Delete:
    """Asks for the end of a declared resource; of a microVM, it commits the tombstone."""

    kind: Kind
    name: str
    namespace: str | None = None
    revision: int | None = None
    reason: str = ""


class Action(StrEnum):
    REPAIR = "repair"
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"


POWER_OF_ACTION: dict[Action, PowerState] = {
    Action.START: PowerState.RUNNING,
    Action.RESUME: PowerState.RUNNING,
    Action.STOP: PowerState.STOPPED,
    Action.PAUSE: PowerState.PAUSED,
}
"""The actions that are changes of the intent."""


@record
class Act:
    """A verb on a microVM."""

    namespace: str
    name: str
    action: Action
    revision: int | None = None


class HostAction(StrEnum):
    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    MAINTENANCE = "maintenance"


@record
class ActOnHost:
    """A verb on a host: it changes that part of the intent alone."""

    host: str
    action: HostAction
    max_parallel: int | None = None
    """Of the evacuation; None keeps what the intent says."""
    allow_data_loss: bool | None = None
    revision: int | None = None


@record
class AgentConnected:
    """A host's agent opened a session at a node; the newest session is the host's only one."""

    host: str
    uid: str
    session: str
    node: str
    inventory: Inventory
    lease_ttl_ms: int = 0
    """The longest lease that this session may be granted, or that the agent still holds from an earlier one."""


@record
class AgentLost:
    """An undeclared host's agent is gone. Ignored if the host has another session by now."""

    host: str
    session: str
    reason: str


@record
class HostSuspected:
    """The leader granted this session nothing for a while."""

    host: str
    session: str
    reason: str


@record
class HostHeard:
    """The leader grants to a suspect host again."""

    host: str
    session: str


@record
class HostDetached:
    """The host's lease has ended, and the leader of `term` grants it no other. Refused in another term."""

    host: str
    session: str | None
    """None of a host that has none: it was lost before there were leases."""
    term: int
    reason: str


@record
class HostFenced:
    """The leader of `term` waited until nothing that may be resurrected can run there. Refused in another term."""

    host: str
    term: int
    reason: str
    since: int | None = None
    """`since` of the detached host that was waited for: one that came back and was detached again is another wait."""


@record
class ConfirmFenced:
    """An operator's word that the host is certainly off, as logs of before `ConfirmOff` hold it: a suspect host was
    fenced by it at once, though the leader might be granting to it again at that moment."""

    host: str
    revision: int | None = None


@record
class Resurrect:
    """Give up the copy of `epoch` on a fenced host, and place the microVM anew. Refused in another term."""

    uid: str
    epoch: int
    host: str
    term: int
    reason: str


@record
class Evict:
    """Let the host end its copy of `epoch`, and place the microVM anew once that is confirmed."""

    host: str
    uid: str
    epoch: int


@record
class MarkStaying:
    """Nothing moves the copy of `epoch` off the host that is to be emptied."""

    host: str
    uid: str
    epoch: int
    reason: str
    halt: bool = False
    """Shut its guest down there; only in maintenance."""


@record
class HostEvacuated:
    """Nothing is left on the host of what its mode is to clear."""

    host: str


@record
class BeginIncarnation:
    """The leader of `term` granted no lease for so long that every one of a lost history has ended, and what ran under
    it. Refused in another term."""

    incarnation: int
    term: int


@record
class ConfirmOff:
    """An operator's word that the host is certainly off. A suspect one is detached by it, so that nothing more is
    granted, and fenced like any detached host once what may have been granted last has ended (docs/adr/0115)."""

    host: str
    revision: int | None = None


@record
class Destroyed:
    uid: str
    epoch: int


@record
class OverrideBreaker:
    """An operator's word that failover goes on although the breaker is open, for so long from now on."""

    for_s: int
    reason: str


@record
class CancelOverride:
    """An operator takes an override back."""

    of: str
    """What is overridden: `breaker`."""


@record
class Report:
    """What a host's agent saw. Refused when the session is not the host's present one."""

    host: str
    session: str
    observed: list[Observation] = field(default_factory=list[Observation])
    destroyed: list[Destroyed] = field(default_factory=list[Destroyed])
    unmanaged: list[Unmanaged] | None = None
    """The full list, or None for no change."""
    rejoined: bool = False
    """A complete report of this session shows that every order to destroy was carried out."""
    leftovers: list[str] | None = None
    """Words that agents once had for what is left behind. Read for ever, and without a meaning by now."""
    left_behind: list[Leftover] | None = None
    """All that is there of microVMs that are gone, or None for no change."""


@record
class Place:
    """The scheduler's choice, decided from `generation` of the microVM; verified against present capacity."""

    uid: str
    generation: int
    host: str
    score: float
    bids: list[Bid]


@record
class MarkUnplaced:
    """The scheduler found no host."""

    uid: str
    generation: int
    reason: str
    message: str
    bids: list[Bid] = field(default_factory=list[Bid])


class HoldKind(StrEnum):
    MICROVM = "MicroVM"
    HOST = "Host"
    """And with it whatever is found there."""
    FOUND = "Found"
    """A microVM that a host reports and nobody declared."""


@record
class Hold:
    """Neither collect nor delete this until it is released."""

    kind: HoldKind
    name: str
    """Of what was found, how its driver names it."""
    reason: str
    namespace: str | None = None
    host: str | None = None
    """Where it was found."""


@record
class Release:
    """The end of a hold."""

    kind: HoldKind
    name: str
    namespace: str | None = None
    host: str | None = None


@record
class Collect:
    """The end of one thing that the policy keeps no longer. Refused unless it still is as it was when this was decided,
    and nobody holds it."""

    trigger: Trigger
    subject: Subject
    since: int
    """Of what is true of it: the phase, the report, the end."""
    reason: str
    epoch: int = 0
    """Of a microVM's copy: the order covers it and every one before it."""
    policy: str | None = None
    """The declared policy that it was decided by; None: there was none, and the node's settings said so."""
    policy_revision: int | None = None
    """Of that policy's intent."""


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
class BeginAudit:
    """From here on every change is recorded in the audit chain; an older build stops here rather than go on without."""

    node: str
    """Which found that it had not begun."""


@record
class Witnessed:
    """A request that led to no command: it was refused at the edge, or what it changed is no object of the state."""

    at: int
    actor: str | None
    """None: nobody that is known."""
    action: str
    """Method and route."""
    status: int
    namespace: str | None = None
    name: str | None = None
    count: int = 1
    """So many equal ones."""
    origin: Origin = Origin()


@record
class WitnessRequests:
    """What a node's API has seen in a short time, for the audit chain."""

    node: str
    requests: list[Witnessed]


@record
class ExportedAudit:
    """A node has the chain on its disk up to `through`."""

    node: str
    through: int


@record
class DropAudit:
    """Forget the records up to `through`. Refused while a node that exports has not written them."""

    through: int


@record
class Adopt:
    """An operator declares a copy that a host told of and nobody declared; it stays as it runs there. Refused unless it
    is the only one, and still what was looked at."""

    host: str
    key: str
    """Of the copy among all that was found there."""
    epoch: int
    generation: int
    """Put into effect there."""
    declaration: DeclareMicroVM
    """With the uid of the copy."""
    repair_seq: int = 0
    """Of the last request that was carried out there; so is the next."""
    restart_seq: int = 0


@record
class EstablishAuthority:
    """The cluster's own certificate authority, once and for all unless it is rotated."""

    fingerprint: str
    certificate: str
    key: Sealed


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


@record
class RevokeCertificates:
    """All certificates of a member, or one."""

    kind: MemberKind
    name: str
    reason: str
    serial: str | None = None


@record
class Batch:
    """What a user declares, deletes or asks for together: all of it, or nothing."""

    commands: list[Envelope]


Command = (
    DeclareNamespace
    | DeclarePlacementPolicy
    | DeclareHost
    | DeclareMicroVM
    | Delete
    | Act
    | AgentConnected
    | AgentLost
    | Report
    | Place
    | MarkUnplaced
    | Batch
    | HostSuspected
    | HostHeard
    | HostDetached
    | HostFenced
    | ConfirmFenced
    | Resurrect
    | BeginIncarnation
    | ConfirmOff
    | DeclareFailoverPolicy
    | Hold
    | Release
    | Collect
    | ActOnHost
    | Evict
    | MarkStaying
    | HostEvacuated
    | OverrideBreaker
    | CancelOverride
    | DeclareGCPolicy
    | DeclareRole
    | DeclareRoleBinding
    | CreateApiToken
    | RotateApiToken
    | RevokeApiToken
    | NoteApiTokenUses
    | BeginAudit
    | WitnessRequests
    | ExportedAudit
    | DropAudit
    | Adopt
    | EstablishAuthority
    | CreateJoinToken
    | RevokeJoinToken
    | Join
    | RenewCertificate
    | RevokeCertificates
)

KINDS: dict[str, type[Command]] = {
    "declare_namespace": DeclareNamespace,
    "declare_placement_policy": DeclarePlacementPolicy,
    "declare_host": DeclareHost,
    "declare_microvm": DeclareMicroVM,
    "delete": Delete,
    "act": Act,
    "agent_connected": AgentConnected,
    "agent_lost": AgentLost,
    "report": Report,
    "place": Place,
    "mark_unplaced": MarkUnplaced,
    "batch": Batch,
    "host_suspected": HostSuspected,
    "host_heard": HostHeard,
    "host_detached": HostDetached,
    "host_fenced": HostFenced,
    "confirm_fenced": ConfirmFenced,
    "resurrect": Resurrect,
    "begin_incarnation": BeginIncarnation,
    "confirm_off": ConfirmOff,
    "declare_failover_policy": DeclareFailoverPolicy,
    "hold": Hold,
    "release": Release,
    "collect": Collect,
    "act_on_host": ActOnHost,
    "evict": Evict,
    "mark_staying": MarkStaying,
    "host_evacuated": HostEvacuated,
    "override_breaker": OverrideBreaker,
    "cancel_override": CancelOverride,
    "declare_gc_policy": DeclareGCPolicy,
    "declare_role": DeclareRole,
    "declare_role_binding": DeclareRoleBinding,
    "create_api_token": CreateApiToken,
    "rotate_api_token": RotateApiToken,
    "revoke_api_token": RevokeApiToken,
    "note_api_token_uses": NoteApiTokenUses,
    "begin_audit": BeginAudit,
    "witness_requests": WitnessRequests,
    "exported_audit": ExportedAudit,
    "drop_audit": DropAudit,
    "adopt": Adopt,
    "establish_authority": EstablishAuthority,
    "create_join_token": CreateJoinToken,
    "revoke_join_token": RevokeJoinToken,
    "join": Join,
    "renew_certificate": RenewCertificate,
    "revoke_certificates": RevokeCertificates,
}
"""Appended to, never renamed or reused: old entries are read for ever."""

_KIND_OF: dict[type[Command], str] = {cls: kind for kind, cls in KINDS.items()}


@record
class Envelope:
    kind: str
    id: str
    at: int
    """Milliseconds since the Unix epoch, on the proposer's clock."""
    actor: str
    payload: msgspec.Raw
    key: str | None = None
    """Idempotency key, unique per actor."""
    trace: str | None = None
    origin: Origin | msgspec.UnsetType = msgspec.UNSET
    """Where the request came from; what the product decides by itself has none."""


@record
class Entry:
    v: int
    commands: list[Envelope]


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_payload_decoders = {kind: msgspec.msgpack.Decoder(cls) for kind, cls in KINDS.items()}


def seal(
    command: Command,
    *,
    id: str,
    at: int,
    actor: str,
    key: str | None = None,
    trace: str | None = None,
    origin: Origin | None = None,
) -> Envelope:
    """Wrap a command with what its proposer stamps."""
    return Envelope(
        kind=_KIND_OF[type(command)],
        id=id,
        at=at,
        actor=actor,
        payload=msgspec.Raw(_encoder.encode(command)),
        key=key,
        trace=trace,
        origin=origin if origin is not None else msgspec.UNSET,
    )


def open_payload(envelope: Envelope) -> Command:
    """The command inside. Raises UnknownEntryError."""
    decoder = _payload_decoders.get(envelope.kind)
    if decoder is None:
        raise UnknownEntryError(f"log entry of unknown kind {envelope.kind!r}: this node is older than the cluster")
    try:
        return decoder.decode(envelope.payload)
    except DECODE_ERRORS as error:
        raise UnknownEntryError(f"log entry of kind {envelope.kind!r} does not decode: {error}") from error


def encode_entry(envelopes: list[Envelope]) -> bytes:
    return _encoder.encode(Entry(v=ENTRY_VERSION, commands=envelopes))


def decode_entry(data: bytes) -> list[Envelope]:
    """The envelopes of a log entry, payloads still encoded. Raises UnknownEntryError."""
    try:
        entry = _entry_decoder.decode(data)
    except DECODE_ERRORS as error:
        raise UnknownEntryError(f"log entry does not decode: {error}") from error
    if entry.v != ENTRY_VERSION:
        raise UnknownEntryError(f"log entry of version {entry.v}; this build knows {ENTRY_VERSION}")
    return entry.commands
