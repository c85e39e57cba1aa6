"""Real clusters under real faults: what their clients saw is linearizable, and a broken build is found out.

Needs root, network namespaces and nftables, and fails where they are missing: `make test` installs what apt has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from linearizability.raft_check import PLANS
from linearizability.rounds import Report
from support.cluster import within

REPOSITORY = Path(__file__).resolve().parents[2]
MINUTES = 3
ROUND_S = MINUTES * 60 / len(PLANS)

pytestmark = [pytest.mark.netns, pytest.mark.xdist_group("raft-check")]


def start(module: str, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.linearizability.{module}", *argv],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


@pytest.mark.timeout(900)
def test_histories_under_faults_are_linearizable(tmp_path: Path) -> None:
    command = start(
        "raft_check", "--minutes", str(MINUTES), "--round-s", str(ROUND_S), "--directory", str(tmp_path / "check")
    )
    output, _ = command.communicate()
    sys.stdout.write(output)
    assert command.returncode == 0, output
    rows = (tmp_path / "check" / "rounds.jsonl").read_bytes().splitlines()
    reports = [msgspec.json.decode(row, type=Report) for row in rows]
    assert {report.nodes for report in reports} == {3, 5}
    assert sum(report.faulted_s for report in reports) >= MINUTES * 60
    assert sum(report.operations["ok"] for report in reports) > 3_000 * MINUTES
    assert sum(report.operations["unknown"] for report in reports) > 0, "no fault hit an operation"
    assert sum(report.snapshots for report in reports) > 0
    assert sum(report.terms for report in reports) > 2 * len(reports), "hardly a leader was replaced"
    assert len({fault for report in reports for fault in report.faults}) >= 15


@pytest.mark.timeout(300)
@pytest.mark.parametrize("build", ["no-sync", "stale-reads", "stale-clients"])
def test_a_broken_build_is_found_out(build: str) -> None:
    command = start("broken_builds", build)
    output, _ = command.communicate()
    assert command.returncode == 0, output
    assert "no order of its operations explains" in output or "revisions: " in output


@pytest.mark.timeout(300)
def test_a_killed_run_leaves_nothing_behind(tmp_path: Path) -> None:
    directory = tmp_path / "check"
    command = start("raft_check", "--minutes", "1", "--plans", "three", "--directory", str(directory))
    try:
        within(
            40, lambda: any("/run/round/n1/node.yaml" in line for line in inside(sandbox_of(command))), "a node runs"
        )
        sandbox = sandbox_of(command)
        command.kill()
        command.wait()
        within(10, lambda: not inside(sandbox), "every process is gone")
    finally:
        command.kill()
        command.communicate()
    mounts = Path("/proc/mounts").read_text()
    assert str(directory) not in mounts
    assert "raft-check" not in mounts
    assert "/run/netns/n1 " not in mounts


def sandbox_of(command: subprocess.Popen[str]) -> Path | None:
    """The pid namespace of what the command starts; None while it makes one."""
    with suppress(OSError):
        return Path(f"/proc/{command.pid}/ns/pid_for_children").readlink()
    return None


def inside(namespace: Path | None) -> list[str]:
    """Command lines of the processes in a pid namespace."""
    found: list[str] = []
    for each in Path("/proc").iterdir():
        with suppress(OSError):
            if each.name.isdigit() and (each / "ns/pid").readlink() == namespace:
                found.append((each / "cmdline").read_text())
    return found
