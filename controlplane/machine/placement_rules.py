"""Where a microVM may go: the constraints that a scheduler filters by and the machine verifies again.

Both use these functions, so what a scheduler offers from a fresh state is what the machine accepts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from controlplane.machine.convergence import amount_of
from controlplane.machine.recovery_rules import fencing_refusal, is_off
from controlplane.machine.state import State
from controlplane.machine.table import bucket_of
from controlplane.model.resources import Amount, Host, HostPhase, MicroVM
from controlplane.model.spec import HostMode, MicroVMSpec, PlacementPolicySpec, Spread

HOST_LABEL = "host"
"""The label that every host has without saying so: its own name."""
_NAMED = 8
"""So many of the hosts that are waited for are named."""


def withheld(state: State, vm: MicroVM) -> str | None:
    """Why no host at all may take `vm` now, in words for an operator; None when one may (docs/adr/0103).

    Apart from `refusal`, since it is about all hosts and would be asked for each.
    """
    if (reason := unheard_of(state)) is not None:
        return reason
    for name in sorted(state.with_strangers, key=lambda name: (bucket_of(name), name)):
        host = state.hosts[name]
        if not is_off(host):
            for found in host.unmanaged:
                if found.uid == vm.meta.uid:
                    return (
                        f"host {name} holds a copy (epoch {found.epoch}) that the state does not know: end it there"
                        f" ({found.driver} {found.native_id}), or, if the host is off for good, say"
                        f" `flintctl host confirm-fenced {name}`"
                    )
    return None


def unheard_of(state: State) -> str | None:
    """Which hosts may hold what a restore forgot, in words for an operator; None when all have told."""
    if state.begun is None or not (awaited := state.begun.awaited):
        return None
    more = f" and {len(awaited) - _NAMED} more" if len(awaited) > _NAMED else ""
    return (
        "since the cluster was restored, nobody knows what is on host"
        f" {', '.join(awaited[:_NAMED])}{more}: start the agent there, or, if a host is off for good, say"
        " `flintctl host confirm-fenced NAME`"
    )


def refusal(state: State, vm: MicroVM, host: Host) -> str | None:
    """Why `vm` may not be placed on `host`, in words for an operator; None when it may."""
    return Constraints(state, vm).refusal(host)


class Constraints:
    """What one microVM asks of its host in one state.

    Whoever asks about many hosts keeps it: what a spread counts in the whole fleet is counted once.
    """

    def __init__(self, state: State, vm: MicroVM) -> None:
        named = vm.spec.placement.policy
        self.policy = state.policies.get(named) if named is not None else None
        policys = self.policy.spec if self.policy is not None else PlacementPolicySpec()
        self.required = (vm.spec.placement.required_host_labels, policys.required_host_labels)
        self._spreads = [each for each in (vm.spec.placement.spread, policys.spread) if each is not None]
        self._counted: dict[str, Counter[str]] = {}
        self._state = state
        self._vm = vm

    def refusal(self, host: Host) -> str | None:
        """Why not on `host`, in words for an operator; None when it may be."""
        return (
            _host_refusal(self._vm, host)
            or self.label_refusal(host)
            or _driver_refusal(self._vm.spec, host)
            or fencing_refusal(self._vm.spec, host)
            or capacity_refusal(host, amount_of(self._vm.spec))
            or self._spread_refusal(host)
        )

    def label_refusal(self, host: Host) -> str | None:
        """As `refusal`, of the host's name and labels alone."""
        return _pin_refusal(self._vm.spec, host) or _label_refusal(self.required, host)

    def _spread_refusal(self, host: Host) -> str | None:
        for spread in self._spreads:
            value = label_of(host, spread.by)
            if value is None:
                return f"microVMs are spread by host label {spread.by}, which the host does not have"
            count = self._count(spread, value)
            if count >= spread.max_per:
                return f"spread allows {spread.max_per} per {spread.by}, {spread.by}={value} has {count}"
        return None

    def _count(self, spread: Spread, value: str) -> int:
        """MicroVMs that count for `spread` on the hosts whose label has `value`."""
        if spread.by == HOST_LABEL:
            return self._matching_on(value, spread)
        key = f"{spread.by}/{sorted(spread.match_labels.items())}"
        counted = self._counted.get(key)
        if counted is None:
            counted = self._counted[key] = Counter()
            for name in self._state.on_host:
                host = self._state.hosts.get(name)
                if host is not None and (theirs := label_of(host, spread.by)) is not None:
                    counted[theirs] += self._matching_on(name, spread)
        return counted[value]

    def _matching_on(self, host: str, spread: Spread) -> int:
        uids = self._state.on_host.get(host, ())
        return sum(_matches(self._state.microvms[uid], self._vm, spread) for uid in uids)


