"""What may be collected, apart from its age: the rules that a plan goes by and the machine verifies again.

Both use these functions, so what a plan shows from a fresh state is what the machine accepts. Each gives what stands in
the way, or None. None of them destroys by itself: a microVM ends by a tombstone, a copy on a host by an order, and
the host confirms (docs/adr/0108).
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.machine.delete import still_used
from controlplane.machine.holding import Holding, found_hold, host_hold, microvm_hold
from controlplane.machine.placing import epochs_before
from controlplane.machine.recovery_rules import is_off
from controlplane.machine.state import State
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
    name = host.meta.name
    if not is_off(host):
        words = f"it may come back; `flintctl host confirm-fenced {name}` says that it is off for good"
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=words)
    if (reason := still_used(state, host)) is not None:
        return Obstacle(waits_for=WaitsFor.OPERATOR, message=reason)
    return None


def _is_held(holding: Holding) -> Obstacle:
    return Obstacle(waits_for=WaitsFor.HOLD, message=holding.message)


def _not_ready(host: Host) -> Obstacle | None:
    if host.phase is HostPhase.READY:
        return None
    return Obstacle(waits_for=WaitsFor.HOST, message=f"host {host.meta.name} is {host.phase.value}")
