"""How the suite itself is dealt out to workers, and what keeps them apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from support import ports

TESTS = Path(__file__).resolve().parents[1]

SHARED = """
import os, pathlib, time
import pytest

@pytest.fixture(scope="module")
def costly():
    with pathlib.Path(os.environ["MADE"]).open("a") as file:
        file.write("made\\n")

@pytest.mark.parametrize("number", range(8))
def test_together(costly, number):
    time.sleep(0.05)
"""
SINGLE = """
import json, os, pathlib, time
import pytest
from support.ports import free_ports

@pytest.mark.parametrize("number", range(8))
def test_anywhere(number):
    time.sleep(0.2)
    pathlib.Path(os.environ["PORTS"], os.environ["PYTEST_XDIST_WORKER"]).write_text(json.dumps(free_ports(3000)))
"""


def test_a_modules_fixture_is_made_once_and_workers_pick_different_ports(tmp_path: Path) -> None:
    (tmp_path / "test_shared.py").write_text(SHARED)
    (tmp_path / "test_single.py").write_text(SINGLE)
    picked = tmp_path / "ports"
    picked.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-n", "2", "--dist", "loadgroup", str(tmp_path)],
        env={**clean, "PYTHONPATH": str(TESTS), "MADE": str(tmp_path / "made"), "PORTS": str(picked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "made").read_text() == "made\n"
    one, other = (set(json.loads(path.read_text())) for path in picked.iterdir())
    assert one.isdisjoint(other)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_shares_of_the_ports_do_not_overlap(workers: int) -> None:
    shares = [ports.share(worker, workers) for worker in range(workers)]
    assert shares[0][0] == ports.FIRST
    assert shares[-1][1] <= ports.LAST
    assert all(first < end for first, end in shares)
    assert all(end <= after for (_, end), (after, _) in pairwise(shares))
