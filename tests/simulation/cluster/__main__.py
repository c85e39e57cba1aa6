"""The whole cluster in virtual time: `python -m simulation.cluster --help` (with `tests` on the path), `make simulate`.

Exit code 1 when an invariant does not hold; the output then has the seed, and what happened last.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from simulation.cluster.builds import BROKEN, Build
from simulation.cluster.coverage import never_reached, report
from simulation.cluster.faults import FAULTS_BY_NAME
from simulation.cluster.running import Outcome, find, run_seed, run_troubles, series, shrink
from simulation.cluster.schedule import Schedule
from simulation.cluster.world import Note
from simulation.ledger import keep, recall
from simulation.tallies import Tally

BUILDS = {"ours": Build(), **BROKEN}
LEDGER = Path(__file__).with_name("ledger.jsonl")
BROKEN_HOURS = 0.1
BROKEN_WITHIN = 30
"""Seeds within which every broken build must be found."""


def main() -> int:
    options = _options()
    if options.broken:
        return broken()
    if options.schedule is not None:
        return again(options.schedule, whole=options.whole)
    if options.shrink:
        return shrunk(options)
    if options.seed is not None:
        return replay(options.seed, options.hours, whole=options.whole)
    return many(options)


def many(options: argparse.Namespace) -> int:
    runs = series(options.out / "tallies.jsonl", options.hours)
    recall(LEDGER, runs.file, runs.code)
    if options.keep:
        print(f"{keep(runs.file, LEDGER, runs.code):,} seeds of code {runs.code} are in {LEDGER}")
        return 0
    began, printed = time.monotonic(), 0.0
    total = Tally()
    for done, total in runs.go(options.first, options.seeds, options.jobs):
        if time.monotonic() - printed > 10:
            printed = time.monotonic()
            print(f"{done:,} of {options.seeds:,} seeds, {len(total.violations)} violations", flush=True)
    print(
        f"{total.seeds:,} seeds, {total.steps:,} steps, {total.virtual_s / 3600:.1f} virtual hours, "
        f"{total.core_s / max(1, total.seeds):.1f} s of CPU per seed, {time.monotonic() - began:.0f} s now"
        f" (code {runs.code}, {runs.file})"
    )
    print(report(total.seen))
    for line in never_reached(total.seen):
        print(f"never reached: {line}")
    for violation in total.violations[:20]:
        print(f"VIOLATION seed {violation['seed']}: {violation['what']}")
        print(f"replay: make simulate SEED={violation['seed']} HOURS={options.hours:g}")
    if total.violations:
        return 1
    print("no violation")
    return 0


def broken() -> int:
    """Whether every build that leaves a rule out is found, and only such a build."""
    missed = 0
    for build in BROKEN.values():
        found = find(build, BROKEN_WITHIN, BROKEN_HOURS)
        if found is None:
            missed += 1
            print(f"{build.name}: NOT FOUND by {BROKEN_WITHIN} seeds", flush=True)
            continue
        seed, outcome = found
        print(
            f"{build.name}: seed {seed} after {outcome.virtual_s:.0f} virtual s: {outcome.violation}"[:240], flush=True
        )
        ours = run_seed(seed, BROKEN_HOURS, build=build.made_whole())
        if ours.violation is not None:
            missed += 1
            print(f"  and the real product: VIOLATION {ours.violation}", flush=True)
    return 1 if missed else 0


def replay(seed: int, hours: float, *, whole: bool) -> int:
    """Run one seed and print what it did; `whole`: from its beginning."""
    return tell(seed, run_seed(seed, hours, on_note=_print if whole else None), whole=whole)


def again(file: Path, *, whole: bool) -> int:
    try:
        schedule = Schedule.read(file, faults=FAULTS_BY_NAME, builds=BUILDS)
    except (OSError, ValueError) as error:
        print(error)
        return 2
    build = BUILDS[schedule.build]
    outcome = run_troubles(schedule.seed, schedule.troubles, build=build, on_note=_print if whole else None)
    return tell(schedule.seed, outcome, whole=whole)


def shrunk(options: argparse.Namespace) -> int:
    """Look for a smaller schedule that fails as the seed does, and write it where it can be replayed from."""
    found = shrink(options.seed, options.hours, BUILDS[options.build], runs=options.runs)
    if found is None:
        print(f"seed {options.seed}: every invariant holds")
        return 0
    schedule, outcome = found
    file = options.out / f"schedule-{schedule.build.replace(' ', '-')}-{schedule.seed}.json"
    schedule.write(file)
    tell(schedule.seed, outcome, whole=False)
    print(f"by {len(schedule.troubles)} troubles, in seconds after the cluster was founded:")
    for trouble in schedule.troubles:
        print(f"{trouble.at_s:10.3f} {trouble.fault}")
    print(f"replay: make simulate SCHEDULE={file}")
    return 1


def tell(seed: int, outcome: Outcome, *, whole: bool) -> int:
    for note in () if whole or outcome.violation is None else outcome.recent:
        _print(note)
    print(f"seed {seed}: {outcome.steps:,} steps, {outcome.virtual_s:.1f} virtual s, trace {outcome.trace:08x}")
    print(report(outcome.seen))
    if outcome.violation is None:
        print("every invariant holds")
        return 0
    print(f"VIOLATION {outcome.violation}")
    return 1


def _print(note: Note) -> None:
    at_s, what = note
    print(f"{at_s:12.6f} {' '.join(str(part) for part in what)}"[:240], flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation.cluster", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds (default 1000)")
    parser.add_argument("--hours", type=float, default=1.0, help="virtual hours of faults per seed (default 1)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--out", type=Path, default=Path(".work/simulate"), help="where tallies add up")
    parser.add_argument("--keep", action="store_true", help="put what was tallied so far under version control")
    parser.add_argument("--seed", type=int, help="run this one seed and say what it did")
    parser.add_argument("--broken", action="store_true", help="find the builds that leave a rule out")
    parser.add_argument("--whole", action="store_true", help="with --seed: say all of it")
    parser.add_argument("--shrink", action="store_true", help="with --seed: find fewer troubles that fail as it does")
    parser.add_argument("--build", choices=BUILDS, default="ours", help="with --shrink: a build that must fail")
    parser.add_argument("--runs", type=int, default=150, help="with --shrink: how many runs it may take (default 150)")
    parser.add_argument("--schedule", type=Path, help="replay the schedule of this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
