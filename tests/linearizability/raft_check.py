"""Checked histories of real clusters under faults: `python -m tests.linearizability.raft_check --minutes N`.

Rounds of about 45 s until N minutes of faulted history are collected, over 3 and 5 nodes, the raft process as shipped,
on a disk that obeys, and whole nodes through the HTTP API. Each round appends a line to `rounds.jsonl` in the
directory, so that runs add up; `--summary` prints what is there. Exit code 1: a violation, with its evidence kept; 2: a
history that could not be decided; 69: this machine does not permit it, and why.
"""

# ruff: noqa: T201 - a command that prints
from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from linearizability.cluster import Build
from linearizability.faults import FAULTS, missing_for
from linearizability.rounds import Plan, Report, run_round
from linearizability.sandbox import run_inside
from linearizability.workload import Load

EARLY = 400
"""Entries until a snapshot, so that a round has several."""
CROWD = Load(clients=30, registers=6, think_s=0.02)
"""Many on few registers: more operations at once on each."""
API_LOAD = Load(clients=16, registers=12, think_s=0.05)
PLANS = {
    "three": Plan(3, small_disk=True),
    "five-obedient": Plan(5, Build("instrumented", snapshot_entries=EARLY, retain_entries=100)),
    "api": Plan(3, Build("api", snapshot_entries=EARLY), API_LOAD),
    "three-obedient": Plan(3, Build("instrumented", snapshot_entries=EARLY, retain_entries=100), CROWD),
    "five": Plan(5, Build(snapshot_entries=EARLY), small_disk=True),
    "clocks": Plan(3, faked_clocks=True),
}
"""In this order, again and again."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="of faulted history (default: %(default)g)")
    parser.add_argument("--round-s", type=float, default=45.0, help="faults in one round (default: %(default)g)")
    parser.add_argument("--directory", type=Path, default=Path(".work/raft-check"), help="tally and kept evidence")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of the first round's name")
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS), metavar="PLAN", help=", ".join(PLANS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT")
    parser.add_argument("--keep", action="store_true", help="the evidence of rounds that passed, too")
    parser.add_argument("--summary", action="store_true", help="only print what was collected so far")
    options = parser.parse_args(argv)
    tally = options.directory.resolve() / "rounds.jsonl"
    if options.summary:
        print(summary(read(tally)))
        return 0
    needs = {need for name in options.plans for need in PLANS[name].offers}
    if missing := missing_for(needs):
        print("raft-check cannot run here:", *missing, sep="\n  ", file=sys.stderr)
        return os.EX_UNAVAILABLE
    return run_inside(lambda: collect(tally, options))


def collect(tally: Path, options: argparse.Namespace) -> int:
    reports: list[Report] = []
    while sum(report.faulted_s for report in reports) < options.minutes * 60:
        number = len(reports)
        plan = options.plans[number % len(options.plans)]
        left_s = options.minutes * 60 - sum(report.faulted_s for report in reports)
        name = f"{options.seed}-{number}-{plan}"
        seconds = min(options.round_s, max(left_s, 10.0))
        report = run_round(PLANS[plan], name, seconds, tally.parent / name, faults=options.faults, keep=options.keep)
        reports.append(report)
        append(tally, report)
        print(line(report), flush=True)
        if not report.passed:
            print(*report.problems, *(f"undecided: {key}" for key in report.undecided), sep="\n\n")
            print(f"evidence: {report.kept}")
            return 1 if report.problems else 2
    print(summary(reports))
    everything = read(tally)
    if len(everything) > len(reports):
        print(f"\nWith earlier runs in {tally}:\n{summary(everything)}")
    return 0


def append(tally: Path, report: Report) -> None:
    tally.parent.mkdir(parents=True, exist_ok=True)
    with tally.open("ab") as file:
        file.write(msgspec.json.encode(report) + b"\n")


def read(tally: Path) -> list[Report]:
    if not tally.exists():
        return []
    return [msgspec.json.decode(row, type=Report) for row in tally.read_bytes().splitlines() if row]


def line(report: Report) -> str:
    done = report.operations
    return (
        f"{'ok  ' if report.passed else 'FAIL'} {report.name} ({report.nodes} nodes, {report.build}): "
        f"{report.faulted_s:g} s, {sum(report.faults.values())} faults, {done['ok'] + done['refused']} answered, "
        f"{done['failed']} failed, {done['unknown']} unknown, {report.service.per_s:g}/s, "
        f"p99 {report.service.p99_ms:g} ms, longest without an answer {report.service.longest_unavailable_s:g} s, "
        f"checked in {report.check_s:g} s"
    )


def summary(reports: Sequence[Report]) -> str:
    faults: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    for report in reports:
        faults.update(report.faults)
        operations.update(report.operations)
    longest = {name: max(report.service.unavailable_s_by_fault.get(name, 0.0) for report in reports) for name in faults}
    failed = [report.name for report in reports if not report.passed]
    seconds = sum(report.faulted_s for report in reports)
    return "\n".join(
        [
            f"{len(reports)} rounds, {seconds / 60:.1f} minutes of faulted history, "
            f"{len(failed)} rounds with a violation or undecided{': ' + ', '.join(failed) if failed else ''}",
            "operations: " + ", ".join(f"{name} {count}" for name, count in sorted(operations.items())),
            "commits: " + ", ".join(sorted({report.version for report in reports})),
            f"longest without an answer: {max((r.service.longest_unavailable_s for r in reports), default=0):g} s; "
            f"worst p99 of a round: {max((r.service.p99_ms for r in reports), default=0):g} ms",
            f"terms: {sum(r.terms for r in reports)}; "
            f"nodes that ended with a snapshot: {sum(r.snapshots for r in reports)}; "
            f"nodes that stopped themselves because of their disk: {sum(r.stopped_by_disk for r in reports)}",
            "faults (times; longest without an answer of those that came alone): "
            + ", ".join(f"{name} {count} ({longest[name]:g} s)" for name, count in sorted(faults.items())),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
