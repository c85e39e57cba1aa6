"""What happens to a simulated microVM, as values: a row in, a row and its console lines out.

The driver and the tampering command both go through here, so a microVM that is changed behind the agent's back looks
as one would whose hypervisor was.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from controlplane.drivers.simulated.store import Row
from controlplane.model.resources import ObservedPower

READY_LINE = "flintlock: ready"
_TAG = "[simulated]"


@dataclass(frozen=True, slots=True)
class Step:
    row: Row
    lines: tuple[tuple[int, str], ...]
    """(wall clock in milliseconds from which it is seen, text)"""


def is_ready(row: Row, now_ms: int) -> bool:
    return row.power is not ObservedPower.STOPPED and row.ready_at_ms is not None and row.ready_at_ms <= now_ms


def boot(row: Row, *, now_ms: int, boot_ms: int) -> Step:
    """Start from nothing; ready after `boot_ms`."""
    ready_at_ms = now_ms + boot_ms
    booted = replace(row, power=ObservedPower.RUNNING, cause=None, ready_at_ms=ready_at_ms, boot_left_ms=0)
    who = f"{row.namespace}/{row.name}" if row.name else row.native_id
    return Step(
        booted,
        (
            (now_ms, f"{_TAG} no guest runs here: this microVM exists only in the simulated driver's records"),
            (now_ms, f"{_TAG} {who} started with {row.vcpu} vCPU and {row.memory_in_mb} MB, epoch {row.epoch}"),
            (ready_at_ms, f"{_TAG} {READY_LINE}"),
        ),
    )


def halt(row: Row, cause: str, *, now_ms: int) -> Step:
    """Stop running, for the reason given."""
    halted = replace(row, power=ObservedPower.STOPPED, cause=cause, ready_at_ms=None, boot_left_ms=0)
    return Step(halted, ((now_ms, f"{_TAG} {cause}"),))


def pause(row: Row, *, now_ms: int) -> Step:
    """Keep everything, let nothing run: a boot that is not done waits."""
    if row.ready_at_ms is not None and row.ready_at_ms > now_ms:
        row = replace(row, ready_at_ms=None, boot_left_ms=row.ready_at_ms - now_ms)
    return Step(replace(row, power=ObservedPower.PAUSED, cause="paused"), ((now_ms, f"{_TAG} paused"),))


def resume(row: Row, *, now_ms: int) -> Step:
    """Go on from where `pause` left it."""
    running = replace(row, power=ObservedPower.RUNNING, cause=None)
    lines = [(now_ms, f"{_TAG} resumed")]
    if row.ready_at_ms is None:
        ready_at_ms = now_ms + row.boot_left_ms
        running = replace(running, ready_at_ms=ready_at_ms, boot_left_ms=0)
        lines.append((ready_at_ms, f"{_TAG} {READY_LINE}"))
    return Step(running, tuple(lines))
