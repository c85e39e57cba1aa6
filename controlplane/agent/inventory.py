"""What the host has and how busy it is, from configuration and from /proc.

Every reader takes the directory to read, so the arithmetic is tested on files of other machines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from controlplane.model.resources import Amount

PROC = Path("/proc")


class InventoryError(Exception):
    """The machine does not say what it has; configure the capacity."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What microVMs may use in all; None is taken from the machine. `microvms` 0: as many as fit."""

    vcpu: int | None = None
    memory_in_mb: int | None = None
    microvms: int = 0
    vcpu_per_cpu: float = 1.0
    """Overcommit of CPUs that are counted, not of a configured `vcpu`."""
    reserved_memory_in_mb: int = 0
    """Kept for the host when memory is measured."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    busy: int
    total: int


@dataclass(frozen=True, slots=True)
class Metrics:
    cpu_busy: float
    """0..1 since the reading before."""
    memory_available_mb: int


def read(path: str) -> bytes:
    """The whole file. Raises OSError."""
    return Path(path).read_bytes()


def capacity_of(config: Capacity, proc: Path = PROC) -> Amount:
    """Raises InventoryError."""
    vcpu = config.vcpu
    if vcpu is None:
        vcpu = max(1, int((os.cpu_count() or 1) * config.vcpu_per_cpu))
    memory = config.memory_in_mb
    if memory is None:
        memory = max(64, _meminfo(proc, "MemTotal") - config.reserved_memory_in_mb)
    return Amount(microvms=config.microvms, vcpu=vcpu, memory_in_mb=memory)


def boot_id(proc: Path = PROC) -> str:
    """Changes with every boot of the host. Raises InventoryError."""
    path = f"{proc}/sys/kernel/random/boot_id"
    try:
        return read(path).decode("ascii").strip()
    except OSError as error:
        raise InventoryError(f"{path}: {error}") from error


def cpu_times(proc: Path = PROC) -> CpuTimes:
    """Ticks since boot over all CPUs; waiting for a disk is idle. Raises InventoryError."""
    path = f"{proc}/stat"
    try:
        fields = read(path).split(b"\n", 1)[0].split()
        ticks = [int(field) for field in fields[1:9]]
    except (OSError, ValueError) as error:
        raise InventoryError(f"{path}: {error}") from error
    if len(ticks) < 5:
        raise InventoryError(f"{path}: no line of all CPUs")
    total = sum(ticks)
    return CpuTimes(busy=total - ticks[3] - ticks[4], total=total)


class Meter:
    """Readings of the host's load, each relative to the one before."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._last = cpu_times(proc)
        self.latest = Metrics(cpu_busy=0.0, memory_available_mb=_meminfo(proc, "MemAvailable"))

    def read(self) -> Metrics:
        """Raises InventoryError."""
        times = cpu_times(self._proc)
        elapsed = times.total - self._last.total
        busy = (times.busy - self._last.busy) / elapsed if elapsed > 0 else self.latest.cpu_busy
        self._last = times
        self.latest = Metrics(
            cpu_busy=min(max(busy, 0.0), 1.0), memory_available_mb=_meminfo(self._proc, "MemAvailable")
        )
        return self.latest


def _meminfo(proc: Path, key: str) -> int:
    """MiB."""
    path = f"{proc}/meminfo"
    try:
        wanted = key.encode()
        for line in read(path).splitlines():
            name, _, rest = line.partition(b":")
            if name == wanted:
                return int(rest.split()[0]) // 1024
    except (OSError, ValueError, IndexError) as error:
        raise InventoryError(f"{path}: {error}") from error
    raise InventoryError(f"{path}: no {key}")
