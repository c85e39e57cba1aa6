"""Power losses in numbers: random lives of a journal with every power loss after every operation, every byte prefix.

    python -m tests.simulation.power_loss [--seeds 200] [--from 0] [--steps 40] [--directory .work/raft-power-loss]

Appends one JSON line with the tally to DIRECTORY/tally.jsonl and prints the sum of all lines there, so that runs over
different seeds add up. Ends with 1 at the first violation, whose seed replays it.
"""

# ruff: noqa: T201 - a command that prints a tally
from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.power_loss import Tally, live


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--directory", type=Path, default=Path(".work/raft-power-loss"))
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    tally, started, code = Tally(), time.monotonic(), 0
    try:
        for seed in range(options.first, options.first + options.seeds):
            live(seed, options.steps, tally=tally, every_byte=True)
    except AssertionError as error:
        print(f"VIOLATION {error}")
        tally.counts["violations"] += 1
        code = 1
    line = {"from": options.first, "seconds": round(time.monotonic() - started), **tally.counts}
    lines = options.directory / "tally.jsonl"
    with lines.open("a") as file:
        file.write(json.dumps(line) + "\n")
    total: Counter[str] = Counter()
    for text in lines.read_text().splitlines():
        total.update(json.loads(text))
    del total["from"]
    print("this run:", tally)
    print("all runs:", Tally(total))
    return code


if __name__ == "__main__":
    sys.exit(main())
