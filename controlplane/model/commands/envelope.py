"""The envelope that carries a command through the log, and the kinds that there are.

A log entry is a batch: `{"v": 1, "commands": [envelope, ...]}` in msgpack. Each envelope names its kind and carries the
id and the time that the proposer stamped once, who asked (`actor`), the trace it belongs to, and an idempotency key.
Kinds are appended, never renamed: an unknown kind or version means that this node is older than the cluster, and
decoding raises UnknownEntryError, which stops the node.
"""

from __future__ import annotations

import msgspec

from controlplane.model.audit import Origin
from controlplane.model.commands.auditing import BeginAudit, DropAudit, ExportedAudit, WitnessRequests
from controlplane.model.commands.credentials import (
    AbortRotation,
    CreateApiToken,
    CreateJoinToken,
    EstablishAuthority,
    Join,
    NoteApiTokenUses,
    RenewCertificate,
    RetireAuthority,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    RotateAuthority,
)
from controlplane.model.commands.declaring import (
    Act,
    ActOnHost,
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    DeclarePlacementPolicy,
    DeclareRole,
    DeclareRoleBinding,
    Delete,
)
from controlplane.model.commands.groups import StepGroup
from controlplane.model.commands.hosts import (
    AgentConnected,
    AgentLost,
    BeginIncarnation,
    CancelOverride,
    ConfirmFenced,
    ConfirmOff,
    HostDetached,
    HostEvacuated,
    HostFenced,
    HostHeard,
    HostSuspected,
    OverrideBreaker,
    Report,
)
from controlplane.model.commands.keeping import Adopt, Collect, Hold, Release
from controlplane.model.commands.placing import Evict, MarkStaying, MarkUnplaced, Place, Resurrect
from controlplane.model.commands.secrets import AddDataKey, DropDataKey, Reseal
from controlplane.model.commands.upgrading import RaiseMachineVersion
from controlplane.model.types import DECODE_ERRORS, record

ENTRY_VERSION = 1


class UnknownEntryError(Exception):
    """The entry is of a version or kind that this build does not know."""


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
    | DeclareMicroVMGroup
    | StepGroup
    | RotateAuthority
    | AbortRotation
    | RetireAuthority
    | AddDataKey
    | Reseal
    | DropDataKey
    | RaiseMachineVersion
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
    "declare_microvm_group": DeclareMicroVMGroup,
    "step_group": StepGroup,
    "rotate_authority": RotateAuthority,
    "abort_rotation": AbortRotation,
    "retire_authority": RetireAuthority,
    "add_data_key": AddDataKey,
    "reseal": Reseal,
    "drop_data_key": DropDataKey,
    "raise_machine_version": RaiseMachineVersion,
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
