"""Conditions: what a person needs to know about an object, in the words of Kubernetes' convention.

They follow from the record, so they are reckoned on reading and never stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from controlplane.decide.drift import SILENT, DriftClass, classify
from controlplane.machine.convergence import current_observation
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.recovery_rules import resurrection_refusal
from controlplane.machine.state import State
from controlplane.model.gc import Leftover, LeftoverKind
from controlplane.model.resources import (
    WAITS_FOR_LEASE,
    Availability,
    Host,
    HostPhase,
    MicroVM,
    MicroVMPhase,
    ObservedPower,
)
from controlplane.model.spec import HostMode, OnDetach, PowerState, detach_action
from controlplane.model.types import record

_NAMED = 5
"""So many of the things that are left are named; the rest is a number."""


class Truth(StrEnum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@record
class Condition:
    type: str
    status: Truth
    reason: str
    """CamelCase, for machines."""
    message: str
    """A sentence, for people."""
    since_ms: int | None = None


def conditions(state: State, vm: MicroVM) -> tuple[Condition, ...]:
    """Placed, Running, Ready and InSync of one microVM."""
    return (_placed(vm), _running(state, vm), _ready(state, vm), _in_sync(state, vm))


def is_ready(state: State, vm: MicroVM) -> bool:
    """Whether its guest said so since its last start, and its host is heard."""
    seen = current_observation(vm)
    return seen is not None and seen.ready and seen.power is ObservedPower.RUNNING and not _is_unreachable(state, vm)


def host_conditions(state: State, host: Host) -> tuple[Condition, ...]:
    """Connected, Schedulable and ReadyForReprovisioning; and Fencing where a driver does not as it should."""
    holds = len(state.on_host.get(host.meta.name, ()))
    return (_connected(host), _schedulable(host, holds), ready_for_reprovisioning(state, host), *_fencing(host))


def waits_for_lease(state: State, vm: MicroVM) -> str:
    """Why a placed microVM does not run for want of a lease of its host, and since when; empty when that is not why."""
    host = state.hosts.get(vm.placement.host) if vm.placement is not None else None
    if host is None or detach_action(vm.spec) is OnDetach.KEEP or vm.spec.power_state is PowerState.STOPPED:
        return ""
    seen = current_observation(vm)
    if host.phase is HostPhase.REJOINING:
        return f"host {host.meta.name} rejoins and has no lease before it has: {host_outlook(host)}"
    if seen is not None and seen.failure is not None and seen.failure.code == WAITS_FOR_LEASE:
        return f"host {host.meta.name}: {seen.failure.message}"
    return ""


def ready_for_reprovisioning(state: State, host: Host) -> Condition:
    """Whether its disks may be overwritten: its agent looked, and nothing of ours is there, nor can come."""

    def answer(status: Truth, reason: str, message: str) -> Condition:
        return Condition(type="ReadyForReprovisioning", status=status, reason=reason, message=message)

    placed = len(state.on_host.get(host.meta.name, ()))
    if not host.declared or availability(host) is Availability.OPEN:
        return answer(Truth.FALSE, "InUse", "microVMs may come here: drain it first")
    if placed or host.stale:
        words = f"{placed} microVMs are placed there, and {len(host.stale)} copies are yet to be destroyed"
        return answer(Truth.FALSE, "NotEmpty", words)
    if host.unmanaged:
        return answer(Truth.FALSE, "Unmanaged", f"{len(host.unmanaged)} microVMs are there that nobody declared")
    if host.phase is not HostPhase.READY or not host.has_looked:
        words = f"its agent has not told what is left there; the host is {host.phase.value}"
        return answer(Truth.UNKNOWN, "NotVerified", words)
    if left := [each for each in host.left_behind if each.kind is not LeftoverKind.VOLUMES]:
        return answer(Truth.FALSE, "LeftBehind", f"still there: {_named(left)}")
    # What is ordered to go is given up by the policy, or by a person: it is no reason to wait.
    if kept := [each for each in host.left_behind if each.key not in host.clearing]:
        return answer(Truth.FALSE, "Quarantined", f"local volumes are kept there: {_named(kept)}")
    return answer(Truth.TRUE, "Empty", "its agent has looked: nothing of ours is left there")


def _named(left: list[Leftover]) -> str:
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return f"{', '.join(each.key for each in left[:_NAMED])}{more}"


def host_outlook(host: Host) -> str:
    """What a lost host is, and what happens next; empty for one that is not lost."""
    match host.phase:
        case HostPhase.SUSPECT:
            return (
                "nothing new comes here, and what is here may well run; it is ready again once it is heard, and"
                " detached when its lease has ended"
            )
        case HostPhase.DETACHED if host.confirmed_by is not None:
            return (
                f"{host.confirmed_by} confirmed that it is off: it is fenced, and what may be restarted elsewhere is,"
                " once the last lease that may have been granted to it has ended, which takes seconds"
            )
        case HostPhase.DETACHED:
            return (
                "its lease has ended: what may be restarted elsewhere stands still there; it is fenced next, unless its"
                " agent comes back and it rejoins"
            )
        case HostPhase.FENCED if host.confirmed_by is not None:
            return f"{host.confirmed_by} confirmed that it is off: what may be restarted elsewhere is"
        case HostPhase.FENCED:
            return (
                "what may be restarted elsewhere is; the rest waits for the host, or for an operator to confirm it off"
            )
        case HostPhase.REJOINING:
            return f"it is ready once it has destroyed what was given up here ({len(host.stale)} left)"
        case _:
            return ""


def _connected(host: Host) -> Condition:
    silent = host.phase in SILENT
    if host.phase is HostPhase.EXPECTED:
        words = "its agent has never connected"
    elif silent:
        words = f"its agent is silent{_because(host)}; {host_outlook(host)}"
    elif host.phase is HostPhase.REJOINING:
        words = f"its agent is back at node {host.node}; {host_outlook(host)}"
    else:
        words = f"its agent is connected to node {host.node}"
    connected = host.session is not None and not silent
    return Condition(
        type="Connected",
        status=Truth.TRUE if connected else Truth.FALSE,
        reason="AgentConnected" if connected else "AgentSilent",
        message=words,
        since_ms=host.since,
    )


def _because(host: Host) -> str:
    return f" ({host.reason})" if host.reason else ""


def _schedulable(host: Host, holds: int) -> Condition:
    if not host.declared:
        return Condition(
            type="Schedulable", status=Truth.FALSE, reason="NotDeclared", message="nobody declared it: it gets nothing"
        )
    if host.spec.mode is not HostMode.ACTIVE:
        now = availability(host)
        return Condition(
            type="Schedulable",
            status=Truth.FALSE,
            reason=now.value.title().replace("_", ""),
            message=f"{now.value.replace('_', ' ')}; {holds} microVMs are placed there",
        )
    if not host.spec.schedulable:
        return Condition(
            type="Schedulable", status=Truth.FALSE, reason="Cordoned", message=f"cordoned; it keeps {holds} microVMs"
        )
    ready = host.phase is HostPhase.READY
    return Condition(
        type="Schedulable",
        status=Truth.TRUE if ready else Truth.FALSE,
        reason="Ready" if ready else "NotReady",
        message="new microVMs may come here" if ready else f"the host is {host.phase.value}",
    )


def _fencing(host: Host) -> Iterator[Condition]:
    problems = [
        f"driver {each.name} takes no lease ({each.lease_problem})"
        for each in (host.inventory.drivers if host.inventory is not None else ())
        if each.lease_problem
    ]
    if problems:
        yield Condition(
            type="Fencing",
            status=Truth.FALSE,
            reason="DriverTakesNoLease",
            message=(
                f"{'; '.join(problems)}: what needs a lease is not let run there, and counts as kept if it is lost"
            ),
        )


def _placed(vm: MicroVM) -> Condition:
    if vm.placement is not None:
        return Condition(
            type="Placed",
            status=Truth.TRUE,
            reason="LowestBid",
            message=f"placed on {vm.placement.host}, epoch {vm.epoch}",
            since_ms=vm.placement.at,
        )
    if vm.unplaced is not None:
        return Condition(
            type="Placed",
            status=Truth.FALSE,
            reason=vm.unplaced.reason,
            message=vm.unplaced.message,
            since_ms=vm.unplaced.since,
        )
    if vm.resurrection is not None:
        words = f"host {vm.resurrection.host} was lost ({vm.resurrection.reason}): it is being placed anew"
        return Condition(type="Placed", status=Truth.FALSE, reason="HostLost", message=words, since_ms=vm.since)
    return Condition(type="Placed", status=Truth.FALSE, reason="Waiting", message="waiting for bids", since_ms=vm.since)


def _running(state: State, vm: MicroVM) -> Condition:
    seen = current_observation(vm)
    if not _is_unreachable(state, vm) and (waits := waits_for_lease(state, vm)):
        since_ms = seen.at if seen is not None else None
        return Condition(type="Running", status=Truth.FALSE, reason=WAITS_FOR_LEASE, message=waits, since_ms=since_ms)
    if seen is None:
        return Condition(
            type="Running", status=Truth.FALSE, reason="NotObserved", message="no host has reported it yet"
        )
    if _is_unreachable(state, vm):
        return Condition(
            type="Running",
            status=Truth.UNKNOWN,
            reason="HostUnreachable",
            message=f"it was {seen.power.value} when last seen; {_fate(state, vm)}",
            since_ms=seen.at,
        )
    if seen.failure is not None:
        return Condition(
            type="Running",
            status=Truth.FALSE,
            reason=seen.failure.code,
            message=seen.failure.message,
            since_ms=seen.at,
        )
    running = seen.power is ObservedPower.RUNNING
    return Condition(
        type="Running",
        status=Truth.TRUE if running else Truth.FALSE,
        reason=seen.power.value.capitalize(),
        message=seen.cause or f"host {seen.host} reports {seen.power.value}",
        since_ms=seen.at,
    )


def _ready(state: State, vm: MicroVM) -> Condition:
    seen = current_observation(vm)
    if seen is not None and _is_unreachable(state, vm):
        return Condition(
            type="Ready", status=Truth.UNKNOWN, reason="HostUnreachable", message=f"host {seen.host} is silent"
        )
    if seen is not None and is_ready(state, vm):
        return Condition(
            type="Ready", status=Truth.TRUE, reason="GuestReady", message="the guest said so", since_ms=seen.at
        )
    return Condition(
        type="Ready", status=Truth.FALSE, reason="GuestSilent", message="the guest has not said that it is ready"
    )


def _in_sync(state: State, vm: MicroVM) -> Condition:
    drift = classify(state, vm)
    status = {DriftClass.IN_SYNC: Truth.TRUE, DriftClass.DRIFTED: Truth.FALSE}.get(drift.klass, Truth.UNKNOWN)
    words = "; ".join(f"{each.pointer} is {each.observed}, should be {each.desired}" for each in drift.fields)
    return Condition(
        type="InSync",
        status=status,
        reason=drift.klass.value.title().replace("_", ""),
        message=words or f"the microVM is {drift.klass.value.replace('_', ' ')}",
        since_ms=vm.drifted_since,
    )


def _fate(state: State, vm: MicroVM) -> str:
    """What becomes of a microVM whose host is silent."""
    assert vm.placement is not None
    host = state.hosts.get(vm.placement.host)
    if host is None:
        return f"host {vm.placement.host} is gone"
    where = f"host {host.meta.name} is {host.phase.value}{_because(host)}"
    if (reason := resurrection_refusal(vm, host)) is not None:
        return f"{where}; it is not restarted elsewhere: {reason}"
    return f"{where}; it is restarted elsewhere once that is fenced and the breaker is closed"


def _is_unreachable(state: State, vm: MicroVM) -> bool:
    host = state.hosts.get(vm.placement.host) if vm.placement is not None else None
    return vm.phase is not MicroVMPhase.PENDING and (host is None or host.phase in SILENT)
