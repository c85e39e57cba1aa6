"""Fuzz every decoder in turn: python -m tests.fuzz [--minutes 1] [--seed 0] [--only NAME]

Ends with 1 at the first fault, whose seed and number replay it and whose bytes are printed.
"""

# ruff: noqa: T201 - a command that prints a tally
from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.mutate import mutated
from fuzz.targets import TARGETS

_AT_ONCE = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(TARGETS))
    options = parser.parse_args()
    names = [options.only] if options.only else list(TARGETS)
    end = time.monotonic() + options.minutes * 60
    done: Counter[str] = Counter()
    seed = options.seed
    while time.monotonic() < end:
        for name in names:
            random = Random(f"{seed} {name}")
            for _ in range(_AT_ONCE):
                data = mutated(random, TARGETS[name].samples)
                try:
                    TARGETS[name].try_one(data)
                except Exception as error:
                    print(f"{name}, seed {seed}: {type(error).__name__}: {str(error)[:300]}\n{data[:500]!r}")
                    return 1
                done[name] += 1
        seed += 1
    for name in names:
        print(f"{name:<24} {done[name]:>9} inputs")
    print(f"seeds {options.seed} to {seed - 1}, no fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
