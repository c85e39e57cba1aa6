"""apply(state, envelope): the only place where state changes.

Pure and total: the same state and envelope give the same result on every node, in every process, for ever, and a
refusal is a Rejected value that leaves the state as it was. The one exception that may come out is UnknownEntryError:
this build is older than the cluster, and the node has to stop rather than diverge.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from controlplane.machine import (
    adopt,
    api_tokens,
    audit,
    certificates,
    collect,
    declare,
    evacuation,
    groups,
    holding,
    hosts,
    incarnations,
    joining,
    lost_hosts,
    overrides,
    placing,
)
from controlplane.machine.delete import delete
from controlplane.machine.draft import KEY_LIFETIME_MS, Draft
from controlplane.machine.events import Event
from controlplane.machine.outcome import Applied, Change, Code, Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import (
    Act,
    ActOnHost,
    Adopt,
    AgentConnected,
    AgentLost,
    Batch,
    BeginAudit,
    BeginIncarnation,
    CancelOverride,
    Collect,
    Command,
    ConfirmFenced,
    ConfirmOff,
    CreateApiToken,
    CreateJoinToken,
    Declaration,
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
    DropAudit,
    Envelope,
    EstablishAuthority,
    Evict,
    ExportedAudit,
    Hold,
    HostDetached,
    HostEvacuated,
    HostFenced,
    HostHeard,
    HostSuspected,
    Join,
    MarkStaying,
    MarkUnplaced,
    NoteApiTokenUses,
    OverrideBreaker,
    Place,
    Release,
    RenewCertificate,
    Report,
    Resurrect,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    StepGroup,
    WitnessRequests,
    open_payload,
)
from controlplane.model.resources import IdempotencyRecord, Made
from controlplane.model.spec import Evacuation, GCPolicySpec
from controlplane.model.types import Kind, replace

_BATCHED = Declaration | Delete | Act
"""What users ask for. What agents and the scheduler say stands for itself, or one stale word would undo the rest."""

_Word = ConfirmFenced | ConfirmOff | Hold | Release | ActOnHost | OverrideBreaker | CancelOverride | Adopt
"""What operators say of a host, an object or the cluster, beside what they declare."""

_Credential = CreateApiToken | RotateApiToken | RevokeApiToken | NoteApiTokenUses
"""About the credentials that the state holds."""

_Auditing = BeginAudit | WitnessRequests | ExportedAudit | DropAudit
"""What keeps the audit chain."""

_Belonging = EstablishAuthority | CreateJoinToken | RevokeJoinToken | Join | RenewCertificate | RevokeCertificates
"""Who belongs to the cluster."""

_Upkeep = Collect | Evict | MarkStaying | HostEvacuated | StepGroup | _Auditing
"""What the leader's runners decide from the state alone."""

_Own = (
    AgentConnected
    | AgentLost
    | Report
    | Place
    | MarkUnplaced
    | HostSuspected
    | HostHeard
    | HostDetached
    | HostFenced
    | Resurrect
    | BeginIncarnation
    | _Upkeep
)
"""What the product itself reports and decides."""

_ADDED: dict[type[Command], tuple[tuple[str, str, object], ...]] = {
    DeclareMicroVM: (
        ("recovery", "on_detach", None),
        ("recovery", "allow_data_loss", False),
        ("recovery", "policy", None),
    ),
    DeclareHost: (("", "mode", "active"), ("", "evacuation", msgspec.to_builtins(Evacuation()))),
    DeclareGCPolicy: (
        ("", "lost_tombstone_after_s", None),
        ("", "leftover_after_s", None),
        ("", "quarantined_volumes_after_s", GCPolicySpec().quarantined_volumes_after_s),
    ),
}
"""By declaration: the part of its spec, a field there, and its default.

Such fields are no part of a fingerprint while they are unset: those of requests of before them stay what they were,
in snapshots and for whoever repeats such a request. Every field that is added to a declaration needs this.
"""

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def apply(state: State, envelope: Envelope, *, index: int, term: int) -> tuple[State, Outcome, tuple[Event, ...]]:
    """The state after `envelope`, what to answer its proposer, and what changed.

    `index` and `term` are the log's; a command decided from a leader's memory is refused in another term.
    """
    command = open_payload(envelope)
    if (repeated := _repetition(state, envelope, command)) is not None:
        return state, repeated, ()
    draft = Draft(state, at=envelope.at, actor=envelope.actor)
    outcome = (
        _handle_batch(draft, command, term=term) if isinstance(command, Batch) else _handle(draft, command, term=term)
    )
    if isinstance(outcome, Rejected):
        return state, outcome, ()
    if envelope.key is not None and (made := _made(outcome)):
        remembered = IdempotencyRecord(
            fingerprint=_fingerprint(command), made=made, at=envelope.at, revision=draft.revision
        )
        draft.put_key(_key(envelope), remembered)
        outcome = replace(outcome, revision=draft.revision)
    if draft.digest == state.digest:
        return state, outcome, ()
    return draft.result(), outcome, tuple(draft.events)


