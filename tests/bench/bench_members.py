"""How long a new voter takes, and how long writes wait while one joins and while one is removed.

    python -m tests.bench.bench_members [--count 10] [--writers 8] [--directory .work/members]

Each round starts a fourth process with an empty disk, adds it as a voter (learner, catching up, promotion) under a
steady load, and removes it again. A wait is that of the slowest write that was under way meanwhile. Runs add up.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.bench_handover import SETTLE_WRITES, Load
from bench.tally import Tally
from unit.consensus.support import Authority, ProcessCluster, free_ports, peer_settings

from controlplane.ports import Member

TIMEOUT_S = 60.0


def prepare(members: ProcessCluster, authority: Authority, name: str) -> Member:
    """Settings of one more node; what the others are told of it."""
    (port,) = free_ports(1)
    founders = [members.settings[node] for node in ("n1", "n2", "n3")]
    settings = replace(
        founders[0],
        node=name,
        data_dir=members.directory / name / "data",
        listen=f"127.0.0.1:{port}",
        peers={founder.node: founder.listen for founder in founders},
        join=True,
        tls=authority.issue(name),
    )
    members.extend(settings)
    return Member(name, settings.listen, "voter")


async def timed(load: Load, work: Awaitable[None]) -> dict[str, float]:
    began = time.monotonic()
    await work
    ended = time.monotonic()
    await load.more(2 * SETTLE_WRITES)
    waits = [end - start for start, end in load.waits if end > began and start < ended]
    return {"took_ms": round((ended - began) * 1000, 1), "longest_wait_ms": round(max(waits) * 1000, 1)}


async def measure(tally: Tally, count: int, writers: int) -> None:
    with TemporaryDirectory(prefix="bench-") as directory:
        authority = Authority(Path(directory) / "pki")
        members = ProcessCluster(peer_settings(Path(directory), authority, ["n1", "n2", "n3"]), Path(directory))
        await members.start()
        load: Load | None = None
        try:
            await members.leader()
            load = Load(members, writers)
            await load.more(2_000)
            for number in range(count):
                name = f"x{number}"
                member = prepare(members, authority, name)
                await members.start(name)
                entries = len(load.waits)
                client = members.clients["n1"]
                added = await timed(load, client.add_member(member, timeout_s=TIMEOUT_S))
                removed = await timed(load, client.remove_member(name, timeout_s=TIMEOUT_S))
                await members.ended(name)
                for what, figures in (("add", added), ("remove", removed)):
                    tally.add(what, writers=writers, entries=entries, **figures)
                print(f"  round {number + 1}/{count}, {entries} entries: added {added}, removed {removed}", flush=True)
        finally:
            if load is not None:
                await load.stop()
            await members.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="How long writes wait while members come and go.")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--directory", type=Path, default=Path(".work/members"))
    options = parser.parse_args()
    tally = Tally(options.directory)
    asyncio.run(measure(tally, options.count, options.writers))
    for what in ("add", "remove"):
        lines = tally.lines(what)
        took, waits = ([line[key] for line in lines] for key in ("took_ms", "longest_wait_ms"))
        print(
            f"{what}: {len(lines)} in {tally.path}, median {statistics.median(took):.0f} ms (max {max(took):.0f}); "
            f"longest wait of a write median {statistics.median(waits):.0f} ms (max {max(waits):.0f})"
        )


if __name__ == "__main__":
    main()
