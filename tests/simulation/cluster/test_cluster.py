"""CI's share of the simulated clusters, that a seed says all, and that they can fail.

The rest runs by `make simulate` and `make simulate-broken`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from simulation.cluster.builds import BROKEN
from simulation.cluster.profile import Profile
from simulation.cluster.running import find, run_seed, series
from simulation.tallies import Tally, load

SEEDS = range(4)
HOURS = 0.1
SAYS = {
    "no fence wait": "runs after it was given up",
    "no epoch check": "destroyed without an order",
    "no tombstone rule": "destroyed without an order",
    "no quorum round before a grant": "runs after it was given up",
    "no term check on late commands": "late command",
}
"""What a seed says that finds the broken build."""
WITHIN = 40
"""Seeds. Any change of what is simulated, or of how it is drawn, makes another one the first that finds it."""
BEGIN = {"no epoch check": 10, "no quorum round before a grant": 11}
"""Where a search begins that would take long from the first seed on; it only saves time."""


def test_a_cluster_without_troubles_runs_everything() -> None:
    outcome = run_seed(1, 1 / 6, profile=Profile(weights={"user_works": 1.0}))
    assert outcome.violation is None
    seen = outcome.seen
    assert seen["microvm placed -> active"] >= 10
    assert seen["write acknowledged"] > 20
    assert seen["guest killed"] == seen["host ready -> suspect"] == seen["write unknown"] == 0


def test_seeds_keep_every_invariant() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = run_seed(seed, HOURS)
        assert outcome.violation is None, f"replay: make simulate SEED={seed} HOURS={HOURS:g}"
        seen += outcome.seen
    # They must get somewhere, or they prove nothing.
    for what in ("guest killed", "command resurrect", "host rejoining -> ready", "message held", "write acknowledged"):
        assert seen[what] > 0, what


def test_operators_who_cannot_decide_cordon_a_host_whatever_it_is_for() -> None:
    rare = {
        f"availability {old} -> cordoned" for old in ("draining", "drained", "entering_maintenance", "in_maintenance")
    }
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = run_seed(seed, HOURS, profile=Profile(weights={"host_acted_on": 1.0}, pace_s=8.0))
        assert outcome.violation is None
        seen += outcome.seen
        if rare <= seen.keys():
            return
    raise AssertionError(f"never reached: {sorted(rare - seen.keys())}")


@pytest.mark.parametrize("name", BROKEN)
def test_a_build_with_one_rule_left_out_is_found(name: str) -> None:
    build = BROKEN[name]
    found = find(build, WITHIN, HOURS, first=BEGIN.get(name, 0))
    assert found is not None
    seed, outcome = found
    assert outcome.violation is not None
    assert outcome.violation.kind == SAYS[name]
    assert run_seed(seed, HOURS, build=build.made_whole()).violation is None, "the real product survives it"


def test_a_seed_gives_one_trace_whatever_the_order_of_sets() -> None:
    traces = {_trace(hash_seed) for hash_seed in ("0", "1", "4711")}
    assert len(traces) == 1


def _trace(hash_seed: str) -> str:
    program = (
        "from simulation.cluster.running import run_seed\no = run_seed(7, 0.03)\nprint(o.trace, o.steps, o.virtual_s)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def test_tallies_add_up_across_runs(tmp_path: Path) -> None:
    file = tmp_path / "tallies.jsonl"
    *_, (_, first) = series(file, 0.01).go(0, 2, 2)
    lines = file.read_text()
    assert (first.seeds, len(lines.splitlines())) == (2, 2)
    *_, (_, second) = series(file, 0.01).go(0, 2, 2)
    assert file.read_text() == lines, "nothing runs twice"
    assert (second.seeds, second.steps, second.seen) == (first.seeds, first.steps, first.seen)
    assert load(file, series(file, 1.0).code, 0, 2, block=1) == (Tally(), set()), "of other hours"
