"""Commands that empty a host: an operator's verbs, and what the leader's runner decides (docs/adr/0106).

A microVM is moved cold, by its own tombstone: in phase `moving` its host is ordered to end the copy of this epoch, as
for a deletion, and only when the host has confirmed that nothing is left does the record become pending, to be placed
with the next epoch. So there is one copy at most whatever is interrupted where, and all of it is in the log: whoever
leads goes on from there.
"""

from __future__ import annotations

import dataclasses

from controlplane.machine.draft import Draft
from controlplane.machine.evacuation_rules import availability, is_emptied, staying_reason, under_way, waiting_reason
from controlplane.machine.lifecycle import AVAILABILITY, MICROVM, AvailabilityEvent, MicroVMEvent
from controlplane.machine.operations import describe
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.refusals import conflict, missing
from controlplane.machine.steps import Result, applied, move, stale, without_host
from controlplane.model.commands import ActOnHost, Evict, HostAction, HostEvacuated, MarkStaying
from controlplane.model.resources import Evacuating, Host, MicroVM, MicroVMPhase, Move, Stay
from controlplane.model.spec import HostMode, HostSpec
from controlplane.model.types import Kind, replace

MAX_PARALLEL = 100


def act_on_host(draft: Draft, command: ActOnHost) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or not host.declared:
        return missing(Kind.HOST, command.host)
    if command.revision is not None and command.revision != host.meta.intent_revision:
        return conflict(host.meta, command.revision)
    spec = _after(host.spec, command)
    if (refused := evacuation_refusal(spec)) is not None:
        return refused
    if spec != host.spec:
        meta = replace(
            host.meta, generation=host.meta.generation + 1, intent_revision=draft.revision, updated_at=draft.at
        )
        draft.put_host(in_mode(draft, replace(host, meta=meta), spec))
    changed = Change.CHANGED if draft.changed else Change.UNCHANGED
    revision = draft.revision if draft.changed else draft.state.revision
    return Applied(revision=revision, change=changed, kind=Kind.HOST, uid=host.meta.uid)


def _after(spec: HostSpec, command: ActOnHost) -> HostSpec:
    match command.action:
        case HostAction.CORDON:
            spec = dataclasses.replace(spec, schedulable=False)
        case HostAction.UNCORDON:
            spec = dataclasses.replace(spec, schedulable=True, mode=HostMode.ACTIVE)
        case HostAction.DRAIN:
            spec = dataclasses.replace(spec, mode=HostMode.DRAIN)
        case HostAction.MAINTENANCE:
            spec = dataclasses.replace(spec, mode=HostMode.MAINTENANCE)
    how = spec.evacuation
    if command.max_parallel is not None:
        how = dataclasses.replace(how, max_parallel=command.max_parallel)
    if command.allow_data_loss is not None:
        how = dataclasses.replace(how, allow_data_loss=command.allow_data_loss)
    return dataclasses.replace(spec, evacuation=how)


def evacuation_refusal(spec: HostSpec) -> Rejected | None:
    """Repeats the edge's bound: what is under way is looked at with every move."""
    if 1 <= spec.evacuation.max_parallel <= MAX_PARALLEL:
        return None
    return Rejected(
        code=Code.INVALID,
        message=f"max_parallel must be between 1 and {MAX_PARALLEL}, not {spec.evacuation.max_parallel}",
        pointer="/spec/evacuation/max_parallel",
    )


def in_mode(draft: Draft, host: Host, spec: HostSpec) -> Host:
    """`host` with another intent. A change of the mode begins an evacuation, or ends it: what has left has left, what
    is on its way arrives, and what stayed is let run again."""
    if spec.mode is host.spec.mode:
        return replace(host, spec=spec)
    for vm in list(draft.state.microvms_on(host.meta.name)):
        draft.put_microvm(replace(vm, stay=None))
    evacuating = None
    if spec.mode is not HostMode.ACTIVE:
        going = under_way(draft.state, host)
        evacuating = Evacuating(mode=spec.mode, asked_at=draft.at, asked_by=draft.actor, under_way=going)
    return replace(host, spec=spec, evacuating=evacuating)


