"""Running plans: one of them, one shortened to what its violation needs, and many with tallies that add up."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace
from simulation.raft.actions import Action
from simulation.raft.invariants import Violation
from simulation.raft.network import Weather
from simulation.raft.process import Build
from simulation.raft.schedule import Plan, draw_plan
from simulation.raft.world import World
from simulation.tallies import Series, Tally, fingerprint

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
    tally.core_s = time.perf_counter() - began
    return tally


def series(file: Path) -> Series:
    """Tallies in `file` of the present consensus and of these schedules."""
    folders = ("controlplane/consensus", "tests/simulation/raft")
    return Series(file, fingerprint(folders), BLOCK, run_block)
