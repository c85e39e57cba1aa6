"""Failover: which microVMs of lost hosts are given up there and placed anew, and why the others are not.

The leader decides this again and again from its replica, so nothing is remembered between two rounds. What comes out
are commands of the term it leads in; the machine verifies each again.

The breaker stops it all when so much is lost at once that the fault is more likely ours than the hosts'. A host that an
operator confirmed as off counts as lost no longer, and is not held by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane.machine.recovery_rules import resurrection_refusal
from controlplane.machine.state import State
from controlplane.model.commands import Resurrect
from controlplane.model.resources import Host, HostPhase, MicroVM
from controlplane.model.types import record

_LOST = (HostPhase.DETACHED, HostPhase.FENCED)
_MANY = 2
"""One lost host never opens the breaker, however few there are."""


@record
class FailoverLimits:
    max_unhealthy: float = 0.5
    """Of the declared hosts that have ever connected: when more than this are lost, nothing is resurrected."""
    per_round: int = 100


@record
class Breaker:
    open: bool
    lost: int
    of: int
    message: str
    """Says what is held and what to do about it; empty while closed."""


@record
class Failover:
    resurrect: tuple[Resurrect, ...]
    held: Mapping[str, str]
    """Why each other microVM on a lost host is not resurrected, by uid."""


def breaker(state: State, limits: FailoverLimits) -> Breaker:
    lost = of = 0
    for host in state.hosts.values():
        if host.declared and host.inventory is not None:
            of += 1
            lost += host.phase in _LOST and host.confirmed_by is None
    if lost < _MANY or lost <= limits.max_unhealthy * of:
        return Breaker(open=False, lost=lost, of=of, message="")
    return Breaker(
        open=True,
        lost=lost,
        of=of,
        message=(
            f"{lost} of {of} hosts are lost, more than max_unhealthy = {limits.max_unhealthy:g} allows: nothing is"
            " restarted elsewhere until enough are back; `flintctl host confirm-fenced NAME...` restarts what was on"
            " hosts that are certainly off"
        ),
    )


def failover(state: State, *, term: int, limits: FailoverLimits) -> Failover:
    """What to resurrect next, the oldest first, and why the rest of the lost hosts' microVMs stay as they are."""
    cut = breaker(state, limits)
    may: list[tuple[MicroVM, Host]] = []
    held: dict[str, str] = {}
    for vm, host in _on_lost_hosts(state):
        reason = held_reason(vm, host, cut)
        if reason is None:
            may.append((vm, host))
        else:
            held[vm.meta.uid] = reason
    may.sort(key=lambda pair: (pair[0].meta.created_at, pair[0].meta.uid))
    for vm, _ in may[limits.per_round :]:
        held[vm.meta.uid] = f"its turn comes: at most {limits.per_round} are restarted at a time, the oldest first"
    return Failover(
        resurrect=tuple(_resurrection(vm, host, term) for vm, host in may[: limits.per_round]),
        held=held,
    )


def held_reason(vm: MicroVM, host: Host, cut: Breaker) -> str | None:
    """Why `vm` on the lost `host` is not resurrected now, what lasts longest first; None when it may be."""
    if (reason := resurrection_refusal(vm, host)) is not None:
        return reason
    if host.phase is not HostPhase.FENCED:
        return f"host {host.meta.name} is {host.phase.value}: it is not fenced yet"
    if cut.open and host.confirmed_by is None:
        return cut.message
    return None


def _on_lost_hosts(state: State) -> Iterator[tuple[MicroVM, Host]]:
    for name in sorted(state.on_host):
        host = state.hosts[name]
        if host.declared and host.phase in _LOST:
            for vm in state.microvms_on(name):
                yield vm, host


def _resurrection(vm: MicroVM, host: Host, term: int) -> Resurrect:
    said = f"confirmed as off by {host.confirmed_by}" if host.confirmed_by is not None else host.reason
    return Resurrect(uid=vm.meta.uid, epoch=vm.epoch, host=host.meta.name, term=term, reason=said or "fenced")
