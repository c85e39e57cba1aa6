"""Running plans: one of them, one shortened to what its violation needs, and many over processes with tallies that add
up across runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec.structs import replace
from simulation.raft.actions import Action
from simulation.raft.invariants import Violation
from simulation.raft.network import Weather
from simulation.raft.process import Build
from simulation.raft.schedule import Plan, draw_plan
from simulation.raft.world import World

_ROOT = Path(__file__).resolve().parents[3]
_MEMORY = Path("/dev/shm")
BLOCK = 25


@dataclass
class Outcome:
    """What one plan did. `violation` is None when every invariant held."""

    violation: Violation | None
    steps: int
    actions: int
    virtual_s: float
    trace: int
    seen: Counter[str]
    recent: list[tuple[object, ...]]


def run_plan(plan: Plan, build: Build | None = None) -> Outcome:
    """Files are real, but on a file system in memory where there is one: what is durable is the model's to say."""
    with TemporaryDirectory(prefix="raft-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as directory:
        world = World(plan, Path(directory), build or Build())
        violation: Violation | None = None
        try:
            world.run()
        except Violation as error:
            violation = error
        return Outcome(violation, world.steps, world.actions, world.now_s, world.trace, world.seen, list(world.recent))


def run_seed(seed: int, build: Build | None = None) -> Outcome:
    return run_plan(draw_plan(seed), build)


# -- shortening --------------------------------------------------------------------------------------------------------


def minimise(plan: Plan, build: Build | None = None, *, runs: int = 600) -> Plan:
    """The same violation with as few actions, and as calm a network, as about `runs` find: delta debugging."""
    found = run_plan(plan, build)
    assert found.violation is not None, "nothing to shorten: every invariant holds"
    kind = found.violation.kind
    left = runs

    def fails(candidate: Plan) -> bool:
        nonlocal left
        left -= 1
        violation = run_plan(candidate, build).violation
        return violation is not None and violation.kind == kind

    without_rest = replace(plan, actions=plan.actions[: found.actions])
    if fails(without_rest):
        plan = without_rest

    calm = replace(plan, profile=replace(plan.profile, weather=Weather(), sync_s=(0.0, 0.0)))
    if fails(calm):
        plan = calm
    pieces = 2
    while len(plan.actions) > 1 and left > 0:
        shorter = next((c for c in _without_a_piece(plan, pieces) if left > 0 and fails(c)), None)
        if shorter is not None:
            plan, pieces = shorter, max(pieces - 1, 2)
        elif pieces >= len(plan.actions):
            break
        else:
            pieces = min(2 * pieces, len(plan.actions))
    return plan


def _without_a_piece(plan: Plan, pieces: int) -> Iterator[Plan]:
    """The plan without one of its `pieces`, with its time kept or dropped."""
    size = -(-len(plan.actions) // pieces)
    for start in range(0, len(plan.actions), size):
        gone, rest = plan.actions[start : start + size], plan.actions[start + size :]
        yield replace(plan, actions=[*plan.actions[:start], *rest])
        if rest:
            passed_s = sum(action.after_s for action in gone)
            kept: Action = replace(rest[0], after_s=rest[0].after_s + passed_s)
            yield replace(plan, actions=[*plan.actions[:start], kept, *rest[1:]])


# -- many --------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a number of seeds did, all of them by the same code."""

    seeds: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    seen: Counter[str] = field(default_factory=Counter[str])
    violations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.virtual_s += other.virtual_s
        self.wall_s += other.wall_s
        self.seen.update(other.seen)
        self.violations.extend(other.violations)


def run_block(first: int, count: int, build: Build | None = None) -> Tally:
    tally = Tally()
    began = time.perf_counter()
    for seed in range(first, first + count):
        outcome = run_seed(seed, build)
        tally.seeds += 1
        tally.steps += outcome.steps
        tally.virtual_s += outcome.virtual_s
        tally.seen.update(outcome.seen)
        if outcome.violation is not None:
            tally.violations.append(
                {"seed": seed, "step": outcome.steps, "kind": outcome.violation.kind, "what": str(outcome.violation)}
            )
    tally.wall_s = time.perf_counter() - began
    return tally


def fingerprint() -> str:
    """Names the code a tally was made with, so that tallies of another version are never added to it."""
    digest = hashlib.sha256()
    for folder in ("controlplane/consensus", "tests/simulation/raft"):
        for path in sorted((_ROOT / folder).glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def run_many(first: int, count: int, jobs: int, file: Path) -> Iterator[tuple[int, Tally]]:
    """Run the blocks of `count` seeds from `first` that `file` does not have yet, append them to it, and yield (the
    seeds done so far, the tally over all of them)."""
    code = fingerprint()
    total, done = load(file, code, first, count)
    missing = [start for start in range(first, first + count, BLOCK) if start not in done]
    file.parent.mkdir(parents=True, exist_ok=True)
    yield total.seeds, total
    with ProcessPoolExecutor(jobs) as pool, file.open("a") as out:
        running = {pool.submit(run_block, at, min(BLOCK, first + count - at)): at for at in missing}
        for finished in as_completed(running):
            tally = finished.result()
            line = {"code": code, "first": running[finished], **vars(tally)}
            out.write(json.dumps(line) + "\n")
            out.flush()
            total.add(tally)
            yield total.seeds, total


def load(file: Path, code: str, first: int, count: int) -> tuple[Tally, set[int]]:
    """The tally so far within the range, and the first seeds of its blocks."""
    total, done = Tally(), set[int]()
    for line in file.read_text().splitlines() if file.exists() else ():
        record = json.loads(line)
        start, seeds = record.pop("first"), record["seeds"]
        whole = seeds == BLOCK or start + seeds == first + count
        inside = first <= start and start + seeds <= first + count and (start - first) % BLOCK == 0
        if record.pop("code") == code and inside and whole and start not in done:
            done.add(start)
            record["seen"] = Counter[str](record["seen"])
            total.add(Tally(**record))
    return total, done
