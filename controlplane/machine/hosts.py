"""Commands by which agents report: their sessions, and what they see on their hosts."""

from __future__ import annotations

from controlplane.machine.convergence import amount_of, differences, is_confirmed, is_settled
from controlplane.machine.draft import Draft
from controlplane.machine.evacuation import departed
from controlplane.machine.incarnations import heard_of
from controlplane.machine.lifecycle import HOST, MICROVM, HostEvent, MicroVMEvent, OperationEvent
from controlplane.machine.operations import describe, finish
from controlplane.machine.recovery_rules import applied_action, most_permissive
from controlplane.machine.steps import Result, applied, move, stale
from controlplane.model.commands import AgentConnected, AgentLost, Destroyed, Report
from controlplane.model.gc import Leftover
from controlplane.model.resources import Host, HostPhase, Meta, MicroVMPhase, Observation
from controlplane.model.spec import HostSpec
from controlplane.model.types import Kind, replace


def agent_connected(draft: Draft, command: AgentConnected) -> Result:
    old = draft.state.hosts.get(command.host)
    if old is not None and (reason := _other_boot(old, command)) is not None:
        return stale(reason)
    phase = HOST[old.phase if old is not None else None, HostEvent.CONNECTED]
    assert phase is not None
    if old is None:
        meta = Meta(kind=Kind.HOST, name=command.host, uid=command.uid, created_at=draft.at, updated_at=draft.at)
        old = Host(meta=meta, declared=False, spec=HostSpec(), phase=phase, since=draft.at)
    host = replace(
        old,
        phase=phase,
        since=old.since if old.phase is phase else draft.at,
        inventory=command.inventory,
        session=command.session,
        node=command.node,
        last_seen_at=draft.at,
        lease_ttl_ms=command.lease_ttl_ms,
        reason=old.reason if phase is HostPhase.REJOINING else "",
        # Whoever dials in is not off. Were the word kept, it would speak for the host's next silence too.
        confirmed_by=None,
        # Of this session's agent nothing is known yet.
        has_looked=False,
    )
    draft.put_host(host)
    _distrust(draft, host)
    return applied(draft, host.meta.uid)


def _other_boot(host: Host, command: AgentConnected) -> str | None:
    """Why this agent may not take the host over from another boot, or another machine, that may hold a lease."""
    if host.phase not in (HostPhase.READY, HostPhase.SUSPECT) or not host.lease_ttl_ms or host.inventory is None:
        return None
    known, new = host.inventory.boot_id, command.inventory.boot_id
    if not known or known == new:
        return None
    return (
        f"host {command.host} is connected as boot {known}, which may still hold a lease; this is boot {new}."
        " After a reboot, try again: it is accepted once the host is detached, within the time of a lease."
        " If it never is, another machine uses the same certificate: give each its own."
    )


def _distrust(draft: Draft, host: Host) -> None:
    """A driver that fences no more, as after a downgrade of the agent, counts as keeping what runs there."""
    for vm in draft.state.microvms_on(host.meta.name):
        draft.put_microvm(replace(vm, detach=most_permissive(vm.detach, applied_action(vm, host))))


def agent_lost(draft: Draft, command: AgentLost) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return stale(f"host {command.host} has another session")
    if (host.phase, HostEvent.LOST) not in HOST:
        return stale(f"host {command.host} is {host.phase.value}")
    phase = HOST[host.phase, HostEvent.LOST]
    if phase is None:
        draft.drop_host(host, draft.because(command.reason))
    else:
        # Without its reason, as in snapshots of before leases: such a one and a replayed log must give one state.
        draft.put_host(replace(host, phase=phase, since=draft.at, session=None, node=None, last_seen_at=draft.at))
    return applied(draft, host.meta.uid)


def report(draft: Draft, command: Report) -> Result:
    host = draft.state.hosts.get(command.host)
    if host is None or host.session != command.session:
        return stale(f"host {command.host} has another session")
    for seen in command.observed:
        _observe(draft, command.host, seen)
    for gone in command.destroyed:
        _confirm_destroyed(draft, command.host, gone)
    if command.unmanaged is not None:
        host = draft.state.hosts[command.host]
        since = {(found.driver, found.native_id): found.since for found in host.unmanaged}
        found = [replace(each, since=since.get((each.driver, each.native_id), draft.at)) for each in command.unmanaged]
        draft.put_host(replace(host, unmanaged=sorted(found, key=lambda each: (each.driver, each.native_id))))
    if command.left_behind is not None:
        draft.put_host(_looked(draft, draft.state.hosts[command.host], command.left_behind))
    if command.rejoined:
        _rejoin(draft, draft.state.hosts[command.host])
    return applied(draft, host.meta.uid)


def _looked(draft: Draft, host: Host, told: list[Leftover]) -> Host:
    """`host` with what its agent told of what is left behind; an order whose thing it tells of no more is done."""
    since = {each.key: each.since for each in host.left_behind}
    left = [replace(each, since=since.get(each.key, draft.at)) for each in told]
    keys = {each.key for each in left}
    return replace(
        host,
        left_behind=sorted(left, key=lambda each: each.key),
        has_looked=True,
        clearing={key: order for key, order in host.clearing.items() if key in keys},
    )


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
        vm = move(draft, vm, MicroVMEvent.FAILED)
        describe(draft, vm.operation, seen.failure.message)
    elif seen.failure is not None:
        describe(draft, vm.operation, f"{seen.failure.message}; trying again")
    elif seen.generation is not None:
        vm = move(draft, vm, MicroVMEvent.CONFIRMED)
    if is_confirmed(vm):
        vm = replace(vm, held=amount_of(vm.spec), detach=applied_action(vm, draft.state.hosts[host]))
    if is_settled(vm):
        finish(draft, vm.operation, OperationEvent.SETTLED, "done")
    drifted = bool(differences(vm)) and not vm.is_tombstone and not vm.is_halted
    vm = replace(vm, drifted_since=(vm.drifted_since or draft.at) if drifted else None)
    draft.put_microvm(vm)


def _confirm_destroyed(draft: Draft, name: str, gone: Destroyed) -> None:
    host = draft.state.hosts[name]
    if (ordered := host.stale.get(gone.uid)) is not None and ordered <= gone.epoch:
        stale = {uid: epoch for uid, epoch in host.stale.items() if uid != gone.uid}
        orders = {uid: order for uid, order in host.orders.items() if uid != gone.uid}
        draft.put_host(replace(host, stale=stale, orders=orders))
    vm = draft.state.microvms.get(gone.uid)
    if vm is None or vm.placement is None or vm.placement.host != name or vm.epoch != gone.epoch:
        return
    if (vm.phase, MicroVMEvent.DESTROYED) not in MICROVM:
        return
    if MICROVM[vm.phase, MicroVMEvent.DESTROYED] is MicroVMPhase.PENDING:
        departed(draft, vm)
        return
    finish(draft, vm.operation, OperationEvent.SETTLED, f"host {name} confirmed that nothing is left")
    draft.drop_microvm(vm, vm.deletion or draft.because(f"host {name} confirmed its tombstone"))


def _rejoin(draft: Draft, host: Host) -> None:
    """The end of a rejoin, unless an order to destroy is still open: then the report was of before it."""
    phase = HOST.get((host.phase, HostEvent.REJOINED))
    if phase is not None and not host.stale:
        draft.put_host(replace(host, phase=phase, since=draft.at, reason=""))
        heard_of(draft, host.meta.name)
