"""Appends per second through the private socket of a three-process cluster, beside stock PySyncObj in the same run.

    python tests/bench/bench_log.py [--seconds 3] [--size 300]

Ours: mutual TLS between the members, fsync always, clients in this process over the leader's and a follower's unix
socket. Stock: PySyncObj's defaults (pickle over plain TCP, in memory, no fsync), clients inside the leader's own
process, which spares it the socket. Both on loopback; each client has one append in flight.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unit.consensus.support import Authority, ProcessCluster, free_ports, peer_settings

from controlplane.ports import Log

CLIENTS = (1, 16, 64)


@dataclass(frozen=True)
class Result:
    ops_per_s: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, latencies_s: list[float], elapsed_s: float) -> Result:
        cuts = statistics.quantiles(latencies_s, n=100) if len(latencies_s) > 1 else [0.0] * 99
        return cls(len(latencies_s) / elapsed_s, cuts[49] * 1000, cuts[98] * 1000)


async def measure(log: Log, clients: int, size: int, seconds: float) -> Result:
    """`clients` loops of appends for `seconds`."""
    latencies: list[float] = []
    start = time.perf_counter()
    entry = b"x" * size

    async def loop() -> None:
        while (begun := time.perf_counter()) - start < seconds:
            await log.append(entry, timeout_s=30)
            latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(loop() for _ in range(clients)))
    return Result.of(latencies, time.perf_counter() - start)


@asynccontextmanager
async def cluster(root: Path) -> AsyncIterator[ProcessCluster]:
    """Three members as processes, with mutual TLS, in `root`."""
    # The tests' state is the whole history: a snapshot of it would measure that, not the log.
    settings = peer_settings(root, Authority(root / "pki"), ["n1", "n2", "n3"], snapshot_entries=10_000_000)
    members = ProcessCluster(settings, root)
    try:
        await members.start()
        yield members
    finally:
        await members.close()


async def ours(size: int, seconds: float) -> dict[str, dict[int, Result]]:
    with TemporaryDirectory() as directory:
        async with cluster(Path(directory)) as members:
            leader = await members.leader()
            follower = next(node for node in members.settings if node != leader)
            results: dict[str, dict[int, Result]] = {}
            for name, node in (("ours, at the leader", leader), ("ours, at a follower", follower)):
                await measure(members.clients[node], 8, size, 0.5)
                results[name] = {k: await measure(members.clients[node], k, size, seconds) for k in CLIENTS}
            return results


async def stock(size: int, seconds: float) -> dict[int, Result]:
    """Three processes of this file in stock mode; the one that leads measures and prints."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    members = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--stock", own, "--size", str(size), "--seconds", str(seconds)),
            *("--peers", *(other for other in addresses if other != own)),
            stdout=asyncio.subprocess.PIPE,
        )
        for own in addresses
    ]
    try:
        readers = [asyncio.create_task(member.stdout.readline()) for member in members if member.stdout]
        done, _ = await asyncio.wait(readers, timeout=60 + 4 * seconds, return_when=asyncio.FIRST_COMPLETED)
        raw = json.loads(done.pop().result())
        for reader in readers:
            reader.cancel()
        return {int(k): Result(**fields) for k, fields in raw.items()}
    finally:
        for member in members:
            if member.returncode is None:
                member.kill()
            await member.wait()


def stock_member(own: str, peers: list[str], size: int, seconds: float) -> None:
    from pysyncobj import SyncObj, SyncObjConf, replicated

    class Entries(SyncObj):
        def __init__(self) -> None:
            super().__init__(own, peers, SyncObjConf())
            self.entries: list[bytes] = []

        @replicated
        def append(self, entry: bytes) -> int:
            self.entries.append(entry)
            return len(self.entries)

    entries = Entries()
    while not entries.isReady() or entries._getLeader() is None:
        time.sleep(0.05)
    time.sleep(1)
    if not entries._isLeader():
        threading.Event().wait()
    print(json.dumps({k: vars(stock_measure(entries, k, size, seconds)) for k in CLIENTS}), flush=True)


def stock_measure(entries: object, clients: int, size: int, seconds: float) -> Result:
    latencies: list[float] = []
    entry = b"x" * size
    start = time.perf_counter()
    over = threading.Semaphore(0)

    def next_append() -> None:
        begun = time.perf_counter()
        if begun - start >= seconds:
            over.release()
            return

        def appended(result: object, error: object) -> None:
            latencies.append(time.perf_counter() - begun)
            next_append()

        entries.append(entry, callback=appended)  # type: ignore[attr-defined]

    for _ in range(clients):
        next_append()
    for _ in range(clients):
        over.acquire(timeout=10)
    return Result.of(latencies, time.perf_counter() - start)


def table(results: dict[str, dict[int, Result]]) -> str:
    lines = ["| | " + " | ".join(f"k={k} ops/s (p50 / p99 ms)" for k in CLIENTS) + " |", "|---" * 4 + "|"]
    for name, row in results.items():
        cells = [f"{row[k].ops_per_s:,.0f} ({row[k].p50_ms:.2f} / {row[k].p99_ms:.2f})" for k in CLIENTS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    first, *_, last = results.values()
    ratios = [f"{first[k].ops_per_s / last[k].ops_per_s:,.0f}x" for k in CLIENTS]
    return "\n".join([*lines, "| ratio, leader to stock | " + " | ".join(ratios) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--stock")
    parser.add_argument("--peers", nargs="*", default=[])
    options = parser.parse_args()
    if options.stock:
        stock_member(options.stock, options.peers, options.size, options.seconds)
        return
    results = asyncio.run(ours(options.size, options.seconds))
    results["stock PySyncObj, no fsync"] = asyncio.run(stock(options.size, options.seconds))
    print(table(results))


if __name__ == "__main__":
    main()
