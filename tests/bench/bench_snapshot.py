"""Snapshots of many small objects in one raft process under a steady write load: time, bytes, stalls, memory, restart.

    python -m tests.bench.bench_snapshot [--objects 1000000] [--rate 200] [--work .work/bench-snapshot]

The objects are namespaces with a label, written into a data directory as a snapshot (unhurried, with nobody waiting),
from which a real raft process (the log, the machine and the private socket, fsync always, the interpreter set as in a
node) then starts: restart to ready is measured to the first acknowledged write. A load of single writes at a fixed
rate goes on from then to the end; a write's latency counts from when it was due. Three snapshots are taken: one of a
state of which no chunk is on disk, one with 1 % of the objects changed at random, and one with nothing but the load's
writes.

A stall is the longest latency of a write during a snapshot; beside it stand the longest in an equally long stretch
without one, and the longest time that the process's event loop was late for a timer. Each run adds a line to
results.jsonl in the work directory.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import proc

from controlplane.bootstrap.process import calm_collector, settle_collector
from controlplane.bootstrap.raft import SWITCH_S
from controlplane.consensus import LogClient, RaftNode, RaftSettings, serve
from controlplane.consensus.configuration import encode, founding
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.snapshot import Capture
from controlplane.machine.codec import View
from controlplane.machine.draft import DIGEST_MODULUS, digest_of
from controlplane.machine.entry import MachineState
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.commands import DeclareNamespace, encode_entry, seal
from controlplane.model.resources import Meta, Namespace
from controlplane.model.spec import NamespaceSpec
from controlplane.model.types import Kind

CLUSTER = "bench"
CHANGE_BATCH = 200
TICK_S = 0.001


def settings(directory: Path) -> RaftSettings:
    return RaftSettings(
        node="n1", cluster_id=CLUSTER, data_dir=directory, snapshot_entries=10**9, snapshot_bytes=1 << 50
    )


# -- the data directory ------------------------------------------------------------------------------------------------


def name_of(number: int) -> str:
    return f"team-{number:07d}"


def some_state(objects: int) -> State:
    records: dict[str, Namespace] = {}
    digest = 0
    for number in range(objects):
        name = name_of(number)
        meta = Meta(
            kind=Kind.NAMESPACE,
            name=name,
            uid=f"01M82{number:021d}",
            labels={"cost-center": str(number % 97)},
            intent_revision=number + 1,
            revision=number + 1,
            created_at=1_700_000_000_000 + number,
            updated_at=1_700_000_000_000 + number,
        )
        records[name] = each = Namespace(meta=meta, spec=NamespaceSpec(max_microvms=100))
        digest += digest_of(name, each)
    return State(
        cluster_id=CLUSTER, revision=objects, digest=digest % DIGEST_MODULUS, namespaces=Table(records.items())
    )


def prepare(directory: Path, objects: int) -> dict[str, float]:
    """A data directory whose snapshot holds `objects`. Gives the time of an unhurried full save, and its bytes."""
    members = founding("n1", "", {})
    data = DataDirectory(directory, "n1", CLUSTER, Disk(durable=True), founding=members)
    state = some_state(objects)
    data.snapshots.open()
    began = time.perf_counter()
    manifest = data.snapshots.save(Capture(2, 1, 2, encode(members), 1, View(state)))
    elapsed_s = time.perf_counter() - began
    data.journal.reset(2, 1)
    data.close()
    return {"unhurried_s": elapsed_s, "bytes": manifest.size, "chunks": len(manifest.chunks)}


# -- the raft process --------------------------------------------------------------------------------------------------


async def member(directory: Path, socket: Path) -> None:
    """Serves the log; takes a snapshot for every line on stdin and answers with a line about it.

    The line "full" forgets what is on the disk first.
    """
    node = RaftNode(settings(directory), MachineState(CLUSTER), settle=settle_collector)
    await node.start()
    serving = asyncio.create_task(serve(node, socket))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    late = Lateness()
    while line := await lines.readline():
        if line == b"full\n":
            forget(node)
        core = node._running()
        before, index = packed(directory), core.snapshot_index
        late.worst_s = 0.0
        began = time.perf_counter()
        if line != b"idle\n":
            core.request_snapshot()
            while core.snapshot_index == index:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.005)
        else:
            await asyncio.sleep(float((await lines.readline()).decode()))
        elapsed_s = time.perf_counter() - began
        result = {
            "seconds": elapsed_s,
            "late_ms": late.worst_s * 1000,
            "bytes": sum(size for pack, size in packed(directory).items() if pack not in before),
            "rss_mb": proc.memory(os.getpid()).rss_mb,
        }
        print(json.dumps(result), flush=True)
    serving.cancel()
    await asyncio.wait([serving])


def packed(directory: Path) -> dict[str, int]:
    return {pack.name: pack.stat().st_size for pack in (directory / "snapshots").glob("*.pack")}


def forget(node: RaftNode) -> None:
    """As if no chunk had been saved before."""
    snapshots = node._snapshots()
    snapshots._known = {}
    snapshots._places = {}


class Lateness:
    """How late the event loop was for a timer, at worst."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + TICK_S
        self._loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        now_s = self._loop.time()
        self.worst_s = max(self.worst_s, now_s - self._due_s)
        self._due_s = now_s + TICK_S
        self._loop.call_at(self._due_s, self._tick)