def _handle(draft: Draft, command: Command, *, term: int) -> Outcome:
    match command:
        case DeclareNamespace():
            return declare.declare_namespace(draft, command)
        case (
            DeclarePlacementPolicy()
            | DeclareFailoverPolicy()
            | DeclareGCPolicy()
            | DeclareRole()
            | DeclareRoleBinding()
        ):
            return declare.declare_policy(draft, command)
        case DeclareHost():
            return declare.declare_host(draft, command)
        case DeclareMicroVM():
            return declare.declare_microvm(draft, command)
        case DeclareMicroVMGroup():
            return groups.declare_group(draft, command)
        case Delete():
            return delete(draft, command)
        case Act():
            return declare.act(draft, command)
        case Batch():
            return Rejected(code=Code.INVALID, message="a batch cannot hold a batch")
        case (
            ConfirmFenced()
            | ConfirmOff()
            | Hold()
            | Release()
            | ActOnHost()
            | OverrideBreaker()
            | CancelOverride()
            | Adopt()
        ):
            return _handle_word(draft, command)
        case CreateApiToken() | RotateApiToken() | RevokeApiToken() | NoteApiTokenUses():
            return _handle_credential(draft, command)
        case (
            EstablishAuthority()
            | CreateJoinToken()
            | RevokeJoinToken()
            | Join()
            | RenewCertificate()
            | RevokeCertificates()
        ):
            return _handle_belonging(draft, command)
        case _:
            return _handle_own(draft, command, term=term)


def _handle_word(draft: Draft, command: _Word) -> Outcome:
    match command:
        case ConfirmFenced() | ConfirmOff():
            return lost_hosts.confirm_off(draft, command)
        case Hold():
            return holding.hold(draft, command)
        case Release():
            return holding.release(draft, command)
        case ActOnHost():
            return evacuation.act_on_host(draft, command)
        case OverrideBreaker():
            return overrides.override_breaker(draft, command)
        case CancelOverride():
            return overrides.cancel_override(draft, command)
        case Adopt():
            return adopt.adopt(draft, command)


def _handle_credential(draft: Draft, command: _Credential) -> Outcome:
    match command:
        case CreateApiToken():
            return api_tokens.create(draft, command)
        case RotateApiToken():
            return api_tokens.rotate(draft, command)
        case RevokeApiToken():
            return api_tokens.revoke(draft, command)
        case NoteApiTokenUses():
            return api_tokens.note_uses(draft, command)


def _handle_belonging(draft: Draft, command: _Belonging) -> Outcome:
    match command:
        case EstablishAuthority():
            return certificates.establish_authority(draft, command)
        case CreateJoinToken():
            return joining.create_join_token(draft, command)
        case RevokeJoinToken():
            return joining.revoke_join_token(draft, command)
        case Join():
            return joining.join(draft, command)
        case RenewCertificate():
            return certificates.renew_certificate(draft, command)
        case RevokeCertificates():
            return certificates.revoke_certificates(draft, command)


def _handle_own(draft: Draft, command: _Own, *, term: int) -> Outcome:
    match command:
        case AgentConnected():
            return hosts.agent_connected(draft, command)
        case AgentLost():
            return hosts.agent_lost(draft, command)
        case Report():
            return hosts.report(draft, command)
        case Place():
            return placing.place(draft, command)
        case MarkUnplaced():
            return placing.mark_unplaced(draft, command)
        case HostSuspected():
            return lost_hosts.suspected(draft, command)
        case HostHeard():
            return lost_hosts.heard(draft, command)
        case HostDetached():
            return lost_hosts.detached(draft, command, term=term)
        case HostFenced():
            return lost_hosts.fenced(draft, command, term=term)
        case Resurrect():
            return lost_hosts.resurrect(draft, command, term=term)
        case BeginIncarnation():
            return incarnations.begin_incarnation(draft, command, term=term)
        case _:
            return _handle_upkeep(draft, command)


def _handle_upkeep(draft: Draft, command: _Upkeep) -> Outcome:
    match command:
        case Collect():
            return collect.collect(draft, command)
        case Evict():
            return evacuation.evict(draft, command)
        case MarkStaying():
            return evacuation.mark_staying(draft, command)
        case HostEvacuated():
            return evacuation.host_evacuated(draft, command)
        case StepGroup():
            return groups.step_group(draft, command)
        case BeginAudit() | WitnessRequests():
            return audit.kept(draft)
        case ExportedAudit():
            return audit.exported(draft, command)
        case DropAudit():
            return audit.drop(draft, command)


