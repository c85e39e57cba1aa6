"""The audit chain: a record for every command that changed, or asked to change, what is declared or what runs.

Records follow from log entries alone, so every node has the same chain, and its newest records are part of the state.
They prove themselves, so its digest leaves them out: what they say of an object is a digest, too, which two builds may
reckon differently while a cluster is upgraded (docs/adr/0162). They are made around `apply`, which stays what it is: a
refusal changes nothing but the chain.

What users ask for is recorded whatever comes of it. What the product decides by itself is recorded where it changes
something; what agents observe, and that certificates are renewed, is not: it is no decision, and it is most of the log.
The chain begins with a command that older builds do not know, so that no node holds a state without the records that
the others have.

The state holds `MAX_HELD` records at most. Earlier ones go when `DropAudit` says so, which is refused while a node that
exports the chain has not written them; one that has not said anything for `PATIENCE_MS` is waited for no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from controlplane.machine.audit_targets import CLUSTER, digests_of, target_of
from controlplane.machine.draft import Draft
from controlplane.machine.effect import Effect
from controlplane.machine.outcome import Applied, Change, Code, Rejected
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
    DropDataKey,
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
    RaiseMachineVersion,
    RenewCertificate,
    Report,
    Reseal,
    Resurrect,
    StepGroup,
    Witnessed,
    WitnessRequests,
)
from controlplane.model.types import replace

MAX_HELD = 50_000
MAX_EXPORTS = 64
"""Nodes whose exports are remembered; many more than a cluster has."""
PATIENCE_MS = 7 * 24 * 3600 * 1000

_OBSERVED = frozenset(
    {
        AgentConnected,
        AgentLost,
        Report,
        HostSuspected,
        HostHeard,
        MarkUnplaced,
        ExportedAudit,
        NoteApiTokenUses,
        RenewCertificate,
    }
)
"""Never recorded."""
_DECIDED = frozenset(
    {
        Place,
        Resurrect,
        Evict,
        MarkStaying,
        HostDetached,
        HostFenced,
        HostEvacuated,
        Collect,
        BeginIncarnation,
        BeginAudit,
        DropAudit,
        Reseal,
        DropDataKey,
        StepGroup,
        RaiseMachineVersion,
    }
)
"""Recorded where they change something."""

_OUTCOMES = {change: AuditOutcome(change.value) for change in Change}

Result = Applied | Rejected


# -- commands ----------------------------------------------------------------------------------------------------------


def kept(draft: Draft, _command: BeginAudit | WitnessRequests) -> Result:
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
    draft.drop_audit(command.through)
    return Applied(revision=draft.revision, change=Change.CHANGED)


# -- recording ---------------------------------------------------------------------------------------------------------


def recorded(effect: Effect) -> State:
    """The state after a command, with what the chain says of it."""
    after, command = effect.after, effect.command
    if type(command) in _OBSERVED:
        return after
    if isinstance(command, BeginAudit):
        return after if after.audit_head else _append(after, [_beginning(effect)])
    return _append(after, list(_records(effect))) if after.audit_head else after


def _append(state: State, unsealed: Sequence[AuditRecord]) -> State:
    """Each with its place in the chain; what is over the limit goes at the other end."""
    if not unsealed:
        return state
    head = state.audit_head
    previous = state.audit_at(head).hash if head else GENESIS
    links: list[tuple[str, AuditRecord]] = []
    for each in unsealed:
        head += 1
        key = audit_key(head)
        link = sealed(msgspec.structs.replace(each, sequence=head, previous=previous))
        links.append((key, link))
        previous = link.hash
    audit = state.audit.updated(links)
    if over := [audit_key(sequence) for sequence in range(state.audit_first, head + 1 - MAX_HELD)]:
        audit = audit.without(over)
    return replace(state, audit=audit, audit_head=head)


def _beginning(effect: Effect) -> AuditRecord:
    unsealed = _unsealed(effect.envelope)
    name = _bounded(effect.after.cluster_id)
    return msgspec.structs.replace(unsealed, action=effect.envelope.kind, kind=CLUSTER, name=name)


def _records(effect: Effect) -> Iterator[AuditRecord]:
    command, envelope, outcome = effect.command, effect.envelope, effect.outcome
    if isinstance(command, WitnessRequests):
        for request in command.requests:
            yield _of_request(request, command.node, envelope)
    elif isinstance(command, Batch):
        yield from _of_batch(effect, command)
    elif isinstance(outcome, Rejected):
        if type(command) not in _DECIDED or envelope.origin is not msgspec.UNSET:
            yield _of_refusal(effect, envelope.kind, command, outcome)
    elif type(command) not in _DECIDED or effect.after.revision != effect.before.revision:
        yield _of_change(effect, _unsealed(envelope), envelope.kind, command, outcome)


def _of_batch(effect: Effect, batch: Batch) -> Iterator[AuditRecord]:
    """One for each part; of a refused one, the part that was."""
    outcome = effect.outcome
    if isinstance(outcome, Applied):
        unsealed = _unsealed(effect.envelope)
        for number, (part, made) in enumerate(zip(batch.commands, outcome.parts, strict=True)):
            yield _of_change(effect, unsealed, part.kind, effect.parts[number], made, part=number)
    elif outcome.part is None:
        yield _of_refusal(effect, effect.envelope.kind, batch, outcome)
    else:
        yield _of_refusal(effect, batch.commands[outcome.part].kind, effect.parts[outcome.part], outcome)


def _of_change(
    effect: Effect, unsealed: AuditRecord, action: str, command: Command, outcome: Applied, part: int | None = None
) -> AuditRecord:
    target = target_of(effect.before, command)
    before, after = digests_of(effect, target)
    return msgspec.structs.replace(
        unsealed,
        action=action,
        outcome=_OUTCOMES[outcome.change],
        kind=target.kind,
        namespace=_bounded(target.namespace),
        name=_bounded(target.name),
        uid=target.uid or outcome.uid,
        before=before,
        after=after,
        reason=_reason(command),
        part=part,
    )


def _of_refusal(effect: Effect, action: str, command: Command, refused: Rejected) -> AuditRecord:
    target = target_of(effect.before, command)
    before, after = digests_of(effect, target)
    return msgspec.structs.replace(
        _unsealed(effect.envelope),
        action=action,
        outcome=AuditOutcome.REFUSED,
        kind=target.kind,
        namespace=_bounded(target.namespace),
        name=_bounded(target.name),
        uid=target.uid,
        before=before,
        after=after,
        reason=_reason(command),
        code=refused.code.value,
        pointer=_bounded(refused.pointer),
        part=refused.part,
    )


def _of_request(request: Witnessed, node: str, envelope: Envelope) -> AuditRecord:
    return msgspec.structs.replace(
        _unsealed(envelope, request.origin),
        namespace=_bounded(request.namespace),
        name=_bounded(request.name),
        action=_bounded(request.action) or envelope.kind,
        outcome=AuditOutcome.DONE if request.status < 400 else AuditOutcome.REFUSED,
        at=request.at,
        actor=_bounded(request.actor),
        status=request.status,
        count=request.count,
        node=node,
    )


def _unsealed(envelope: Envelope, origin: Origin | None = None) -> AuditRecord:
    """What all records of one command have in common: who, when and from where."""
    known = envelope.origin if envelope.origin is not msgspec.UNSET else None
    origin = origin or known or Origin()
    return AuditRecord(
        sequence=0,
        at=envelope.at,
        actor=_bounded(envelope.actor),
        action="",
        outcome=AuditOutcome.DONE,
        command=envelope.id,
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
