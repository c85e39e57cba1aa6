"""apply(state, envelope): the only place where state changes.

Pure and total: the same state and envelope give the same result on every node, in every process, for ever, and a
refusal is a Rejected value that leaves the state as it was. The one exception that may come out is UnknownEntryError:
this build is older than the cluster, and the node has to stop rather than diverge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, get_args

import msgspec

from controlplane.machine import (
    adopt,
    api_tokens,
    audit,
    authorities,
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
    secrets,
    upgrading,
)
from controlplane.machine.delete import delete
from controlplane.machine.draft import KEY_LIFETIME_MS, Draft
from controlplane.machine.effect import Effect
from controlplane.machine.events import Event
from controlplane.machine.outcome import Applied, Change, Code, Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import (
    AbortRotation,
    Act,
    ActOnHost,
    AddDataKey,
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
    DropDataKey,
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
    RaiseMachineVersion,
    Release,
    RenewCertificate,
    Report,
    Reseal,
    Resurrect,
    RetireAuthority,
    RevokeApiToken,
    RevokeCertificates,
    RevokeJoinToken,
    RotateApiToken,
    RotateAuthority,
    StepGroup,
    WitnessRequests,
    open_payload,
)
from controlplane.model.commands.versions import ADDED
from controlplane.model.resources import IdempotencyRecord, Made
from controlplane.model.types import Kind, replace

_BATCHED = frozenset((*get_args(Declaration), Delete, Act))
"""What users ask for. What agents and the scheduler say stands for itself, or one stale word would undo the rest."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")


def apply(state: State, envelope: Envelope, *, index: int, term: int) -> tuple[State, Outcome, tuple[Event, ...]]:
    """The state after `envelope`, what to answer its proposer, and what changed.

    `index` and `term` are the log's; a command decided from a leader's memory is refused in another term.
    """
    effect = effect_of(state, envelope, index=index, term=term)
    return effect.after, effect.outcome, tuple(effect.events)


def effect_of(state: State, envelope: Envelope, *, index: int, term: int) -> Effect:
    """As `apply`, with what else there is to know of it."""
    command = open_payload(envelope)
    parts = [open_payload(part) for part in command.commands] if isinstance(command, Batch) else []
    effect = partial(Effect, before=state, envelope=envelope, command=command, parts=parts)
    if envelope.key is not None and (repeated := _repetition(state, envelope, command, parts)) is not None:
        return effect(after=state, outcome=repeated)
    draft = Draft(state, at=envelope.at, actor=envelope.actor, term=term)
    outcome = _handle_batch(draft, command, parts) if isinstance(command, Batch) else _handle(draft, command)
    if isinstance(outcome, Rejected):
        return effect(after=state, outcome=outcome)
    if envelope.key is not None and (made := _made(outcome)):
        remembered = IdempotencyRecord(
            fingerprint=_fingerprint(command, parts), made=made, at=envelope.at, revision=draft.revision
        )
        draft.put_key(_key(envelope), remembered)
        outcome = replace(outcome, revision=draft.revision)
    if draft.unchanged_from(state):
        return effect(after=state, outcome=outcome)
    return effect(after=draft.result(), outcome=outcome, events=draft.events, digests=draft.digests)


