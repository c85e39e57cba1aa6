"""Schedules: drawn from a seed, read from a file, made smaller."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from simulation.cluster.builds import BROKEN
from simulation.cluster.faults import FAULTS_BY_NAME
from simulation.cluster.running import run_troubles, shrink
from simulation.cluster.schedule import Schedule, Trouble, draw_troubles, smaller

TROUBLES = tuple(Trouble(float(number), "host_cut_off", number) for number in range(40))


def test_a_seed_draws_one_schedule() -> None:
    drawn = draw_troubles(7, 1.0, {"host_cut_off": 1.0, "bad_weather": 3.0, "node_killed": 0.0}, 20.0)
    assert drawn == draw_troubles(7, 1.0, {"host_cut_off": 1.0, "bad_weather": 3.0, "node_killed": 0.0}, 20.0)
    assert 120 < len(drawn) < 260
    assert {each.fault for each in drawn} == {"host_cut_off", "bad_weather"}
    assert list(drawn) == sorted(drawn, key=lambda each: each.at_s)
    assert drawn[-1].at_s <= 3600


@pytest.mark.parametrize("wanted", [{0}, {39}, {3, 4}, {5, 20, 39}, set(range(40))])
def test_what_cannot_be_left_out_is_found(wanted: set[int]) -> None:
    tried = 0

    def fails(troubles: Sequence[Trouble]) -> bool:
        nonlocal tried
        tried += 1
        return wanted <= {each.chance for each in troubles}

    assert {each.chance for each in smaller(TROUBLES, fails, runs=1000)} == wanted
    assert tried < 200


def test_no_more_runs_than_allowed() -> None:
    tried: list[int] = []

    def fails(troubles: Sequence[Trouble]) -> bool:
        tried.append(len(troubles))
        return {0, 20, 39} <= {each.chance for each in troubles}

    left = smaller(TROUBLES, fails, runs=5)
    assert len(tried) == 5
    assert fails(left)


def test_a_broken_build_by_fewer_troubles_from_a_file(tmp_path: Path) -> None:
    build = BROKEN["no tombstone rule"]
    found = shrink(1, 0.1, build, runs=3)
    assert found is not None
    schedule, outcome = found
    assert "restore_older" in {each.fault for each in schedule.troubles}
    assert len(schedule.troubles) <= 4
    schedule.write(tmp_path / "schedule.json")
    read = Schedule.read(tmp_path / "schedule.json", faults=FAULTS_BY_NAME, builds=BROKEN)
    again = run_troubles(read.seed, read.troubles, build=build)
    assert (again.trace, str(again.violation)) == (outcome.trace, str(outcome.violation))
    assert run_troubles(read.seed, read.troubles).violation is None, "the real product survives it"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "truncated"),
        ('{"seed": "1", "build": "ours", "troubles": []}', "$.seed"),
        ('{"seed": 1, "build": "theirs", "troubles": []}', "$.build"),
        ('{"seed": 1, "build": "ours", "troubles": [{"at_s": 1, "fault": "f", "chance": 1}]}', "$.troubles[0].fault"),
    ],
)
def test_what_is_no_schedule_is_refused(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(place)):
        Schedule.read(tmp_path / "s.json", faults=FAULTS_BY_NAME, builds={"ours"})
