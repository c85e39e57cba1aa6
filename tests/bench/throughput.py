"""Writes, batches and reads through each system's network API, by the same load generator."""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from bench import bench_log, proc
from bench.load import MAX_CORE, LoadGenerator, Request, Target
from bench.tally import Tally

BATCH = 100
KEPT = 10_000
"""Objects that reads are spread over."""
PREFIX = "bench-"


class System(Protocol):
    """A cluster of three under test."""

    name: str
    ca: Path
    members: tuple[str, ...]

    def put(self, prefix: str, value: bytes) -> Request: ...
    def put_many(self, prefix: str, value: bytes, count: int) -> Request: ...
    def read(self, prefix: str, *, stale: bool) -> Request: ...
    def targets(self, *names: str) -> list[Target]: ...
    def leader(self) -> str: ...
    def await_ready(self) -> None: ...
    def pids(self) -> dict[str, int]: ...
    def start(self, *names: str) -> None: ...
    def kill(self, name: str) -> int: ...
    def freeze(self, name: str) -> int: ...
    def thaw(self, name: str) -> None: ...
    def restart(self, name: str) -> None: ...


Running = Callable[[Path], AbstractContextManager[System]]


def value_of(size: int) -> bytes:
    """A body of `size` bytes that both systems get: ours as a namespace, etcd as a value."""
    empty = json.dumps({"annotations": {"bench": ""}}, separators=(",", ":"))
    body = json.dumps({"annotations": {"bench": "x" * (size - len(empty))}}, separators=(",", ":")).encode()
    assert len(body) == size
    return body


class Bench:
    """Measures one running system."""

    def __init__(self, system: System, program: Path, tally: Tally, *, seconds: float, size: int) -> None:
        self.system = system
        self.generator = LoadGenerator(program, system.ca)
        self.value = value_of(size)
        self.tally = tally
        self.seconds = seconds
        self._next = 0

    def measure(
        self, section: str, at: str, request: Request, clients: int, *, modulo: int = 0, seconds: float | None = None
    ) -> None:
        """`at`: `leader`, or `spread` over all members. Prints and tallies one row."""
        targets = self.system.targets(*([self.system.leader()] if at == "leader" else []))
        pids = self.system.pids()
        before = {name: proc.cpu_s(pid) for name, pid in pids.items()}
        load = self.generator.run(
            request,
            targets,
            clients=clients,
            seconds=seconds or self.seconds,
            first=0 if modulo else self._next,
            modulo=modulo,
        )
        used_s = proc.used_since(before, {name: proc.cpu_s(pid) for name, pid in pids.items()})
        if not modulo:
            self._next += load.asked * request.step
        per_s = load.per_s * request.step
        figures = asdict(load) | {"objects_per_s": round(per_s, 1), "cpu_s": round(sum(used_s.values()), 2)}
        figures |= {"value_bytes": len(self.value), "cpu_s_of": used_s}
        self.tally.add(section, system=self.system.name, at=at, clients=clients, **figures)
        warning = f"  FAILED {load.failed}: {load.failures}" if load.failed else ""
        warning += f"  GENERATOR AT {load.loadgen_core:.0%} OF A CORE" if load.loadgen_core > MAX_CORE else ""
        print(
            f"  {section:18} {self.system.name:5} {at:7} k={clients:<4} {per_s:10,.0f}/s  p50 {load.p50_ms:8.2f} ms"
            f"  p99 {load.p99_ms:8.2f} ms  generator {load.loadgen_core:4.0%}{warning}",
            flush=True,
        )

    def fill(self, count: int) -> int:
        """Write objects 0.. in batches of one client until `count` are there for sure; gives how many."""
        request = self.system.put_many(PREFIX, self.value, BATCH)
        while self._next < count:
            load = self.generator.run(
                request, self.system.targets(), clients=1, seconds=0.5, warm_s=0.0, first=self._next
            )
            assert load.answered, "nothing could be written"
            self._next += (load.asked - 1) * BATCH
        return self._next


def writes(bench: Bench, clients: Sequence[int]) -> None:
    for at in ("leader", "spread"):
        for count in clients:
            bench.measure("writes", at, bench.system.put(PREFIX, bench.value), count)


def batches(bench: Bench, clients: Sequence[int]) -> None:
    for at in ("leader", "spread"):
        for count in clients:
            # Answers take long here: in a short time few of them, at most some per client, would be counted.
            request = bench.system.put_many(PREFIX, bench.value, BATCH)
            bench.measure("batches", at, request, count, seconds=2 * bench.seconds)


def reads(bench: Bench, clients: Sequence[int]) -> None:
    kept = bench.fill(KEPT)
    bench.system.await_ready()
    time.sleep(0.5)
    for section, stale in (("reads", False), ("stale_reads", True)):
        for count in clients:
            bench.measure(section, "spread", bench.system.read(PREFIX, stale=stale), count, modulo=kept)


def private(tally: Tally, clients: Sequence[int], *, seconds: float, size: int) -> None:
    """Appends through the raft process's own socket, by a client in Python (ours alone; etcd has no such door)."""

    async def run() -> None:
        with TemporaryDirectory(prefix="bench-") as name:
            async with bench_log.cluster(Path(name)) as members:
                leader = await members.leader()
                await bench_log.measure(members.clients[leader], 8, size, 0.5)
                for count in clients:
                    result = await bench_log.measure(members.clients[leader], count, size, seconds)
                    tally.add("private", system="ours", at="leader", clients=count, value_bytes=size, **asdict(result))
                    print(
                        f"  {'private':18} {'ours':5} {'leader':7} k={count:<4} {result.ops_per_s:10,.0f}/s"
                        f"  p50 {result.p50_ms:8.2f} ms  p99 {result.p99_ms:8.2f} ms  (client in Python)",
                        flush=True,
                    )

    asyncio.run(run())
