"""What may be collected, apart from its age: the rules that a plan goes by and the machine verifies again.

Both use these functions, so what a plan shows from a fresh state is what the machine accepts. Each gives what stands in
the way, or None. None of them destroys by itself: a microVM ends by a tombstone, a copy on a host by an order, and
the host confirms (docs/adr/0108).
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.machine.audit import PATIENCE_MS
from controlplane.machine.delete import still_used
from controlplane.machine.holding import Holding, found_hold, host_hold, microvm_hold
from controlplane.machine.placing import epochs_before
from controlplane.machine.recovery_rules import is_off
from controlplane.machine.state import State
from controlplane.model.gc import Leftover, LeftoverKind, Trigger
from controlplane.model.policies import GC_POLICY_NAME
from controlplane.model.resources import GCPolicy, Host, HostPhase, MicroVM, MicroVMPhase, Unmanaged
from controlplane.model.types import record


class WaitsFor(StrEnum):
    """What has to happen before something is collected."""

    GRACE = "grace"
    """The time of the policy."""
    THROTTLE = "throttle"
    """Its turn: so many at a time."""
    HOLD = "hold"
    """Its release."""
    HOST = "host"
    """That its host is ready."""
    CONFIRMATION = "confirmation"
    """It is ordered, and its host has to confirm."""
    POLICY = "policy"
    """A policy that collects such: this one keeps them."""
    OPERATOR = "operator"
    """A person, who alone can know."""


_DAY_MS = 24 * 3600 * 1000


@record
class Obstacle:
    waits_for: WaitsFor
    message: str


def declared_policy(state: State) -> GCPolicy | None:
    """What decides how long things are kept; None: nobody declared it, and the settings of the nodes do."""
    return state.gc_policies.get(GC_POLICY_NAME)


def failed_obstacle(state: State, vm: MicroVM) -> Obstacle | None:
    if vm.phase is not MicroVMPhase.FAILED:
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=f"it is {vm.phase.value}")
    if (held := microvm_hold(vm)) is not None:
        return _is_held(held)
    host = state.hosts.get(vm.placement.host) if vm.placement is not None else None
    # It may be restarted elsewhere, and not fail there.
    return _not_ready(host) if host is not None else None


def unmanaged_obstacle(state: State, host: Host, found: Unmanaged) -> Obstacle | None:
    """Only what is certainly a copy of ours, and certainly nobody's any more, may go."""
    if (held := found_hold(host, found.key)) is not None:
        return _is_held(held)
    if not found.ours or found.uid is None or found.epoch is None:
        words = "it does not say that it is of this cluster, with a uid and an epoch: only its owner can end it"
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=words)
    if found.uid in host.stale:
        return Obstacle(waits_for=WaitsFor.CONFIRMATION, message=f"host {host.meta.name} has to confirm its order")
    if (vm := state.microvms.get(found.uid)) is not None:
        words = f"it has the uid of microVM {vm.meta.namespace}/{vm.meta.name}, which is declared: end it on its host"
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=words)
    if found.epoch <= epochs_before(state):
        words = "it was placed before the cluster was restored, and may be newer than the backup: end it on its host"
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=words)
    return _not_ready(host)


def lost_host_obstacle(state: State, host: Host) -> Obstacle | None:
    if (held := host_hold(host)) is not None:
        return _is_held(held)
    if not is_off(host):
        return _may_come_back(host)
    if (reason := still_used(state, host)) is not None:
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=reason)
    return None


def lost_tombstone_obstacle(state: State, vm: MicroVM) -> Obstacle | None:
    """A tombstone ends when its host confirms it, or is known to be off for good. Its order stays with the host."""
    host = state.hosts.get(vm.placement.host) if vm.placement is not None else None
    if vm.phase is not MicroVMPhase.DELETING or host is None:
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=f"it is {vm.phase.value}")
    if (held := host_hold(host)) is not None:
        return _is_held(held)
    return None if is_off(host) else _may_come_back(host)


