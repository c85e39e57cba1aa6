"""What an agent's driver may do is what its unit gives it: guests, disks and taps with CAP_NET_ADMIN and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from acceptance.qemu.guests import require

pytestmark = [pytest.mark.qemu, pytest.mark.netns, pytest.mark.xdist_group("guests"), pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[3]
LIFE = "test_what_was_left_of_microvms_is_found_by_its_mark_and_deleted_when_told"
"""Makes guests with taps and volumes, ends them, and finds nothing left."""


def driven_with(tmp_path: Path, capabilities: str) -> subprocess.CompletedProcess[str]:
    limited = [f"--bounding-set={capabilities}", f"--inh-caps={capabilities}", "--no-new-privs"]
    pytest_of_one = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    test = f"tests/acceptance/qemu/test_driver.py::{LIFE}"
    return subprocess.run(
        ["setpriv", *limited, *pytest_of_one, "--basetemp", str(tmp_path / "t"), test],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_one_capability_is_enough_and_is_needed(tmp_path: Path) -> None:
    require(os.geteuid() == 0 and shutil.which("setpriv") is not None, "needs root and setpriv")
    done = driven_with(tmp_path, "-all,+net_admin")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "1 passed" in done.stdout
    without = driven_with(tmp_path, "-all")
    assert "NetworkPermission" in without.stdout or "CAP_NET_ADMIN is needed" in without.stdout, without.stdout[-3000:]
