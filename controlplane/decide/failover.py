"""Failover: which microVMs of lost hosts are given up there and placed anew, and why the others are not.

The leader decides this again and again from its replica, so nothing is remembered between two rounds. What comes out
are commands of the term it leads in; the machine verifies each again.

A failover policy says when and in what order, never whether it is safe: that is the fence's. Its delay and its rate are
reckoned from times that are in the state, against the clock of the node that leads (docs/adr/0104).

The breaker (`decide.breaker`) stops what looks like a fault of ours rather than of the hosts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from controlplane.decide.breaker import LOST, Breaker, FailoverLimits, breaker
from controlplane.machine.incarnations import not_heard_of
from controlplane.machine.recovery_rules import resurrection_refusal
from controlplane.machine.state import State
from controlplane.model.commands import Resurrect
from controlplane.model.resources import Host, HostPhase, MicroVM
from controlplane.model.spec import FailoverPolicySpec, Restart
from controlplane.model.types import record

_MINUTE_MS = 60_000
_AT_ONCE = FailoverPolicySpec()
"""What holds for a microVM that names no policy."""


@record
class Failover:
    resurrect: tuple[Resurrect, ...]
    held: Mapping[str, str]
    """Why each other microVM on a lost host is not resurrected, by uid."""
    cut: Breaker
    """As it was found for this."""


def failover(state: State, *, term: int, limits: FailoverLimits, now_ms: int) -> Failover:
    """What to resurrect next, by priority, then the oldest first; and why the rest of the lost hosts' microVMs stay.

    `now_ms` is the wall clock, in milliseconds since the epoch.
    """
    cut = breaker(state, limits, now_ms=now_ms)
    may: list[tuple[MicroVM, Host]] = []
    held: dict[str, str] = {}
    for vm, host in _on_lost_hosts(state):
        reason = not_heard_of(state, host.meta.name) or held_reason(vm, host, policy_of(state, vm), cut, now_ms=now_ms)
        if reason is None:
            may.append((vm, host))
        else:
            held[vm.meta.uid] = reason
    may.sort(key=lambda pair: rank(state, pair[0]))
    left = _left_this_minute(state, {vm.spec.recovery.policy for vm, _ in may}, now_ms)
    turn: list[Resurrect] = []
    for vm, host in may:
        name = vm.spec.recovery.policy
        if len(turn) >= limits.per_round:
            held[vm.meta.uid] = f"its turn comes: at most {limits.per_round} are restarted at a time, the oldest first"
        elif left.get(name) == 0:
            rate = policy_of(state, vm).max_per_minute
            held[vm.meta.uid] = f"its turn comes: failover policy {name} has {rate} restarted in a minute"
        else:
            turn.append(_resurrection(vm, host, term))
            if name in left:
                left[name] -= 1
    return Failover(resurrect=tuple(turn), held=held, cut=cut)


def rank(state: State, vm: MicroVM) -> tuple[int, int, str]:
    """Sorts microVMs into the order in which they are given up."""
    return -policy_of(state, vm).priority, vm.meta.created_at, vm.meta.uid


def policy_of(state: State, vm: MicroVM) -> FailoverPolicySpec:
    """When and in what order `vm` is restarted elsewhere."""
    name = vm.spec.recovery.policy
    policy = state.failover_policies.get(name) if name is not None else None
    return policy.spec if policy is not None else _AT_ONCE


def held_reason(vm: MicroVM, host: Host, policy: FailoverPolicySpec, cut: Breaker, *, now_ms: int) -> str | None:
    """Why `vm` on the lost `host` is not resurrected now, what lasts longest first; None when it may be."""
    name = vm.spec.recovery.policy
    if (reason := resurrection_refusal(vm, host)) is not None:
        return reason
    if policy.restart is Restart.NEVER:
        return f"failover policy {name} says restart = never: it waits for host {host.meta.name}"
    if host.phase is not HostPhase.FENCED:
        return f"host {host.meta.name} is {host.phase.value}: it is not fenced yet"
    if cut.holds(host):
        return cut.message
    due_ms = host.since + (policy.delay_s or 0) * 1000
    if now_ms < due_ms and host.confirmed_by is None:
        return f"failover policy {name} waits {policy.delay_s} s from when host {host.meta.name} was fenced"
    return None


def _left_this_minute(state: State, names: Iterable[str | None], now_ms: int) -> dict[str | None, int]:
    """How many more each of these policies lets be restarted now; nothing of those that set no rate."""
    rates: dict[str | None, int] = {
        name: policy.spec.max_per_minute
        for name in names
        if name is not None
        and (policy := state.failover_policies.get(name)) is not None
        and policy.spec.max_per_minute is not None
    }
    if not rates:
        return {}
    done = Counter(
        vm.spec.recovery.policy
        for vm in state.microvms.values()
        if vm.spec.recovery.policy in rates
        and vm.resurrection is not None
        and 0 <= now_ms - vm.resurrection.at < _MINUTE_MS
    )
    return {name: max(0, rate - done[name]) for name, rate in rates.items()}


def _on_lost_hosts(state: State) -> Iterator[tuple[MicroVM, Host]]:
    lost = [host for host in state.hosts.values() if host.declared and host.phase in LOST]
    for host in sorted(lost, key=lambda host: host.meta.name):
        for vm in state.microvms_on(host.meta.name):
            yield vm, host


def _resurrection(vm: MicroVM, host: Host, term: int) -> Resurrect:
    said = f"confirmed as off by {host.confirmed_by}" if host.confirmed_by is not None else host.reason
    return Resurrect(uid=vm.meta.uid, epoch=vm.epoch, host=host.meta.name, term=term, reason=said or "fenced")
