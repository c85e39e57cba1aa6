"""The check must be able to fail: builds that are broken on purpose, each found out within a few short rounds.

`python -m tests.linearizability.broken_builds [BUILD ...]` prints the contradiction it found in each and exits with 0
when all were found out. What is broken is broken by the test (`member.py`, `support.faulty_disk`); the product has no
switch for it.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from linearizability.cluster import Build
from linearizability.rounds import Plan, run_round
from linearizability.sandbox import run_inside

ROUNDS = 4
ROUND_S = 6.0
NETWORK = ("isolate-leader", "partition-halves", "one-way", "freeze-leader", "kill-leader")
BUILDS: dict[str, tuple[str, Plan, Sequence[str]]] = {
    "no-sync": (
        "syncs that do nothing, and a power loss of all nodes",
        Plan(3, Build("instrumented"), lying_disks=True),
        ["power-loss-after-lies"],
    ),
    "stale-reads": (
        "reads answered by any node from what it knows, without asking a quorum",
        Plan(3, Build("instrumented", stale_reads=True)),
        NETWORK,
    ),
    "stale-clients": ("clients that read their replica as it is", Plan(3, stale_clients=True), NETWORK),
}


def find_out(name: str, directory: Path) -> bool:
    """Whether a contradiction was found in the clients' history within ROUNDS rounds."""
    what, plan, faults = BUILDS[name]
    for number in range(ROUNDS):
        report = run_round(plan, f"{name}-{number}", ROUND_S, directory / f"{name}-{number}", faults=faults)
        found = [problem for problem in report.problems if problem.startswith(("register ", "revisions: "))]
        if found:
            print(f"FOUND OUT in round {number + 1}: {what}\n\n{found[0]}\n", flush=True)
            return True
        print(f"round {number + 1} of {name} found nothing ({sum(report.operations.values())} operations)", flush=True)
    print(f"NOT FOUND OUT: {what}", flush=True)
    return False


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("builds", nargs="*", metavar="BUILD", help=f"{', '.join(BUILDS)} (default: all)")
    options = parser.parse_args(argv)
    if unknown := set(options.builds) - set(BUILDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    builds = options.builds or list(BUILDS)

    def run() -> int:
        directory = Path(tempfile.mkdtemp(prefix="raft-check-"))
        try:
            missed = [name for name in builds if not find_out(name, directory)]
            return 1 if missed else 0
        finally:
            shutil.rmtree(directory)

    return run_inside(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
