"""CI's share of the schedules, that they reach what they must, that a seed says all, and that they can fail.

The rest runs by `make raft-schedules`. A failure prints the seed and how to replay it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from simulation.raft.broken import BROKEN
from simulation.raft.coverage import never_reached
from simulation.raft.running import BLOCK, minimise, run_block, run_plan, run_seed, series
from simulation.raft.schedule import decode_plan, draw_plan, encode_plan
from simulation.tallies import Tally, load

SEEDS = 200
BROKEN_WITHIN = 250
"""Seeds within which every broken build must be found."""


def test_random_schedules_keep_every_invariant() -> None:
    tally = run_block(0, SEEDS)
    assert tally.violations == [], "replay: PYTHONPATH=tests python -m simulation.raft --seed N"
    # The schedules must get somewhere, or they prove nothing.
    assert never_reached(tally.seen) == []
    assert tally.seen["proposal acknowledged"] > 20 * SEEDS
    assert tally.steps > 500 * SEEDS


@pytest.mark.parametrize("name", BROKEN)
def test_the_schedules_find_a_broken_build(name: str) -> None:
    for seed in range(BROKEN_WITHIN):
        outcome = run_seed(seed, BROKEN[name])
        if outcome.violation is not None:
            # The same schedule does no harm to the real core.
            assert run_seed(seed).violation is None
            return
    pytest.fail(f"{BROKEN_WITHIN} seeds found nothing")


def traces(hash_seed: str) -> str:
    program = "from simulation.raft.running import run_seed\nfor seed in range(12): print(run_seed(seed).trace)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def test_a_seed_gives_one_trace_whatever_the_order_of_sets() -> None:
    first = traces("0")
    assert len(set(first.split())) == 12
    assert first == traces("0") == traces("1") == traces("4711")


def test_a_violating_schedule_is_shortened_and_replayed() -> None:
    build = BROKEN["disk that does not sync"]
    seed = next(seed for seed in range(BROKEN_WITHIN) if run_seed(seed, build).violation is not None)
    plan = draw_plan(seed)
    short = minimise(plan, build, runs=100)
    assert len(short.actions) < len(plan.actions) / 3
    again = run_plan(decode_plan(encode_plan(short)), build)
    found = run_plan(plan, build)
    assert again.violation is not None
    assert found.violation is not None
    assert again.violation.kind == found.violation.kind


def test_a_kept_plan_is_the_plan_that_was_drawn() -> None:
    for seed in range(20):
        assert decode_plan(encode_plan(draw_plan(seed))) == draw_plan(seed)


def test_tallies_add_up_across_runs(tmp_path: Path) -> None:
    file = tmp_path / "tallies.jsonl"
    *_, (_, first) = series(file).go(0, 30, 2)
    assert (first.seeds, len(file.read_text().splitlines())) == (30, 2)
    lines = file.read_text()
    *_, (_, second) = series(file).go(0, 30, 2)
    assert file.read_text() == lines, "nothing runs twice"
    assert (second.seeds, second.steps, second.seen) == (first.seeds, first.steps, first.seen)
    total, done = load(file, "another version", 0, 30, block=BLOCK)
    assert (total, done) == (Tally(seen=Counter()), set())
