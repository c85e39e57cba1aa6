"""The network's faults do what they say, in both directions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]

TESTS = Path(__file__).resolve().parents[2]


def test_links_are_cut_spoiled_and_healed_as_ordered() -> None:
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("links.py"))],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
