"""Commands about hosts that fall silent: from the leader's keeper of leases, and an operator's word (docs/adr/0100).

Everything here is decided outside, from times that only the leader knows. What the machine adds is that such a decision
counts only in the session and the term it was made in: a leader that lost its office has also lost the table of leases
that it decided from.
"""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.incarnations import heard_of, not_heard_of
from controlplane.machine.lifecycle import HOST, MICROVM, HostEvent, MicroVMEvent
from controlplane.machine.operations import describe
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.recovery_rules import resurrection_refusal
from controlplane.machine.refusals import conflict, missing
from controlplane.machine.steps import Result, applied, order_end, other_term, stale, without_host
from controlplane.model.commands import (
    ConfirmFenced,
    ConfirmOff,
    HostDetached,
    HostFenced,
    HostHeard,
    HostSuspected,
    Resurrect,
)
from controlplane.model.resources import Host, HostPhase, Resurrection
from controlplane.model.types import Kind, replace


def suspected(draft: Draft, command: HostSuspected) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return stale(f"host {command.host} has another session")
    if (phase := HOST.get((host.phase, HostEvent.SUSPECTED))) is None:
        return stale(f"host {command.host} is {host.phase.value}")
    draft.put_host(replace(host, phase=phase, since=draft.at, last_seen_at=draft.at, reason=command.reason))
    return applied(draft, host.meta.uid)


def heard(draft: Draft, command: HostHeard) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return stale(f"host {command.host} has another session")
    if (phase := HOST.get((host.phase, HostEvent.HEARD))) is None:
        return stale(f"host {command.host} is {host.phase.value}")
    draft.put_host(replace(host, phase=phase, since=draft.at, last_seen_at=draft.at, reason=""))
    return applied(draft, host.meta.uid)


def detached(draft: Draft, command: HostDetached) -> Result:
    if (refused := other_term(command.term, draft.term)) is not None:
        return refused
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return stale(f"host {command.host} has another session")
    if (phase := HOST.get((host.phase, HostEvent.DETACHED))) is None:
        return stale(f"host {command.host} is {host.phase.value}")
    seen = host.last_seen_at if host.phase is HostPhase.SUSPECT else draft.at
    draft.put_host(
        replace(
            host,
            phase=phase,
            since=draft.at,
            session=None,
            node=None,
            last_seen_at=seen,
            reason=command.reason,
        )
    )
    return applied(draft, host.meta.uid)


def fenced(draft: Draft, command: HostFenced) -> Result:
    if (refused := other_term(command.term, draft.term)) is not None:
        return refused
    host = draft.state.hosts.get(command.host)
    # A suspect host may still be granted a lease: only an operator's word fences that.
    if host is None or host.phase is not HostPhase.DETACHED:
        return stale(f"host {command.host} is {host.phase.value if host is not None else 'gone'}, not detached")
    if command.since is not None and command.since != host.since:
        return stale(f"host {command.host} came back and was detached again")
    draft.put_host(_fenced(draft, host, reason=command.reason))
    return applied(draft, host.meta.uid)


def confirm_off(draft: Draft, command: ConfirmFenced | ConfirmOff) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or not host.declared:
        return missing(Kind.HOST, command.host)
    if command.revision is not None and command.revision != host.meta.intent_revision:
        return conflict(host.meta, command.revision)
    if host.phase not in (HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED):
        return Rejected(
            code=Code.HOST_NOT_LOST,
            message=f"host {command.host} is {host.phase.value}: only a host that fell silent can be confirmed as off",
            pointer="/name",
            uid=host.meta.uid,
        )
    if host.confirmed_by is None:
        reason = host.reason or f"confirmed by {draft.actor}"
        if isinstance(command, ConfirmOff) and host.phase is HostPhase.SUSPECT:
            # The leader may be granting to it right now. From here on it does not, and it knows when it did last.
            lost = replace(host, phase=HostPhase.DETACHED, since=draft.at, session=None, node=None, reason=reason)
        else:
            lost = _fenced(draft, host, reason=reason)
        draft.put_host(replace(lost, confirmed_by=draft.actor))
        heard_of(draft, command.host)
    changed = Change.CHANGED if draft.changed else Change.UNCHANGED
    revision = draft.revision if draft.changed else draft.state.revision
    return Applied(revision=revision, change=changed, kind=Kind.HOST, uid=host.meta.uid)


def resurrect(draft: Draft, command: Resurrect) -> Result:
    if (refused := other_term(command.term, draft.term)) is not None:
        return refused
    vm = draft.state.microvms.get(command.uid)
    if vm is None or vm.placement is None or vm.placement.host != command.host or vm.epoch != command.epoch:
        return stale("the microVM has changed since the decision")
    host = draft.state.hosts.get(command.host)
    if host is None or host.phase is not HostPhase.FENCED:
        return stale(f"host {command.host} is {host.phase.value if host is not None else 'gone'}, not fenced")
    if (vm.phase, MicroVMEvent.RESURRECTED) not in MICROVM:
        return stale(f"the microVM is {vm.phase.value}")
    if (reason := not_heard_of(draft.state, host.meta.name) or resurrection_refusal(vm, host)) is not None:
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=reason, uid=command.uid)
    resurrection = Resurrection(host=command.host, epoch=vm.epoch, at=draft.at, reason=command.reason)
    vm = replace(without_host(draft, vm, MicroVMEvent.RESURRECTED), resurrection=resurrection)
    describe(draft, vm.operation, f"host {command.host} is lost ({command.reason}): to be placed anew")
    draft.put_microvm(vm)
    # Read again: the room that the microVM held there is given back by now.
    host = draft.state.hosts[command.host]
    draft.put_host(order_end(host, command.uid, command.epoch, draft.because(f"given up here: {command.reason}")))
    return applied(draft, command.uid)


def _fenced(draft: Draft, host: Host, *, reason: str) -> Host:
    since = host.since if host.phase is HostPhase.FENCED else draft.at
    return replace(host, phase=HostPhase.FENCED, since=since, session=None, node=None, reason=reason)
