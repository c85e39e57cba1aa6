"""The benchmark of many microVMs, in its short form: its outcomes hold; how long it takes is for `make bench-vms`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240
STOP_S = 60


@pytest.mark.timeout(TIMEOUT_S + STOP_S)
def test_hundreds_of_microvms_come_and_go_by_terraform_and_by_batch(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.bench.bench_vms", "--short", "--json", str(figures)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends its cluster by itself
            output, _ = process.communicate(timeout=STOP_S)
    # The benchmark asserts outcomes itself: all run, each on one host; an empty plan; nothing left on any host.
    assert process.returncode == 0, output
    measured = json.loads(figures.read_text())
    (run,) = measured["terraform"]["runs"]
    phases = {each["name"]: each for each in run["phases"]}
    assert list(phases) == ["plan", "apply", "plan, nothing to do", "destroy"]
    made = {each["kind"]: each for each in phases["apply"]["requests"]}["PUT /namespaces/*/microvms/*"]
    # One more: equal microVMs are rehearsed once while the apply is planned.
    assert made["count"] - 1 == measured["terraform"]["microvms"] == 100
    assert all(each["errors"] == 0 for phase in run["phases"] for each in phase["requests"])
    assert measured["batch"]["microvms"] == 500
    assert all(held["rss_mb"] < 400 for held in measured["batch"]["memory"].values())
