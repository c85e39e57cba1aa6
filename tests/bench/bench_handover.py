"""How long writes wait while the leadership is handed over, under a steady load on every member.

    python -m tests.bench.bench_handover [--count 50] [--writers 8] [--directory .work/handover]

A figure is the longest wait of any write that was under way at, or begun during, one handover. Every run adds to the
same file, so that several runs make one distribution.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import bench_log
from bench.tally import Tally
from unit.consensus.support import ProcessCluster, until

from controlplane.ports import LogError

SETTLE_WRITES = 50


class Load:
    """Writers that each have one append in flight, at a member of their own."""

    def __init__(self, members: ProcessCluster, writers: int) -> None:
        self._clients = list(members.clients.values())
        self.waits: list[tuple[float, float]] = []
        """(began, ended) of every write, monotonic seconds."""
        self.failed = 0
        self._tasks = [asyncio.create_task(self._write(i)) for i in range(writers)]

    async def _write(self, number: int) -> None:
        client = self._clients[number % len(self._clients)]
        while True:
            began = time.monotonic()
            try:
                await client.append(b"x" * 300, timeout_s=30)
            except LogError:
                self.failed += 1
            self.waits.append((began, time.monotonic()))

    async def more(self, count: int) -> None:
        target = len(self.waits) + count

        async def written() -> bool:
            return len(self.waits) >= target

        await until(written, "writes go on", timeout_s=60)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


async def measure(tally: Tally, count: int, writers: int) -> None:
    with TemporaryDirectory(prefix="bench-") as directory:
        async with bench_log.cluster(Path(directory)) as members:
            load = Load(members, writers)
            for number in range(count):
                leader = await members.leader()
                await load.more(SETTLE_WRITES)
                failed, began = load.failed, time.monotonic()
                await members.clients[leader].transfer_leadership(None, timeout_s=10)
                ended = time.monotonic()
                await load.more(2 * writers)
                waits = [end - start for start, end in load.waits if end > began and start < ended]
                line = tally.add(
                    "handover",
                    writers=writers,
                    took_ms=round((ended - began) * 1000, 1),
                    longest_wait_ms=round(max(waits) * 1000, 1),
                    failed=load.failed - failed,
                )
                print(
                    f"  handover {number + 1}/{count}: {line['longest_wait_ms']} ms, {line['failed']} failed",
                    flush=True,
                )
            await load.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="How long writes wait while the leadership is handed over.")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--directory", type=Path, default=Path(".work/handover"))
    options = parser.parse_args()
    tally = Tally(options.directory)
    asyncio.run(measure(tally, options.count, options.writers))
    lines = tally.lines("handover")
    waits = sorted(line["longest_wait_ms"] for line in lines)
    p99 = waits[min(len(waits) - 1, round(0.99 * len(waits)))]
    failed = sum(line["failed"] for line in lines)
    print(
        f"{len(lines)} handovers in {tally.path}: longest wait of a write median {statistics.median(waits):.0f} ms, "
        f"p99 {p99:.0f} ms, max {waits[-1]:.0f} ms; {failed} writes failed"
    )


if __name__ == "__main__":
    main()
