"""The breaker: stops failover where so much is lost at once that the fault is more likely ours than the hosts'.

A *mass loss* is a window of time in which more than `max_unhealthy` of the hosts that were there then were lost. It is
found anew in every state, so no leader has to remember it. It ends as its hosts come back; that an operator confirmed
one of them as off says nothing of the others, so that one still counts, and is not held. Neither is a host that was
lost long before or after, so what nobody ever cleared away does not hold the breaker open for the rest.

Of times, only the differences between those that leaders committed count: when a host was detached or fenced. An
operator's override (docs/adr/0105) lets everything through until it ends, which is by the clock of whoever asks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from controlplane.machine.state import State
from controlplane.model.resources import BREAKER, Host, HostPhase, Override
from controlplane.model.types import record

LOST = (HostPhase.DETACHED, HostPhase.FENCED)
_MANY = 2
"""One lost host never opens the breaker, however few there are."""


@record
class FailoverLimits:
    max_unhealthy: float = 0.5
    """Of the declared hosts that were connected: when more than this are lost within `window_s`, what was on them is
    not resurrected."""
    window_s: float = 600.0
    per_round: int = 100


@record
class Breaker:
    open: bool
    lost: int
    """While open, of the greatest mass loss, those included that were confirmed as off; else all that were not."""
    of: int
    message: str
    """Says what is held and what to do about it; empty while nothing is."""
    hosts: frozenset[str] = frozenset()
    """Those of a mass loss that nobody confirmed as off."""
    override: Override | None = None
    """In force now."""

    @property
    def stops(self) -> bool:
        return self.open and self.override is None

    def holds(self, host: Host) -> bool:
        return self.stops and host.meta.name in self.hosts


def breaker(state: State, limits: FailoverLimits, *, now_ms: int) -> Breaker:
    there = [host for host in state.hosts.values() if host.declared and host.inventory is not None]
    override = state.overrides.get(BREAKER)
    if override is not None and now_ms >= override.until:
        override = None
    losses = list(_mass_losses(there, limits))
    hosts = frozenset(host.meta.name for lost, _ in losses for host in lost if host.confirmed_by is None)
    if not hosts:
        lost = sum(host.phase in LOST and host.confirmed_by is None for host in there)
        return Breaker(open=False, lost=lost, of=len(there), message="", override=override)
    greatest, of = max(losses, key=lambda loss: len(loss[0]))
    return Breaker(
        open=True,
        lost=len(greatest),
        of=of,
        message=_message(len(greatest), of, limits) if override is None else "",
        hosts=hosts,
        override=override,
    )


def _mass_losses(there: list[Host], limits: FailoverLimits) -> Iterator[tuple[list[Host], int]]:
    """Each window that begins with a loss and holds too many: its lost hosts, and how many there were then."""
    lost = [host for host in there if host.phase in LOST]
    created = sorted(host.meta.created_at for host in there) if lost else []
    for begins in sorted({host.since for host in lost}):
        ends = begins + limits.window_s * 1000
        within = [host for host in lost if begins <= host.since <= ends]
        of = bisect_right(created, ends) - sum(host.meta.created_at <= ends and host.since < begins for host in lost)
        if len(within) >= _MANY and len(within) > limits.max_unhealthy * of:
            yield within, of


def _message(lost: int, of: int, limits: FailoverLimits) -> str:
    return (
        f"{lost} of {of} hosts are lost within {limits.window_s:g} s, more than max_unhealthy ="
        f" {limits.max_unhealthy:g} allows: what was on them is not restarted elsewhere until enough are back;"
        " `flintctl host confirm-fenced NAME...` restarts what was on hosts that are certainly off,"
        " `flintctl failover override` all of it"
    )