def _handle_batch(draft: Draft, batch: Batch, *, term: int) -> Outcome:
    """Every command of the batch on one draft: all of them, or the first refusal."""
    before = draft.digest
    parts: list[Applied] = []
    for number, envelope in enumerate(batch.commands):
        draft.base = draft.digest
        command = open_payload(envelope)
        if not isinstance(command, _BATCHED):
            message = f"a batch cannot hold the command {envelope.kind}"
            return Rejected(code=Code.INVALID, message=message, part=number)
        outcome = _handle(draft, command, term=term)
        if isinstance(outcome, Rejected):
            return replace(outcome, part=number)
        parts.append(outcome)
    draft.base = before
    revision = draft.revision if draft.changed else draft.state.revision
    change = Change.CHANGED if draft.changed else Change.UNCHANGED
    same = tuple(part if part.revision == revision else replace(part, revision=revision) for part in parts)
    return Applied(revision=revision, change=change, parts=same)


# -- idempotency keys --------------------------------------------------------------------------------------------------


def _key(envelope: Envelope) -> str:
    return f"{envelope.actor}\n{envelope.key}"


def _made(outcome: Applied) -> list[Made]:
    return [
        Made(kind=part.kind, uid=part.uid, deleted=part.change is Change.DELETED, operation=part.operation)
        for part in outcome.parts or (outcome,)
        if part.kind is not None and part.uid is not None
    ]


def _fingerprint(command: Command) -> str:
    """What must be equal for a repetition to be one: the command without the ids and times its proposer made up."""
    parts = [open_payload(each) for each in command.commands] if isinstance(command, Batch) else [command]
    return blake2b("".join(_fingerprint_of_one(part) for part in parts).encode(), digest_size=16).hexdigest()


def _fingerprint_of_one(command: Command) -> str:
    if isinstance(command, Declaration):
        command = replace(command, uid="")
    match command:
        case DeclareMicroVM() | DeclareHost() | DeclareGCPolicy():
            plain = _as_of_old(command)
        case Delete(reason=""):
            plain = _without_reason(command)
        case _:
            plain = _encoder.encode(command)
    return blake2b(type(command).__name__.encode() + plain, digest_size=16).hexdigest()


def _as_of_old(command: DeclareMicroVM | DeclareHost | DeclareGCPolicy) -> bytes:
    """As the encoder writes it: fields in their order, maps sorted; without what was added and is unset."""
    plain: dict[str, Any] = msgspec.to_builtins(command, order="deterministic")
    for part, name, unset in _ADDED[type(command)]:
        fields: dict[str, object] = plain["spec"][part] if part else plain["spec"]
        if fields[name] == unset:
            del fields[name]
    return msgspec.msgpack.encode(plain)


def _without_reason(command: Delete) -> bytes:
    plain: dict[str, object] = msgspec.to_builtins(command, order="deterministic")
    del plain["reason"]
    return msgspec.msgpack.encode(plain)


def _repetition(state: State, envelope: Envelope, command: Command) -> Outcome | None:
    """The first outcome again, if this key was used within its lifetime and what it made is still there.

    What it deleted at once stays deleted: that repetition is answered, too.
    """
    known = state.keys.get(_key(envelope)) if envelope.key is not None else None
    if known is None or envelope.at - known.at > KEY_LIFETIME_MS:
        return None
    if not all(made.deleted or _exists(state, made) for made in known.made):
        return None
    if known.fingerprint != _fingerprint(command):
        return Rejected(
            code=Code.IDEMPOTENCY_KEY_REUSED,
            message="this key was used for another request",
            pointer="/header/idempotency-key",
            uid=known.made[0].uid,
        )
    answer = Applied(revision=state.revision, change=Change.UNCHANGED)
    parts = tuple(replace(answer, kind=made.kind, uid=made.uid, operation=made.operation) for made in known.made)
    return replace(answer, parts=parts) if isinstance(command, Batch) else parts[0]


def _exists(state: State, known: Made) -> bool:
    match known.kind:
        case Kind.MICROVM:
            return known.uid in state.microvms
        case Kind.MICROVM_GROUP:
            return any(each.meta.uid == known.uid for each in state.microvm_groups.values())
        case Kind.NAMESPACE:
            return any(each.meta.uid == known.uid for each in state.namespaces.values())
        case Kind.PLACEMENT_POLICY | Kind.FAILOVER_POLICY | Kind.GC_POLICY | Kind.ROLE | Kind.ROLE_BINDING:
            return any(each.meta.uid == known.uid for each in state.policies_of(known.kind).values())
        case Kind.HOST:
            return any(each.meta.uid == known.uid and each.declared for each in state.hosts.values())
        case Kind.OPERATION:
            return False
