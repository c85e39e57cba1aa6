"""The audit chain: a record for every command that changed, or asked to change, what is declared or what runs.

Records follow from log entries alone, so every node has the same chain, and its newest records are part of the state
and of its digest. They are made around `apply`, which stays what it is: a refusal changes nothing but the chain.

What users ask for is recorded whatever comes of it. What the product decides by itself is recorded where it changes
something; what agents observe, and that certificates are renewed, is not: it is no decision, and it is most of the log.
The chain begins with a command that older builds do not know, so that no node holds a state without the records that
the others have.

The state holds `MAX_HELD` records at most. Earlier ones go when `DropAudit` says so, which is refused while a node that
exports the chain has not written them; one that has not said anything for `PATIENCE_MS` is waited for no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from controlplane.machine.audit_targets import CLUSTER, Target, digest_in, target_of
from controlplane.machine.draft import DIGEST_MODULUS, Draft, digest_of
from controlplane.machine.outcome import Applied, Change, Code, Outcome, Rejected
from controlplane.machine.state import State, audit_key
from controlplane.model.audit import (
    GENESIS,
    MAX_TEXT,
    AuditExport,
    AuditOutcome,
    AuditRecord,
    Origin,
    sealed,
)
from controlplane.model.commands import (
    AgentConnected,
    AgentLost,
    Batch,
    BeginAudit,
    BeginIncarnation,
    Collect,
    Command,
    DropAudit,
    Envelope,
    Evict,
    ExportedAudit,
    HostDetached,
    HostEvacuated,
    HostFenced,
    HostHeard,
    HostSuspected,
    MarkStaying,
    MarkUnplaced,
    NoteApiTokenUses,
    Place,
    RenewCertificate,
    Report,
    Resurrect,
    StepGroup,
    Witnessed,
    WitnessRequests,
    open_payload,
)
from controlplane.model.types import replace

MAX_HELD = 50_000
MAX_EXPORTS = 64
"""Nodes whose exports are remembered; many more than a cluster has."""
PATIENCE_MS = 7 * 24 * 3600 * 1000

_Observed = (
    AgentConnected
    | AgentLost
    | Report
    | HostSuspected
    | HostHeard
    | MarkUnplaced
    | ExportedAudit
    | NoteApiTokenUses
    | RenewCertificate
)
_Decided = (
    Place
    | Resurrect
    | Evict
    | MarkStaying
    | HostDetached
    | HostFenced
    | HostEvacuated
    | Collect
    | BeginIncarnation
    | BeginAudit
    | DropAudit
    | StepGroup
)

Result = Applied | Rejected


# -- commands ----------------------------------------------------------------------------------------------------------


def kept(draft: Draft) -> Result:
    """Of commands that say nothing but what the chain records of them."""
    return Applied(revision=draft.state.revision, change=Change.UNCHANGED)


def exported(draft: Draft, command: ExportedAudit) -> Result:
    if not 0 <= command.through <= draft.state.audit_head:
        message = f"record {command.through} is not in the chain, which ends at {draft.state.audit_head}"
        return Rejected(code=Code.INVALID, message=message, pointer="/through")
    known = draft.state.audit_exports
    if command.node not in known and len(known) >= MAX_EXPORTS:
        message = f"{MAX_EXPORTS} nodes export the audit chain already"
        return Rejected(code=Code.INVALID, message=message, pointer="/node")
    draft.put_audit_export(AuditExport(node=command.node, through=command.through, at=draft.at))
    return Applied(revision=draft.revision, change=Change.CHANGED)


def drop(draft: Draft, command: DropAudit) -> Result:
    """The newest record stays: the next one follows it."""
    for node, export in sorted(draft.state.audit_exports.items()):
        if export.through < command.through and draft.at - export.at < PATIENCE_MS:
            message = f"node {node} has written the audit chain up to record {export.through} only"
            return Rejected(code=Code.STALE, message=message, pointer="/through")
    if not draft.state.audit_first <= command.through < draft.state.audit_head:
        held = f"{draft.state.audit_first} to {draft.state.audit_head}"
        message = f"record {command.through} cannot be dropped: held are {held}, and the last one stays"
        return Rejected(code=Code.STALE, message=message, pointer="/through")
    while draft.state.audit_first <= command.through:
        draft.drop_oldest_audit()
    return Applied(revision=draft.revision, change=Change.CHANGED)


# -- recording ---------------------------------------------------------------------------------------------------------


def recorded(before: State, after: State, envelope: Envelope, outcome: Outcome) -> State:
    """`after` with what the chain says of `envelope`, which led to it from `before`."""
    command = open_payload(envelope)
    if isinstance(command, _Observed):
        return after
    if not after.audit_head:
        return _append(after, [_beginning(after, envelope)]) if isinstance(command, BeginAudit) else after
    if isinstance(command, BeginAudit):
        return after
    return _append(after, list(_records(before, after, envelope, command, outcome)))


def _append(state: State, unsealed: list[AuditRecord]) -> State:
    """Each with its place in the chain; what is over the limit goes at the other end."""
    if not unsealed:
        return state
    audit, head, digest = state.audit, state.audit_head, state.digest
    previous = audit[audit_key(head)].hash if head else GENESIS
    for each in unsealed:
        head += 1
        key = audit_key(head)
        link = sealed(msgspec.structs.replace(each, sequence=head, previous=previous))
        audit, previous = audit.set(key, link), link.hash
        digest += digest_of(key, link)
    while len(audit) > MAX_HELD:
        key = audit_key(head - len(audit) + 1)
        digest -= digest_of(key, audit[key])
        audit = audit.delete(key)
    return replace(state, audit=audit, audit_head=head, digest=digest % DIGEST_MODULUS)


def _beginning(state: State, envelope: Envelope) -> AuditRecord:
    return _unsealed(envelope, AuditOutcome.DONE, Target(kind=CLUSTER, name=state.cluster_id))


def _records(
    before: State, after: State, envelope: Envelope, command: Command, outcome: Outcome
) -> Iterator[AuditRecord]:
    if isinstance(command, WitnessRequests):
        for each in command.requests:
            yield _of_request(each, command.node, envelope)
    elif isinstance(command, Batch):
        yield from _of_batch(before, after, envelope, command, outcome)
    elif isinstance(outcome, Rejected):
        if not isinstance(command, _Decided) or envelope.origin is not msgspec.UNSET:
            yield _of_refusal(before, envelope, envelope.kind, command, outcome)
    elif not isinstance(command, _Decided) or after.revision != before.revision:
        yield _of_change(before, after, envelope, envelope.kind, command, outcome)


def _of_batch(before: State, after: State, envelope: Envelope, batch: Batch, outcome: Outcome) -> Iterator[AuditRecord]:
    """One for each part; of a refused one, the part that was."""
    if isinstance(outcome, Rejected):
        if outcome.part is None:
            yield _of_refusal(before, envelope, envelope.kind, batch, outcome)
        else:
            part = batch.commands[outcome.part]
            yield _of_refusal(before, envelope, part.kind, open_payload(part), outcome)
        return
    for number, (part, made) in enumerate(zip(batch.commands, outcome.parts, strict=True)):
        change = _of_change(before, after, envelope, part.kind, open_payload(part), made)
        yield msgspec.structs.replace(change, part=number)


def _of_change(
    before: State, after: State, envelope: Envelope, action: str, command: Command, outcome: Applied
) -> AuditRecord:
    target = target_of(before, command)
    old, new = digest_in(before, target), digest_in(after, target)
    record = _unsealed(envelope, AuditOutcome(outcome.change.value), target, action)
    return msgspec.structs.replace(
        record, uid=target.uid or outcome.uid, before=old, after=new, reason=_reason(command)
    )


def _of_refusal(before: State, envelope: Envelope, action: str, command: Command, refused: Rejected) -> AuditRecord:
    target = target_of(before, command)
    record = _unsealed(envelope, AuditOutcome.REFUSED, target, action)
    digest = digest_in(before, target)
    return msgspec.structs.replace(
        record,
        before=digest,
        after=digest,
        reason=_reason(command),
        code=refused.code.value,
        pointer=_bounded(refused.pointer),
        part=refused.part,
    )


def _of_request(request: Witnessed, node: str, envelope: Envelope) -> AuditRecord:
    outcome = AuditOutcome.DONE if request.status < 400 else AuditOutcome.REFUSED
    target = Target(namespace=request.namespace, name=request.name)
    record = _unsealed(envelope, outcome, target, request.action, request.origin)
    return msgspec.structs.replace(
        record,
        at=request.at,
        actor=_bounded(request.actor),
        status=request.status,
        count=request.count,
        node=node,
    )


def _unsealed(
    envelope: Envelope, outcome: AuditOutcome, target: Target, action: str | None = None, origin: Origin | None = None
) -> AuditRecord:
    """A record whose place in the chain is not known yet."""
    known = envelope.origin if envelope.origin is not msgspec.UNSET else None
    origin = origin or known or Origin()
    return AuditRecord(
        sequence=0,
        at=envelope.at,
        actor=_bounded(envelope.actor),
        action=_bounded(action or envelope.kind) or "",
        outcome=outcome,
        command=envelope.id,
        kind=target.kind,
        namespace=_bounded(target.namespace),
        name=_bounded(target.name),
        uid=target.uid,
        address=_bounded(origin.address),
        request=_bounded(origin.request),
        trace=_bounded(origin.trace or envelope.trace),
        agent=_bounded(origin.agent),
        previous="",
    )


def _bounded(text: str | None) -> str | None:
    return text[:MAX_TEXT] if text is not None else None


def _reason(command: Command) -> str | None:
    """Why, in the words of whoever asked or decided."""
    return _bounded(getattr(command, "reason", None) or None)