# -- the measurement ---------------------------------------------------------------------------------------------------


class Load:
    """Single writes, one every 1/`rate` s, each to another object."""

    def __init__(self, client: LogClient, objects: int, rate: float) -> None:
        self._client = client
        self._objects = objects
        self._period_s = 1 / rate
        self._random = random.Random(1)
        self._count = 0
        self._open: set[asyncio.Task[None]] = set()
        self.done: list[tuple[float, float]] = []
        """(when it was due, latency) of every write, in seconds."""

    def entry(self, count: int = 1) -> bytes:
        envelopes = []
        for _ in range(count):
            self._count += 1
            name = name_of(self._random.randrange(self._objects))
            command = DeclareNamespace(
                uid=name, name=name, spec=NamespaceSpec(max_microvms=100 + self._count), labels={}, annotations={}
            )
            envelopes.append(seal(command, id=str(self._count), at=1, actor="bench"))
        return encode_entry(envelopes)

    async def run(self) -> None:
        """Until cancelled; then what is open is waited for."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        try:
            while True:
                due_s += self._period_s
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                task = asyncio.create_task(self._write(due_s))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
        finally:
            await asyncio.gather(*self._open)

    async def _write(self, due_s: float) -> None:
        await self._client.append(self.entry(), timeout_s=60)
        self.done.append((due_s, asyncio.get_running_loop().time() - due_s))

    def between(self, from_s: float, to_s: float) -> dict[str, float]:
        found = sorted(latency * 1000 for due, latency in self.done if from_s <= due <= to_s)
        if not found:
            return {"writes": 0}
        return {
            "writes": len(found),
            "p50_ms": found[len(found) // 2],
            "p99_ms": found[len(found) * 99 // 100],
            "max_ms": found[-1],
        }


@dataclass
class Snapshot:
    seconds: float
    bytes: int
    late_ms: float
    rss_mb: float
    writes: dict[str, float]
    quiet_late_ms: float
    quiet_writes: dict[str, float]
    """In an equally long stretch (at most 10 s) without a snapshot, just before."""


class Member:
    """The raft process and the way to ask it for snapshots."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, *lines: str) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("".join(line + "\n" for line in lines).encode())
        return json.loads(await self._process.stdout.readline())

    async def snapshot(self, kind: str, load: Load, quiet_s: float) -> Snapshot:
        loop = asyncio.get_running_loop()
        began = loop.time()
        quiet = await self.ask("idle", str(quiet_s))
        middle = loop.time()
        taken = await self.ask(kind)
        ended = loop.time()
        await asyncio.sleep(0.3)
        return Snapshot(
            seconds=taken["seconds"],
            bytes=int(taken["bytes"]),
            late_ms=taken["late_ms"],
            rss_mb=taken["rss_mb"],
            writes=load.between(middle, ended),
            quiet_late_ms=quiet["late_ms"],
            quiet_writes=load.between(began, middle),
        )


