"""Random schedules of Raft cores: `python -m simulation.raft --help` (with `tests` on the path), `make raft-schedules`.

Exit code 1 when an invariant does not hold; the output then has the seed, the step and a shortened schedule, which is
also kept as a file that `--plan` runs again.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from simulation.raft.broken import BROKEN
from simulation.raft.coverage import never_reached, report
from simulation.raft.process import Build
from simulation.raft.running import minimise, run_plan, series
from simulation.raft.schedule import Plan, decode_plan, draw_plan, encode_plan
from simulation.tallies import Tally


def main() -> int:
    options = _options()
    logging.disable()
    build = BROKEN[options.build] if options.build else Build()
    if options.plan is not None:
        return replay(decode_plan(options.plan.read_bytes()), build, options.out, shorten=False)
    if options.seed is not None:
        return replay(draw_plan(options.seed), build, options.out, shorten=not options.whole)
    return many(options)


def many(options: argparse.Namespace) -> int:
    file = options.out / "tallies.jsonl"
    began, printed = time.monotonic(), 0.0
    total = Tally()
    for done, total in series(file).go(options.first, options.seeds, options.jobs):
        if time.monotonic() - printed > 5:
            printed = time.monotonic()
            print(f"{done:,} of {options.seeds:,} seeds, {len(total.violations)} violations", flush=True)
    per_seed_ms = 1000 * total.core_s / max(1, total.seeds)
    print(
        f"{total.seeds:,} seeds, {total.steps:,} steps, {total.virtual_s / 3600:.1f} virtual hours, "
        f"{per_seed_ms:.0f} ms per seed and core, {time.monotonic() - began:.0f} s now ({file})"
    )
    print(report(total.seen))
    for line in never_reached(total.seen) if total.seeds >= 100 else ():
        print(f"never reached: {line}")
    for violation in total.violations[:20]:
        print(f"VIOLATION seed {violation['seed']} step {violation['step']}: {violation['what']}")
    if total.violations:
        replay(draw_plan(min(v["seed"] for v in total.violations)), Build(), options.out, shorten=True)
        return 1
    print("no violation")
    return 0


def replay(plan: Plan, build: Build, out: Path, *, shorten: bool) -> int:
    """Run one plan and print what it did; a violation also shortened."""
    outcome = run_plan(plan, build)
    print(f"seed {plan.seed}: {outcome.steps} steps, {outcome.virtual_s:.1f} virtual s, trace {outcome.trace:08x}")
    if outcome.violation is None:
        print("every invariant holds")
        return 0
    if shorten:
        print(f"VIOLATION {outcome.violation}\nshortening its {len(plan.actions)} actions ...", flush=True)
        plan = minimise(plan, build)
        outcome = run_plan(plan, build)
    print(plan.profile)
    print(f"the schedule ({len(plan.actions)} actions):")
    for action in plan.actions:
        print(f"  {action}")
    print("the last steps:")
    for at_s, *what in outcome.recent:
        print(f"  {at_s:10.6f} {' '.join(str(part) for part in what)}"[:240])
    print(f"VIOLATION at step {outcome.steps}: {outcome.violation}")
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"seed-{plan.seed}.json"
    file.write_bytes(encode_plan(plan))
    extra = f' --build "{build.name}"' if build.name in BROKEN else ""
    print(f"replay: PYTHONPATH=tests python -m simulation.raft --seed {plan.seed}{extra}")
    print(f"        PYTHONPATH=tests python -m simulation.raft --plan {file}{extra}")
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation.raft", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds (default 1000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--out", type=Path, default=Path(".work/raft-schedules"), help="where tallies add up")
    parser.add_argument("--seed", type=int, help="run this one seed and say what it did")
    parser.add_argument("--whole", action="store_true", help="with --seed: do not shorten a violating schedule")
    parser.add_argument("--plan", type=Path, help="run a schedule that was kept")
    parser.add_argument("--build", choices=sorted(BROKEN), help="with --seed or --plan: a core with a known fault")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
