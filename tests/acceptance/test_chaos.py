"""The short set of `make chaos`: real nodes, agents and guests in namespaces; no microVM has two copies, all come back.

Needs root, namespaces, nftables and QEMU. In CI they must be there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCENARIOS = 3

pytestmark = [pytest.mark.netns, pytest.mark.qemu]


@pytest.mark.timeout(600)
def test_the_short_set_of_chaos(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--short", "--directory", str(tmp_path / "chaos")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode == os.EX_UNAVAILABLE and os.environ.get("CI") != "true":
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = [json.loads(line) for line in (tmp_path / "chaos" / "results.jsonl").read_text().splitlines()]
    assert [line["passed"] for line in lines] == [True] * SCENARIOS, done.stdout
