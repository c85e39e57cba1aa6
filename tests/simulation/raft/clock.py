"""Virtual time. There is one true time, which only the event queue moves; every process reads its own clock, which may
jump and run at another rate, through the name the engine's clock has everywhere.

Chance comes from the seed in the same way: what the engine draws (its election timeouts) is drawn from a generator of
the process that draws, so the order in which processes run does not matter to it.
"""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType

from pysyncobj import monotonic as engine_clock

_ORIGINAL = engine_clock.monotonic
_PACKAGES = ("controlplane.consensus", "pysyncobj")


class ProcessClock:
    """A process's monotonic clock: an affine function of the true time."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.rate = 1.0
        self._offset_s = 1_000.0
        self.lag_s = 0.0
        """True seconds the present event has taken so far: a slow disk makes what comes after it later."""

    def local_s(self, now_s: float) -> float:
        return self._offset_s + self.rate * (now_s + self.lag_s)

    def jump(self, by_s: float) -> None:
        self._offset_s += by_s

    def run_at(self, rate: float, now_s: float) -> None:
        """Another speed from now on, without a jump."""
        self._offset_s += (self.rate - rate) * now_s
        self.rate = rate


class Clock:
    """The true time, and whose clock is read at the moment."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.reading = ProcessClock(random.Random(0))

    def monotonic_s(self) -> float:
        return self.reading.local_s(self.now_s)

    def random(self) -> float:
        """Named, like the others, as in the modules that it stands for."""
        return self.reading.chance.random()

    def getrandbits(self, bits: int) -> int:
        return self.reading.chance.getrandbits(bits)

    def token_hex(self, count: int) -> str:
        return self.reading.chance.randbytes(count).hex()

    def uniform(self, low: float, high: float) -> float:
        return self.reading.chance.uniform(low, high)


@contextmanager
def virtual_time(clock: Clock) -> Generator[None]:
    """Every module of the engine and of the consensus package reads `clock` and draws from it."""
    replaced: list[tuple[ModuleType, str, object]] = []
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith(_PACKAGES):
            continue
        for name, value in list(vars(module).items()):
            if value is _ORIGINAL:
                replaced.append((module, name, value))
                setattr(module, name, clock.monotonic_s)
            elif value is random or value is secrets:
                replaced.append((module, name, value))
                setattr(module, name, clock)
    assert replaced, "the engine's clock has another name"
    try:
        yield
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)
