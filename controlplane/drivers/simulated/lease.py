"""What the host's lease makes of a row, by time alone. Pure.

A real driver needs a process that acts at the end of the lease. Here nothing has to happen: a row that may run only
under a lease is, from the end on, as if it had been halted then, and from the end of the grace on as if it had been
killed then, whoever looks and whoever is dead. Only the next lease writes that down, because from then on the old one's
end cannot be told from the row any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from controlplane.drivers.simulated import power
from controlplane.drivers.simulated.store import HeldLease, Row
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import OnDetach, detach_action
from controlplane.ports import LEASE_ENDED, VMDefinition

_definitions = msgspec.json.Decoder(VMDefinition)


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on every clock that matters."""

    wall_ms: int
    boottime_s: float
    boot_id: str


def action(row: Row) -> OnDetach:
    """What the row's definition asks for at the end of the lease."""
    return OnDetach.KEEP if row.definition is None else detach_action(_definitions.decode(row.definition).spec)


def is_live(held: HeldLease | None, now: Moment) -> bool:
    return held is not None and held.boot_id == now.boot_id and now.boottime_s < held.ends_s


def next_change_s(held: HeldLease | None, now: Moment) -> float | None:
    """Seconds until time alone changes what rows are."""
    if held is None or held.boot_id != now.boot_id:
        return None
    changes = (held.ends_s - now.boottime_s, held.ends_s + held.grace_s - now.boottime_s)
    return min((each for each in changes if each > 0), default=None)


def under(row: Row, held: HeldLease | None, now: Moment) -> power.Step:
    """The row as the lease leaves it, with the console lines of what happened to it."""
    if row.power is ObservedPower.STOPPED or is_live(held, now) or (what := action(row)) is OnDetach.KEEP:
        return power.Step(row, ())
    if held is None:  # nobody knows since when: a first lease may be on its way
        return _halted(row, now.wall_ms)
    if held.boot_id != now.boot_id:
        return power.halt(row, LEASE_ENDED, now_ms=now.wall_ms)
    ended_ms = now.wall_ms - round((now.boottime_s - held.ends_s) * 1000)
    over_ms = ended_ms + round(held.grace_s * 1000)
    if what is not OnDetach.PAUSE:
        return power.halt(row, LEASE_ENDED, now_ms=ended_ms)
    if now.wall_ms >= over_ms:
        return power.halt(row, LEASE_ENDED, now_ms=over_ms)
    return _halted(row, ended_ms)


def _halted(row: Row, at_ms: int) -> power.Step:
    if row.power is ObservedPower.PAUSED:
        return power.Step(row, ())
    step = power.pause(row, now_ms=at_ms)
    return power.Step(replace(step.row, cause=LEASE_ENDED), step.lines)


def resumed(row: Row, held: HeldLease | None, now: Moment) -> power.Step | None:
    """What the next lease writes down of a row; None when the last one's end did nothing to it."""
    step = under(row, held, now)
    if step.row == row:
        return None
    if step.row.power is ObservedPower.STOPPED:
        return step
    again = power.resume(step.row, now_ms=now.wall_ms)
    return power.Step(again.row, (*step.lines, *again.lines))
