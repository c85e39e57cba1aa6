"""The real clock and the real source of ids, behind the ports of the same names.

An id is a ULID: 48 bits of milliseconds and 80 random bits in Crockford's base 32. Within one millisecond the random
part counts up, so ids of one process sort in the order in which they were made, even if the wall clock is set back.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_LOW_BITS = 20
_HIGH_SHIFTS = tuple(range(100, -1, -10))
_RANDOM_BITS = 80
_TIME_LIMIT = 1 << 48


class SystemClock:
    """Implements `ports.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class Ulids:
    """Implements `ports.Ids`; safe to use from several threads."""

    def __init__(self, now_ms: Callable[[], int] | None = None) -> None:
        self._now_ms = now_ms if now_ms is not None else SystemClock().now_ms
        self._lock = threading.Lock()
        self._last = 0

    def new(self) -> str:
        with self._lock:
            at = self._now_ms() % _TIME_LIMIT
            if at > self._last >> _RANDOM_BITS:
                # The top random bit starts as zero, which leaves room to count up within one millisecond.
                self._last = at << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS - 1)
            else:
                self._last += 1
            return encode_ulid(self._last)


def encode_ulid(value: int) -> str:
    """26 characters for 128 bits, most significant first."""
    return f"{_high_part(value >> _LOW_BITS)}{_PAIRS[value >> 10 & 1023]}{_PAIRS[value & 1023]}"


@lru_cache(maxsize=1)
def _high_part(value: int) -> str:
    # Within one millisecond only the low bits count up, but for one time in thousands.
    return "".join([_PAIRS[value >> shift & 1023] for shift in _HIGH_SHIFTS])