def capacity_refusal(host: Host, more: Amount) -> str | None:
    """Why `more` does not fit on `host` beside what it holds; only what `more` asks for is counted."""
    if host.inventory is None:
        return "the host's agent has never connected"
    capacity, total = host.inventory.capacity, host.allocated + more
    if more.vcpu and total.vcpu > capacity.vcpu:
        return f"needs {more.vcpu} vcpu, {capacity.vcpu - host.allocated.vcpu} of {capacity.vcpu} are free"
    if more.memory_in_mb and total.memory_in_mb > capacity.memory_in_mb:
        free = capacity.memory_in_mb - host.allocated.memory_in_mb
        return f"needs {more.memory_in_mb} MB of memory, {free} of {capacity.memory_in_mb} are free"
    if more.microvms and capacity.microvms and total.microvms > capacity.microvms:
        return f"holds {host.allocated.microvms} microVMs, its limit is {capacity.microvms}"
    return None


def label_of(host: Host, key: str) -> str | None:
    return host.meta.name if key == HOST_LABEL else host.meta.labels.get(key)


_PHASES = {
    HostPhase.EXPECTED: "its agent has never connected",
    HostPhase.PENDING: "nobody declared it",
    HostPhase.SUSPECT: "its agent is not heard",
    HostPhase.DETACHED: "its lease has ended",
    HostPhase.FENCED: "it is given up",
    HostPhase.REJOINING: "it first destroys what was given up there",
}
"""Why a host that is not ready takes nothing."""


def _host_refusal(vm: MicroVM, host: Host) -> str | None:
    if host.phase is not HostPhase.READY:
        return f"the host is {host.phase.value}: {_PHASES[host.phase]}"
    if vm.meta.uid in host.stale:
        return f"it has yet to destroy this microVM's copy of epoch {host.stale[vm.meta.uid]}"
    if host.spec.mode is not HostMode.ACTIVE:
        return f"the host is to be emptied (mode = {host.spec.mode.value})"
    if not host.spec.schedulable:
        return "the host is cordoned (schedulable = false)"
    return None


def _pin_refusal(spec: MicroVMSpec, host: Host) -> str | None:
    if spec.placement.host is not None and spec.placement.host != host.meta.name:
        return f"the spec asks for host {spec.placement.host}"
    return None


def _label_refusal(required: Iterable[Mapping[str, str]], host: Host) -> str | None:
    for key, value in sorted(pair for labels in required for pair in labels.items()):
        if label_of(host, key) != value:
            return f"label {key}={value} is required, the host has {label_of(host, key) or 'none'}"
    return None


def _driver_refusal(spec: MicroVMSpec, host: Host) -> str | None:
    drivers = sorted(d.name for d in host.inventory.drivers) if host.inventory is not None else []
    if spec.provider is not None and spec.provider not in drivers:
        return f"provider {spec.provider} is asked for, the host has {', '.join(drivers) or 'none'}"
    return None


def _matches(other: MicroVM, vm: MicroVM, spread: Spread) -> bool:
    """Whether `other` counts for the spread of `vm`: same namespace, not itself, and all of `match_labels`."""
    return (
        other.meta.namespace == vm.meta.namespace
        and other.meta.uid != vm.meta.uid
        and all(other.meta.labels.get(key) == value for key, value in spread.match_labels.items())
    )