def lost_since(vm: MicroVM, host: Host) -> int:
    """Since when a tombstone waits for a host that is lost: whichever came last."""
    return max(vm.since, host.since)


def trigger_of(left: Leftover) -> Trigger:
    """Which of the policy's times counts for it."""
    return Trigger.QUARANTINED_VOLUMES if left.kind is LeftoverKind.VOLUMES else Trigger.LEFTOVER


def leftover_obstacle(state: State, host: Host, left: Leftover) -> Obstacle | None:
    """Only what carries our mark may go, and nothing of a microVM that is to be where it lies."""
    if (held := found_hold(host, left.key)) is not None:
        return _is_held(held)
    if left.key in host.clearing:
        words = f"it is ordered, and host {host.meta.name} has to confirm"
        return Obstacle(waits_for=WaitsFor.CONFIRMATION, message=words)
    if not left.ours:
        words = "nothing on it says that it is of this cluster: only its owner can delete it"
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=words)
    if (vm := _lives_there(state, host, left)) is not None:
        words = f"microVM {vm.meta.namespace}/{vm.meta.name} is placed there: it goes with that"
        return Obstacle(waits_for=WaitsFor.HOST, message=words)
    return _not_ready(host) or _not_looked(host)


def oldest_audit_day(state: State) -> tuple[int, int] | None:
    """The first and the last record of the oldest day (UTC) of the audit chain that may go; None: there is none.

    The newest record stays: the next one follows it. Nodes stamp records by their own clocks, so around midnight some
    may count for the day before.
    """
    first, last = state.audit_first, state.audit_head - 1
    if last < first:
        return None
    day = state.audit_at(first).at // _DAY_MS
    low, high = first, last
    while low < high:
        middle = (low + high + 1) // 2
        if state.audit_at(middle).at // _DAY_MS <= day:
            low = middle
        else:
            high = middle - 1
    return first, low


def audit_since(state: State, through: int) -> int:
    """Since when all records up to `through` are there."""
    return max(state.audit_at(state.audit_first).at, state.audit_at(through).at)


def audit_obstacle(state: State, through: int) -> Obstacle | None:
    """Every node that exports the chain has it in its files; one that was silent for long is waited for no more."""
    exports = state.audit_exports
    newest = max((each.at for each in exports.values()), default=0)
    for node, each in sorted(exports.items()):
        if each.through < through and newest - each.at < PATIENCE_MS:
            words = f"node {node} has written the audit chain up to record {each.through} only"
            return Obstacle(waits_for=WaitsFor.CONFIRMATION, message=words)
    return None


def _lives_there(state: State, host: Host, left: Leftover) -> MicroVM | None:
    """Whose it is, if that is placed on `host`. Volumes in quarantine are of an earlier placement than the present."""
    vm = state.microvms.get(left.uid) if left.uid is not None else None
    if vm is None or vm.placement is None or vm.placement.host != host.meta.name:
        return None
    earlier = left.kind is LeftoverKind.VOLUMES and left.epoch is not None and left.epoch < vm.epoch
    return None if earlier else vm


def _is_held(holding: Holding) -> Obstacle:
    return Obstacle(waits_for=WaitsFor.HOLD, message=holding.message)


def _may_come_back(host: Host) -> Obstacle:
    name = host.meta.name
    words = f"host {name} may come back; `flintctl host confirm-fenced {name}` says that it is off for good"
    return Obstacle(waits_for=WaitsFor.OPERATOR, message=words)


def _not_looked(host: Host) -> Obstacle | None:
    if host.has_looked:
        return None
    return Obstacle(waits_for=WaitsFor.HOST, message=f"the agent of host {host.meta.name} has not looked yet")


def _not_ready(host: Host) -> Obstacle | None:
    if host.phase is HostPhase.READY:
        return None
    return Obstacle(waits_for=WaitsFor.HOST, message=f"host {host.meta.name} is {host.phase.value}")
