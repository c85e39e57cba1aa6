"""How long writes fail after the leader is gone: from the signal to the first acknowledged write that began after it.

Light load (a write every 20 ms) goes to the two other members all the time, so the figure is what a client sees that
knows more than one address. A killed member is started again and has caught up before the next round; a frozen one
(SIGSTOP: nothing closes its connections, as when a host loses power) is let go on.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import bench_log
from bench.load import LoadGenerator, Probe
from bench.tally import Tally
from bench.throughput import PREFIX, System, value_of
from unit.consensus.support import ProcessCluster, until

from controlplane.consensus import LogClient
from controlplane.ports import LogError

FAULTS = ("kill", "freeze")
EVERY_S = 0.02
CLIENTS = 64
SETTLED = 10
"""Writes in a row that have to succeed before the fault."""
DEADLINE_S = 30.0
_DYING_NS = 2_000_000
"""A write counts that began this long after the last signal was sent, when the leader was gone for sure. Sending takes
long on a busy machine; the time counts from the first signal on."""


def through_api(system: System, program: Path, tally: Tally, *, fault: str, count: int, size: int) -> None:
    generator = LoadGenerator(program, system.ca)
    request = system.put(PREFIX, value_of(size))
    done = rounds = 0
    while done < count:
        leader = system.leader()
        others = system.targets(*(name for name in system.members if name != leader))
        first = rounds * 1_000_000
        rounds += 1
        with generator.probe(request, others, clients=CLIENTS, every_s=EVERY_S, first=first) as probe:
            _settle(probe)
            time.sleep(random.uniform(0, 0.3))
            if system.leader() != leader:
                continue
            with _gone(system, leader, fault) as (at_ns, sent_ns):
                took_ms = (_first_success(probe, sent_ns + _DYING_NS) - at_ns) / 1e6
        done += 1
        tally.add("failover", system=system.name, through="api", fault=fault, took_ms=round(took_ms, 1))
        print(f"  failover {system.name} api {fault} {done}/{count}: {took_ms:.0f} ms", flush=True)
        system.await_ready()


@contextmanager
def _gone(system: System, leader: str, fault: str) -> Iterator[tuple[int, int]]:
    """The leader is dead or frozen inside, and back afterwards. Gives the moments before and after the signals."""
    at_ns = system.kill(leader) if fault == "kill" else system.freeze(leader)
    try:
        yield at_ns, time.monotonic_ns()
    finally:
        if fault == "kill":
            system.restart(leader)
        else:
            system.thaw(leader)


def _settle(probe: Probe) -> None:
    good = 0
    for answer in probe.answers(DEADLINE_S):
        good = good + 1 if answer.result == 0 else 0
        if good == SETTLED:
            return
    raise TimeoutError("writes do not succeed before the fault")


def _first_success(probe: Probe, from_ns: int) -> int:
    """When the first write was acknowledged that began at `from_ns` or later."""
    for answer in probe.answers(DEADLINE_S):
        if answer.result == 0 and answer.begun_ns >= from_ns:
            return answer.answered_ns
    raise TimeoutError(f"no write succeeded for {DEADLINE_S:g} s after the fault")


def through_socket(tally: Tally, *, fault: str, count: int, size: int) -> None:
    """The same at the raft processes' private sockets, by a client in Python."""
    asyncio.run(_through_socket(tally, fault, count, size))


async def _through_socket(tally: Tally, fault: str, count: int, size: int) -> None:
    with TemporaryDirectory(prefix="bench-") as name:
        async with bench_log.cluster(Path(name)) as members:
            done = 0
            while done < count:
                took_ms = await _round(members, await members.leader(), fault, b"x" * size)
                if took_ms is None:
                    continue
                done += 1
                tally.add("failover", system="ours", through="socket", fault=fault, took_ms=round(took_ms, 1))
                print(f"  failover ours socket {fault} {done}/{count}: {took_ms:.0f} ms", flush=True)
                await _caught_up(members)


async def _round(members: ProcessCluster, leader: str, fault: str, entry: bytes) -> float | None:
    """Milliseconds; None when another member came to lead before the fault."""
    others = [client for node, client in members.clients.items() if node != leader]
    for client in others:
        await client.append(entry, timeout_s=10)
    await asyncio.sleep(random.uniform(0, 0.3))
    if await members.leader() != leader:
        return None
    at_ns = time.monotonic_ns()
    os.kill(members.processes[leader].pid, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    await asyncio.sleep(_DYING_NS / 1e9)
    answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    writers: set[asyncio.Task[None]] = set()
    try:
        turn = 0
        while not answered.done():
            assert time.monotonic_ns() - at_ns < DEADLINE_S * 1e9, "no write succeeded after the fault"
            writers.add(asyncio.create_task(_write(others[turn % len(others)], entry, answered)))
            turn += 1
            await asyncio.wait([answered], timeout=EVERY_S)
        return (answered.result() - at_ns) / 1e6
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        if fault == "kill":
            await members.kill(leader)
            await members.start(leader)
        else:
            os.kill(members.processes[leader].pid, signal.SIGCONT)


async def _write(client: LogClient, entry: bytes, answered: asyncio.Future[int]) -> None:
    try:
        await client.append(entry, timeout_s=DEADLINE_S)
    except LogError:
        return
    if not answered.done():
        answered.set_result(time.monotonic_ns())


async def _caught_up(members: ProcessCluster) -> None:
    async def level() -> bool:
        statuses = [await members.status(node) for node in members.processes]
        return all(status is not None for status in statuses) and len({s.applied_index for s in statuses if s}) == 1

    await until(level, "every member has applied the same", timeout_s=30)