def evict(draft: Draft, command: Evict) -> Result:
    found = _on_evacuated(draft, command)
    if isinstance(found, Rejected):
        return found
    host, vm = found
    if (vm.phase, MicroVMEvent.EVICTED) not in MICROVM:
        return stale(f"the microVM is {vm.phase.value}")
    if (reason := waiting_reason(host)) is not None:
        return stale(reason)
    if (reason := staying_reason(vm, host)) is not None:
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=reason, uid=command.uid)
    going = under_way(draft.state, host)
    if len(going) >= host.spec.evacuation.max_parallel:
        return stale(f"{len(going)} of its microVMs are on their way already")
    vm = replace(move(draft, vm, MicroVMEvent.EVICTED), stay=None, drifted_since=None)
    describe(draft, vm.operation, f"it is moved off host {command.host}")
    draft.put_microvm(vm)
    evacuating = host.evacuating
    assert evacuating is not None
    draft.put_host(replace(host, evacuating=replace(evacuating, under_way=[*going, command.uid])))
    return applied(draft, command.uid)


def departed(draft: Draft, vm: MicroVM) -> None:
    """Its host has confirmed that nothing is left of the copy that it was to end: it is placed anew."""
    assert vm.placement is not None
    name = vm.placement.host
    describe(draft, vm.operation, f"host {name} has ended it: to be placed anew")
    left = Move(host=name, epoch=vm.epoch, at=draft.at)
    draft.put_microvm(replace(without_host(draft, vm, MicroVMEvent.DESTROYED), move=left))
    # Read again: the room that the microVM held there is given back by now.
    host = draft.state.hosts[name]
    if host.evacuating is not None:
        draft.put_host(replace(host, evacuating=replace(host.evacuating, moved=host.evacuating.moved + 1)))


def mark_staying(draft: Draft, command: MarkStaying) -> Result:
    found = _on_evacuated(draft, command)
    if isinstance(found, Rejected):
        return found
    host, vm = found
    if vm.is_tombstone:
        return stale(f"the microVM is {vm.phase.value}")
    if command.halt and host.spec.mode is not HostMode.MAINTENANCE:
        return stale(f"host {command.host} is in mode {host.spec.mode.value}: what stays there runs on")
    old = vm.stay
    since = old.since if old is not None else draft.at
    # A guest that was ordered to shut down stays so until the maintenance ends, whatever its reason becomes.
    halted = command.halt or vm.is_halted
    draft.put_microvm(replace(vm, stay=Stay(reason=command.reason, since=since, halted=halted)))
    return applied(draft, command.uid)


def host_evacuated(draft: Draft, command: HostEvacuated) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.evacuating is None:
        return stale(f"host {command.host} is not to be emptied")
    if (availability(host), AvailabilityEvent.EMPTIED) not in AVAILABILITY:
        return stale(f"host {command.host} is {availability(host).value}")
    if not is_emptied(draft.state, host):
        return stale(f"host {command.host} still holds what is to leave it")
    draft.put_host(replace(host, evacuating=replace(host.evacuating, done_at=draft.at)))
    return applied(draft, host.meta.uid)


def _on_evacuated(draft: Draft, command: Evict | MarkStaying) -> tuple[Host, MicroVM] | Rejected:
    host, vm = draft.state.hosts.get(command.host), draft.state.microvms.get(command.uid)
    if host is None or not host.declared or host.evacuating is None:
        return stale(f"host {command.host} is not to be emptied")
    if vm is None or vm.phase is MicroVMPhase.PENDING or vm.placement is None or vm.placement.host != command.host:
        return stale(f"the microVM is not on host {command.host}")
    if vm.epoch != command.epoch:
        return stale(f"the microVM is at epoch {vm.epoch}, not {command.epoch}")
    return host, vm
