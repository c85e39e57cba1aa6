"""What processes used, read from /proc: CPU seconds, memory, and whose child they are."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
SAMPLE_S = 0.1


@dataclass(frozen=True)
class Memory:
    rss_mb: float
    pss_mb: float
    """Shared pages divided among those who share them."""


def cpu_s(pid: int) -> float:
    """User and system time, threads included, ended children not. 0 when the process is gone."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def memory(pid: int) -> Memory:
    values = {"Rss": 0, "Pss": 0}
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in values:
            values[name] = int(rest.split()[0])
    return Memory(rss_mb=round(values["Rss"] / 1024, 1), pss_mb=round(values["Pss"] / 1024, 1))


def command(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def children(pid: int) -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))) and int(fields[1]) == pid:
            yield int(entry.name)


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the state on: what stands before it may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


class FamilyCpu(threading.Thread):
    """Samples a process and its children while they live, since their CPU time cannot be told apart afterwards."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self._own = 0.0
        self._children: dict[int, float] = {}

    def run(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._own = max(self._own, cpu_s(self._pid))
            for child in children(self._pid):
                self._children[child] = max(self._children.get(child, 0.0), cpu_s(child))

    def finish(self) -> tuple[float, float]:
        """(the process' CPU seconds, its children's)"""
        self._over.set()
        self.join()
        return self._own, sum(self._children.values())


def used_since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: round(after[name] - before[name], 2) for name in before}
