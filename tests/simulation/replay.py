"""Replays a seeded history of the machine and prints what came out of it.

    python tests/simulation/replay.py SEED STEPS

Map order varies with PYTHONHASHSEED, so processes with different hash seeds must print the same line: revision, digest,
and the hashes of the snapshot and of every outcome.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulation.random_commands import RandomCommands
from support.snapshots import dump

from controlplane.machine.apply import apply
from controlplane.machine.codec import digest_text
from controlplane.machine.state import State

T = TypeVar("T")


class Seeded:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T]) -> T:
        return options[self._random.randrange(len(options))]

    def chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent


def replay(seed: int, steps: int) -> str:
    commands = RandomCommands(Seeded(seed))
    state = State(cluster_id="replay")
    outcomes = blake2b(digest_size=8)
    for index, envelope in enumerate([*commands.opening(), *[None] * steps], start=1):
        state, outcome, _ = apply(state, envelope or commands.next(state), index=index, term=1)
        outcomes.update(repr(outcome).encode())
    snapshot = blake2b(dump(state), digest_size=16).hexdigest()
    return f"{state.revision} {digest_text(state)} {snapshot} {outcomes.hexdigest()}"


if __name__ == "__main__":
    sys.stdout.write(replay(int(sys.argv[1]), int(sys.argv[2])) + "\n")
