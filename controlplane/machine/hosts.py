"""Commands by which the product itself reports and decides: agents, observations, placements."""

from __future__ import annotations

from controlplane.machine.convergence import amount_of, differences, is_confirmed, is_settled
from controlplane.machine.draft import Draft
from controlplane.machine.lifecycle import HOST, MICROVM, HostEvent, MicroVMEvent, OperationEvent
from controlplane.machine.operations import describe, finish
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.placement_rules import refusal
from controlplane.machine.refusals import score_refusal
from controlplane.model.commands import AgentConnected, AgentLost, Destroyed, MarkUnplaced, Place, Report
from controlplane.model.resources import Host, Meta, MicroVM, MicroVMPhase, Observation, PlacementDecision, Unplaced
from controlplane.model.spec import HostSpec
from controlplane.model.types import Kind, replace

Result = Applied | Rejected


def agent_connected(draft: Draft, command: AgentConnected) -> Result:
    old = draft.state.hosts.get(command.host)
    phase = HOST[old.phase if old is not None else None, HostEvent.CONNECTED]
    assert phase is not None
    if old is None:
        meta = Meta(kind=Kind.HOST, name=command.host, uid=command.uid, created_at=draft.at, updated_at=draft.at)
        old = Host(meta=meta, declared=False, spec=HostSpec(), phase=phase, since=draft.at)
    draft.put_host(
        replace(
            old,
            phase=phase,
            since=old.since if old.phase is phase else draft.at,
            inventory=command.inventory,
            session=command.session,
            node=command.node,
            last_seen_at=draft.at,
        )
    )
    return _applied(draft, old.meta.uid)


def agent_lost(draft: Draft, command: AgentLost) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return _stale(f"host {command.host} has another session")
    phase = HOST[host.phase, HostEvent.LOST]
    if phase is None:
        draft.drop_host(host)
    else:
        draft.put_host(replace(host, phase=phase, since=draft.at, session=None, node=None, last_seen_at=draft.at))
    return _applied(draft, host.meta.uid)


def report(draft: Draft, command: Report) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return _stale(f"host {command.host} has another session")
    for seen in command.observed:
        _observe(draft, command.host, seen)
    for gone in command.destroyed:
        _confirm_destroyed(draft, command.host, gone)
    if command.unmanaged is not None:
        host = draft.state.hosts[command.host]
        since = {(found.driver, found.native_id): found.since for found in host.unmanaged}
        found = [replace(each, since=since.get((each.driver, each.native_id), draft.at)) for each in command.unmanaged]
        draft.put_host(replace(host, unmanaged=sorted(found, key=lambda each: (each.driver, each.native_id))))
    return _applied(draft, host.meta.uid)


def _observe(draft: Draft, host: str, seen: Observation) -> None:
    """Take an observation, unless it is of another placement than the present one."""
    vm = draft.state.microvms.get(seen.uid)
    if vm is None or vm.placement is None or vm.placement.host != host or vm.epoch != seen.epoch:
        return
    seen, old = replace(seen, host=host), vm.observed
    if old is not None and replace(seen, at=old.at) == old:
        # Nothing new is seen, but what it means may be new: the same failure of another intent.
        seen = old
    vm = replace(vm, observed=seen)
    if seen.failure is not None and seen.failure.permanent:
        vm = _move(draft, vm, MicroVMEvent.FAILED)
        describe(draft, vm.operation, seen.failure.message)
    elif seen.failure is not None:
        describe(draft, vm.operation, f"{seen.failure.message}; trying again")
    elif seen.generation is not None:
        vm = _move(draft, vm, MicroVMEvent.CONFIRMED)
    if is_confirmed(vm):
        vm = replace(vm, held=amount_of(vm.spec))
    if is_settled(vm):
        finish(draft, vm.operation, OperationEvent.SETTLED, "done")
    drifted = bool(differences(vm)) and vm.phase is not MicroVMPhase.DELETING
    vm = replace(vm, drifted_since=(vm.drifted_since or draft.at) if drifted else None)
    draft.put_microvm(vm)


def _confirm_destroyed(draft: Draft, host: str, gone: Destroyed) -> None:
    vm = draft.state.microvms.get(gone.uid)
    if vm is None or vm.placement is None or vm.placement.host != host or vm.epoch != gone.epoch:
        return
    if (vm.phase, MicroVMEvent.DESTROYED) not in MICROVM:
        return
    finish(draft, vm.operation, OperationEvent.SETTLED, f"host {host} confirmed that nothing is left")
    draft.drop_microvm(vm)


def place(draft: Draft, command: Place) -> Result:
    vm = draft.state.microvms.get(command.uid)
    if vm is None or vm.phase is not MicroVMPhase.PENDING or vm.meta.generation != command.generation:
        return _stale("the microVM has changed since the decision")
    if (refused := score_refusal(command.bids, command.score)) is not None:
        return refused
    host = draft.state.hosts.get(command.host)
    if host is None:
        return Rejected(code=Code.HOST_NOT_FOUND, message=f"host {command.host} does not exist", uid=command.uid)
    if (reason := refusal(draft.state, vm, host)) is not None:
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=f"host {command.host}: {reason}", uid=command.uid)
    epoch = vm.epoch + 1
    decision = PlacementDecision(host=command.host, epoch=epoch, at=draft.at, score=command.score, bids=command.bids)
    vm = replace(vm, epoch=epoch, placement=decision, unplaced=None, held=amount_of(vm.spec), observed=None)
    vm = _move(draft, vm, MicroVMEvent.PLACED)
    describe(draft, vm.operation, f"placed on {command.host}")
    draft.put_microvm(vm)
    return _applied(draft, vm.meta.uid)


def mark_unplaced(draft: Draft, command: MarkUnplaced) -> Result:
    vm = draft.state.microvms.get(command.uid)
    if vm is None or vm.phase is not MicroVMPhase.PENDING or vm.meta.generation != command.generation:
        return _stale("the microVM has changed since the decision")
    if (refused := score_refusal(command.bids)) is not None:
        return refused
    since = vm.unplaced.since if vm.unplaced is not None else draft.at
    unplaced = Unplaced(reason=command.reason, message=command.message, since=since, bids=command.bids)
    describe(draft, vm.operation, command.message)
    draft.put_microvm(replace(vm, unplaced=unplaced))
    return _applied(draft, vm.meta.uid)


def _move(draft: Draft, vm: MicroVM, event: MicroVMEvent) -> MicroVM:
    """`vm` in the phase that `event` leads to; only for events that the table has for every phase it can be in."""
    phase = MICROVM[vm.phase, event]
    assert phase is not None
    return vm if phase is vm.phase else replace(vm, phase=phase, since=draft.at)


def _applied(draft: Draft, uid: str) -> Applied:
    change = Change.CHANGED if draft.changed else Change.UNCHANGED
    revision = draft.revision if draft.changed else draft.state.revision
    return Applied(revision=revision, change=change, uid=uid)


def _stale(message: str) -> Rejected:
    return Rejected(code=Code.STALE, message=message)
