"""Results as lines of JSON in a file that is only added to: runs add up, and one that was ended loses nothing."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Keep = Callable[[Line], bool]


class Tally:
    """`run` is what the lines added by this process have in common."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "results.jsonl"
        self.run = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._build = _build()

    def add(self, section: str, **figures: object) -> Line:
        line: Line = {
            "run": self.run,
            "section": section,
            "build": self._build,
            "load_average": round(os.getloadavg()[0], 2),
            **figures,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def lines(self, section: str) -> list[Line]:
        if not self.path.exists():
            return []
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in found if line["section"] == section]

    def last_run(self, section: str) -> list[Line]:
        """The lines of the newest run that has any of this section: ratios are made within one run."""
        found = self.lines(section)
        return [line for line in found if line["run"] == found[-1]["run"]]


def machine() -> Line:
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu.partition(": ")[2],
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kb / 2**20),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _build() -> str:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10, check=False
    )
    return answer.stdout.strip() or "unknown"