_Handler = Callable[[Draft, Any], Outcome]
_HANDLERS: dict[type[Command], _Handler] = {
    DeclareNamespace: declare.declare_namespace,
    DeclareHost: declare.declare_host,
    DeclareMicroVM: declare.declare_microvm,
    DeclareMicroVMGroup: groups.declare_group,
    DeclarePlacementPolicy: declare.declare_policy,
    DeclareFailoverPolicy: declare.declare_policy,
    DeclareGCPolicy: declare.declare_policy,
    DeclareRole: declare.declare_policy,
    DeclareRoleBinding: declare.declare_policy,
    Delete: delete,
    Act: declare.act,
    # What operators say of a host, an object or the cluster, beside what they declare.
    ConfirmFenced: lost_hosts.confirm_off,
    ConfirmOff: lost_hosts.confirm_off,
    Hold: holding.hold,
    Release: holding.release,
    ActOnHost: evacuation.act_on_host,
    OverrideBreaker: overrides.override_breaker,
    CancelOverride: overrides.cancel_override,
    Adopt: adopt.adopt,
    # The credentials that the state holds.
    CreateApiToken: api_tokens.create,
    RotateApiToken: api_tokens.rotate,
    RevokeApiToken: api_tokens.revoke,
    NoteApiTokenUses: api_tokens.note_uses,
    # The keys of the secrets that it holds.
    AddDataKey: secrets.add_data_key,
    Reseal: secrets.reseal,
    DropDataKey: secrets.drop_data_key,
    # Who belongs to the cluster.
    CreateJoinToken: joining.create_join_token,
    RevokeJoinToken: joining.revoke_join_token,
    Join: joining.join,
    RenewCertificate: certificates.renew_certificate,
    RevokeCertificates: certificates.revoke_certificates,
    # Who signs that.
    EstablishAuthority: authorities.establish,
    RotateAuthority: authorities.rotate,
    AbortRotation: authorities.abort,
    RetireAuthority: authorities.retire,
    # What the product itself reports and decides.
    AgentConnected: hosts.agent_connected,
    AgentLost: hosts.agent_lost,
    Report: hosts.report,
    Place: placing.place,
    MarkUnplaced: placing.mark_unplaced,
    HostSuspected: lost_hosts.suspected,
    HostHeard: lost_hosts.heard,
    HostDetached: lost_hosts.detached,
    HostFenced: lost_hosts.fenced,
    Resurrect: lost_hosts.resurrect,
    BeginIncarnation: incarnations.begin_incarnation,
    Collect: collect.collect,
    Evict: evacuation.evict,
    MarkStaying: evacuation.mark_staying,
    HostEvacuated: evacuation.host_evacuated,
    StepGroup: groups.step_group,
    RaiseMachineVersion: upgrading.raise_machine_version,
    # What keeps the audit chain.
    BeginAudit: audit.kept,
    WitnessRequests: audit.kept,
    ExportedAudit: audit.exported,
    DropAudit: audit.drop,
}
"""By command, what changes the draft; of all but batches."""


def _handle(draft: Draft, command: Command) -> Outcome:
    return _HANDLERS[type(command)](draft, command)


def _handle_batch(draft: Draft, batch: Batch, parts: Sequence[Command]) -> Outcome:
    """Every command of the batch on one draft: all of them, or the first refusal."""
    before = draft.digest
    outcomes: list[Applied] = []
    for number, command in enumerate(parts):
        draft.base = draft.digest
        if type(command) not in _BATCHED:
            message = f"a batch cannot hold the command {batch.commands[number].kind}"
            return Rejected(code=Code.INVALID, message=message, part=number)
        outcome = _handle(draft, command)
        if isinstance(outcome, Rejected):
            return replace(outcome, part=number)
        outcomes.append(outcome)
    draft.base = before
    revision = draft.revision if draft.changed else draft.state.revision
    change = Change.CHANGED if draft.changed else Change.UNCHANGED
    same = tuple(part if part.revision == revision else replace(part, revision=revision) for part in outcomes)
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


def _fingerprint(command: Command, parts: Sequence[Command]) -> str:
    """What must be equal for a repetition to be one: the command without the ids and times its proposer made up."""
    each = parts if isinstance(command, Batch) else [command]
    return blake2b("".join(map(_fingerprint_of_one, each)).encode(), digest_size=16).hexdigest()


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
    plain.pop("sealed", None)  # sealed twice, one value differs; its digest, in the spec, does not
    for part, name, unset, _ in ADDED[type(command)]:
        fields: dict[str, object] = plain["spec"][part] if part else plain["spec"]
        if fields[name] == unset:
            del fields[name]
    return msgspec.msgpack.encode(plain)


def _without_reason(command: Delete) -> bytes:
    plain: dict[str, object] = msgspec.to_builtins(command, order="deterministic")
    del plain["reason"]
    return msgspec.msgpack.encode(plain)


def _repetition(state: State, envelope: Envelope, command: Command, parts: Sequence[Command]) -> Outcome | None:
    """The first outcome again, if this key was used within its lifetime and what it made is still there.

    What it deleted at once stays deleted: that repetition is answered, too.
    """
    known = state.keys.get(_key(envelope))
    if known is None or envelope.at - known.at > KEY_LIFETIME_MS:
        return None
    if not all(made.deleted or _exists(state, made) for made in known.made):
        return None
    if known.fingerprint != _fingerprint(command, parts):
        return Rejected(
            code=Code.IDEMPOTENCY_KEY_REUSED,
            message="this key was used for another request",
            pointer="/header/idempotency-key",
            uid=known.made[0].uid,
        )
    answer = Applied(revision=state.revision, change=Change.UNCHANGED)
    answers = tuple(replace(answer, kind=made.kind, uid=made.uid, operation=made.operation) for made in known.made)
    return replace(answer, parts=answers) if isinstance(command, Batch) else answers[0]


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
