"""Time and ids."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time for stamps and time for waiting; no safety decision reads the wall clock."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch: for people to read."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: for deadlines and ages."""
        ...

    def boottime_s(self) -> float:
        """The same, and they go on while the machine is suspended (CLOCK_BOOTTIME): for leases."""
        ...


class Ids(Protocol):
    def new(self) -> str:
        """A new ULID: 26 characters, sortable by creation time, never reused."""
        ...
