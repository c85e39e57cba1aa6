"""Which scenarios run, and what became of each: a pytest plugin that reads and adds to the tally."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench.tally import Tally
from linearizability.cluster import REPOSITORY

SECTION = "scenario"
SHORT = "short"
IMAGES = "images"
"""The folder with the guests' images, in the runs' directory."""


@dataclass(frozen=True)
class Options:
    words: tuple[str, ...]
    short: bool
    again: bool
    outage_s: int
    directory: Path


class Results:
    """`failed` once something did."""

    def __init__(self, tally: Tally, options: Options) -> None:
        self.options = options
        self.failed = False
        self._tally = tally
        self._commit = _commit()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        passed = {line["name"] for line in self._tally.lines(SECTION) if line["passed"] and self._is_ours(line)}
        kept = [item for item in items if self._is_wanted(item) and (self.options.again or item.name not in passed)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def _is_wanted(self, item: pytest.Item) -> bool:
        words = self.options.words
        named = not words or any(word in item.name for word in words)
        return named and (not self.options.short or item.get_closest_marker(SHORT) is not None)

    def _is_ours(self, line: dict[str, Any]) -> bool:
        return line["commit"] == self._commit and not self._commit.endswith("-dirty")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed or report.when == "call":
            self.failed |= report.failed
            why = report.longreprtext.splitlines()[-40:] if report.failed else []
            seconds = round(report.duration, 1)
            self._tally.add(
                SECTION, name=item.name, commit=self._commit, passed=report.passed, seconds=seconds, why=why
            )
        return report


def summary(tally: Tally) -> str:
    """For each scenario how often it passed, of how many times, and how it went last."""
    lines = tally.lines(SECTION)
    rows = [f"scenarios in {tally.path}: {sum(line['passed'] for line in lines)} of {len(lines)} runs passed"]
    for name in sorted({line["name"] for line in lines}):
        runs = [line for line in lines if line["name"] == name]
        last = "ok  " if runs[-1]["passed"] else "FAIL"
        passed = sum(line["passed"] for line in runs)
        rows.append(f"  {last} {name}: {passed} of {len(runs)}, last at {runs[-1]['commit']}, {runs[-1]['seconds']} s")
    return "\n".join(rows)


def _commit() -> str:
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(describe, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout.strip()
