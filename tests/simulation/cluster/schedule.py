"""What goes wrong in a run, and when, as data: drawn from a seed, written to a file, made smaller.

A trouble has a generator of its own, so it does the same whatever else is in the schedule, as far as the cluster lets
it. What else a run draws (delays, rates of clocks, what users want) is the seed's, so a seed and a schedule are a run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path

import msgspec


class Trouble(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_s: float
    """After the cluster was founded."""
    fault: str
    """The name of its function in `faults.FAULTS`."""
    chance: int
    """Seed of its generator."""


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that can be repeated from a file."""

    seed: int
    build: str
    """`ours`, or one of `builds.BROKEN`."""
    troubles: tuple[Trouble, ...]

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def read(cls, file: Path, *, faults: Container[str], builds: Container[str]) -> Schedule:
        """Raises OSError, and ValueError with the place of what is wrong."""
        try:
            schedule = msgspec.json.decode(file.read_bytes(), type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{file}: {error}") from None
        if schedule.build not in builds:
            raise ValueError(f"{file}: there is no build {schedule.build!r} - at `$.build`")
        for number, trouble in enumerate(schedule.troubles):
            if trouble.fault not in faults:
                raise ValueError(f"{file}: there is no fault {trouble.fault!r} - at `$.troubles[{number}].fault`")
        return schedule


def draw_troubles(seed: int, hours: float, weights: Mapping[str, float], pace_s: float) -> tuple[Trouble, ...]:
    """For so many virtual hours, one every `pace_s` on average."""
    chance = random.Random(f"{seed} troubles")
    names = [name for name, weight in weights.items() if weight]
    troubles: list[Trouble] = []
    at_s = 0.0
    while True:
        at_s += min(chance.expovariate(1 / pace_s), 4 * pace_s)
        if at_s > hours * 3600:
            return tuple(troubles)
        name = chance.choices(names, [weights[each] for each in names])[0]
        troubles.append(Trouble(round(at_s, 3), name, chance.getrandbits(53)))


Fails = Callable[[Sequence[Trouble]], bool]


def smaller(troubles: Sequence[Trouble], fails: Fails, *, runs: int) -> tuple[Trouble, ...]:
    """Delta debugging: the fewest of `troubles` found to fail as well, none of which can be left out alone, unless
    the `runs` are over before. `troubles` themselves are taken to fail."""
    left = tuple(troubles)
    parts = 2
    while len(left) > 1 and runs > 0:
        size = -(-len(left) // parts)
        for first in range(0, len(left), size):
            rest = left[:first] + left[first + size :]
            runs -= 1
            if fails(rest):
                left, parts = rest, max(parts - 1, 2)
                break
            if runs <= 0:
                return left
        else:
            if size == 1:
                return left
            parts = min(2 * parts, len(left))
    return left
