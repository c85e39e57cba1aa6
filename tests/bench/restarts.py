"""All members killed at once with 100,000 entries in their logs, then started: until the first acknowledged write."""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import asyncio
import json
import time

from bench.flint import Flint
from bench.throughput import PREFIX, Bench

from controlplane.consensus import LogClient
from controlplane.model.commands import DeclareNamespace, encode_entry, seal
from controlplane.model.spec import NamespaceSpec
from controlplane.system import SystemClock, Ulids

ENTRIES = 100_000
DEADLINE_S = 120.0
_EVERY_S = 0.02
_CLIENTS = 64


def measure(bench: Bench, entries: int) -> None:
    system = bench.system
    written = _fill(bench, entries)
    system.await_ready()
    for member in system.members:
        system.kill(member)
    began_ns = time.monotonic_ns()
    for member in system.members:
        system.restart(member)
    request = system.put(PREFIX, bench.value)
    with bench.generator.probe(request, system.targets(), clients=64, every_s=_EVERY_S, first=2 * written) as probe:
        for answer in probe.answers(DEADLINE_S):
            if answer.result == 0:
                ready_s = (answer.answered_ns - began_ns) / 1e9
                break
        else:
            raise TimeoutError(f"{system.name} took no write for {DEADLINE_S:g} s after its restart")
    bench.tally.add("restart", system=system.name, entries=written, ready_s=round(ready_s, 2))
    print(f"  restart with {written:,} entries: {system.name} takes writes after {ready_s:.2f} s", flush=True)


def _fill(bench: Bench, entries: int) -> int:
    """Single writes until there are as many entries; gives how many numbers were used."""
    system, number = bench.system, 0
    if isinstance(system, Flint):
        # Through the API several writes share an entry.
        asyncio.run(_append(system, bench.value, entries))
        return entries
    request = system.put(PREFIX, bench.value)
    while number < entries:
        load = bench.generator.run(request, system.targets(), clients=_CLIENTS, seconds=5, warm_s=0.0, first=number)
        number += load.asked
    return number


async def _append(system: Flint, value: bytes, entries: int) -> None:
    """One declaration per entry, straight into the leader's log."""
    log = LogClient(system.log_socket(system.leader()))
    annotations = json.loads(value)["annotations"]
    numbers = iter(range(entries))
    ids = Ulids()

    async def writer() -> None:
        for number in numbers:
            command = DeclareNamespace(
                name=f"{PREFIX}{number:010}", uid=ids.new(), spec=NamespaceSpec(), annotations=annotations
            )
            envelope = seal(command, id=ids.new(), at=SystemClock().now_ms(), actor="bench")
            await log.append(encode_entry([envelope]), timeout_s=30)

    try:
        await asyncio.gather(*(writer() for _ in range(_CLIENTS)))
    finally:
        await log.aclose()