@asynccontextmanager
async def started(directory: Path, socket: Path) -> AsyncIterator[Member]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--member", str(directory), str(socket)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield Member(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def measure(directory: Path, objects: int, rate: float, say: Callable[[str], None]) -> dict[str, object]:
    """Every figure of one run. The parts are named as `table` prints them."""
    say(f"{objects} objects: making the data directory")
    figures: dict[str, object] = {"objects": objects, "rate": rate}
    figures["prepare"] = prepared = await asyncio.to_thread(prepare, directory, objects)
    socket = directory.parent / "run" / "log.sock"
    client = LogClient(socket)
    load = Load(client, objects, rate)
    # The parent must not be what stalls.
    settle_collector()
    say("starting the raft process")
    began = time.perf_counter()
    async with started(directory, socket) as node:
        await client.append(load.entry(), timeout_s=600)
        figures["restart_s"] = time.perf_counter() - began
        writing = asyncio.create_task(load.run())
        quiet_s = min(10.0, max(1.0, prepared["unhurried_s"]))
        for kind in ("full", "1 % changed", "load only"):
            if kind == "1 % changed":
                for _ in range(objects // 100 // CHANGE_BATCH + 1):
                    await client.append(load.entry(min(CHANGE_BATCH, objects // 100)), timeout_s=60)
            say(f"a snapshot: {kind}")
            figures[kind] = asdict(await node.snapshot("full" if kind == "full" else "again", load, quiet_s))
        writing.cancel()
        await asyncio.wait([writing])
    await client.aclose()
    began = time.perf_counter()
    client = LogClient(socket)
    async with started(directory, socket):
        await client.append(load.entry(), timeout_s=600)
        figures["restart_again_s"] = time.perf_counter() - began
    await client.aclose()
    return figures


def table(figures: dict[str, object]) -> str:
    prepared = figures["prepare"]
    assert isinstance(prepared, dict)
    lines = [
        f"{figures['objects']:,} objects, {prepared['bytes'] / 1e6:,.0f} MB in {prepared['chunks']:,} chunks; "
        f"{figures['rate']:g} writes/s beside it",
        f"restart to the first acknowledged write: {figures['restart_s']:.1f} s; "
        f"again, after the snapshots: {figures['restart_again_s']:.1f} s",
        f"full save with nobody waiting: {prepared['unhurried_s']:.1f} s",
        "",
        "| snapshot | s | MB written | longest write ms (without) | p99 ms (without) | loop late ms (without) |"
        " RSS MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in ("full", "1 % changed", "load only"):
        each = figures[kind]
        assert isinstance(each, dict)
        writes, quiet = each["writes"], each["quiet_writes"]
        cells = [
            kind,
            f"{each['seconds']:.1f}",
            f"{each['bytes'] / 1e6:,.1f}",
            *(f"{writes.get(name, 0):.1f} ({quiet.get(name, 0):.1f})" for name in ("max_ms", "p99_ms")),
            f"{each['late_ms']:.1f} ({each['quiet_late_ms']:.1f})",
            f"{each['rss_mb']:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=200.0, help="single writes per second")
    parser.add_argument("--work", type=Path, default=Path(".work/bench-snapshot"))
    parser.add_argument("--member", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.member:
        calm_collector()
        sys.setswitchinterval(SWITCH_S)
        asyncio.run(member(*options.member))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.work) as directory:
        figures = asyncio.run(measure(Path(directory) / "data", options.objects, options.rate, print))
    with (options.work / "results.jsonl").open("a") as results:
        results.write(json.dumps({"at": int(time.time()), **figures}) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
