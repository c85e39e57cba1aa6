"""One round: a new cluster, clients, faults, repair, and the judgement of what was seen.

Everything follows from the round's name: nodes, build, faults and their victims, and what clients do (though not how
the operating system interleaves it all, so a round repeated is another round of the same kind).
"""

from __future__ import annotations

import asyncio
import io
import random
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import msgspec
from linearizability import judge
from linearizability.cluster import HTTP_PORT, REPOSITORY, Build, Cluster
from linearizability.doors import HttpDoor, LogDoor, UnexpectedAnswerError
from linearizability.faults import FAULTS, Fault, MembersError, World, discard_removed, settle_members
from linearizability.history import History, save
from linearizability.nemesis import Event, Nemesis
from linearizability.network import Network
from linearizability.sandbox import bind, unbind
from linearizability.workload import Load, Workload, counts

from controlplane import logs
from controlplane.ports import LogStatus

_WARM_UP_S = 1.0
_READY_S = 40.0


@dataclass(frozen=True)
class Plan:
    """What a round is like, before chance has its say."""

    nodes: int
    build: Build = field(default_factory=Build)
    load: Load = field(default_factory=Load)
    faked_clocks: bool = False
    small_disk: bool = False
    lying_disks: bool = False
    """For the build that must be found out: disks say that they synced, and the power goes."""
    stale_clients: bool = False
    """For the run that must fail: clients read their replica as it is."""

    @property
    def offers(self) -> set[str]:
        offered = {"log"} if self.build.kind == "api" else {"log", "raft"}
        if self.small_disk:
            offered.add("small-disk")
        if self.faked_clocks:
            offered.add("clocks")
        if self.build.kind == "instrumented":
            offered |= {"ledger", "control"}
        if self.lying_disks:
            offered = {"lying-disks"}
        return offered

    def faults(self, names: Iterable[str]) -> list[Fault]:
        return [FAULTS[name] for name in names if FAULTS[name].possible(self.offers)]


class Report(msgspec.Struct):
    """One line of the tally."""

    name: str
    version: str
    """The commit that ran."""
    nodes: int
    build: str
    faulted_s: float
    faults: dict[str, int]
    operations: dict[str, int]
    service: judge.Service
    check_s: float
    check_steps: int
    problems: list[str]
    undecided: list[str]
    terms: int = 0
    """The highest term in the end: about the number of elections."""
    snapshots: int = 0
    """Nodes that had taken or installed a snapshot by then."""
    stopped_by_disk: int = 0
    """Times that a node stopped itself because its disk failed or was full."""
    kept: str = ""
    """Where the evidence lies, when there is a problem."""

    @property
    def passed(self) -> bool:
        return not self.problems and not self.undecided


class _HarnessLog(io.TextIOBase):
    """Where the logs of this process go: what its replicas say about lost connections is evidence, not news."""

    def __init__(self) -> None:
        self._file: io.TextIOBase | None = None

    @contextmanager
    def into(self, path: Path) -> Generator[None]:
        with redirect_stderr(self):
            # Loggers keep the stream that they found first.
            logs.configure("info", process="harness")
        with path.open("w") as file:
            self._file = file
            try:
                yield
            finally:
                self._file = None

    def write(self, text: str) -> int:
        return self._file.write(text) if self._file is not None else len(text)

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()


_harness_log = _HarnessLog()


def run_round(
    plan: Plan, name: str, seconds: float, directory: Path, *, faults: Iterable[str] = FAULTS, keep: bool = False
) -> Report:
    """Run it in `directory`, which goes afterwards unless something is wrong, or `keep`. Use inside a sandbox."""
    directory.mkdir(parents=True)
    short = bind(directory, "round")
    network = Network()
    try:
        with _harness_log.into(short / "harness.log"):
            report = asyncio.run(_Round(plan, name, short, network, list(faults)).run(seconds))
    finally:
        network.close()
        unbind(short)
    if report.passed and not keep:
        shutil.rmtree(directory)
    if not report.passed:
        report.kept = str(directory)
        (directory / "problems.txt").write_text("\n\n".join([*report.problems, *report.undecided]) + "\n")
    return report


@cache
def version() -> str:
    """The commit of the checkout, `+` when it has changes; empty where there is no git."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class _Round:
    def __init__(self, plan: Plan, name: str, directory: Path, network: Network, faults: list[str]) -> None:
        self._plan = plan
        self._name = name
        self._directory = directory
        self._chance = random.Random(name)
        names = [f"n{i + 1}" for i in range(plan.nodes)]
        token = f"flk_{secrets.token_urlsafe(32)}"
        self._cluster = Cluster(directory, network, names, plan.build, token)
        self._cluster.lay_out(
            small_disk=self._chance.choice(names) if plan.small_disk else None, faked_clocks=plan.faked_clocks
        )
        self._faults = plan.faults(faults)
        self._history = History()
        self._final: list[LogStatus] = []

    async def run(self, seconds: float) -> Report:
        with ThreadPoolExecutor(self._plan.load.clients) as threads:
            doors = self._doors(threads)
            try:
                return await self._run(doors, seconds)
            finally:
                await self._cluster.close()
                await asyncio.gather(*(door.close() for door in doors.values()), return_exceptions=True)

    def _doors(self, threads: ThreadPoolExecutor) -> dict[str, LogDoor | HttpDoor]:
        cluster, fresh = self._cluster, not self._plan.stale_clients
        if self._plan.build.kind != "api":
            return {name: LogDoor(node.socket, fresh=fresh) for name, node in cluster.nodes.items()}
        return {
            name: HttpDoor(node.address, HTTP_PORT, cluster.ca_file, cluster.token, threads)
            for name, node in cluster.nodes.items()
        }

    async def _run(self, doors: dict[str, LogDoor | HttpDoor], seconds: float) -> Report:
        cluster = self._cluster
        await cluster.start()
        await self._ready()
        world = World(cluster, doors, self._chance)
        nemesis = Nemesis(world, self._faults, self._chance)
        workload = Workload(doors, self._history, self._plan.load, self._name)
        workload.start()
        await asyncio.sleep(_WARM_UP_S)
        begin_ns = time.monotonic_ns()
        try:
            await nemesis.harm(seconds)
        finally:
            end_ns = time.monotonic_ns()
        return self._judge(await self._heal(world, workload), nemesis.events, begin_ns, end_ns)

    async def _heal(self, world: World, workload: Workload) -> list[str]:
        """Make everything whole, let the clients end, and read everything everywhere. Says what does not come right."""
        problems: list[str] = []
        try:
            await self._cluster.start()
            await settle_members(world)
            await discard_removed(world)
            if not self._plan.stale_clients:
                problems = await judge.converge(self._cluster)
            await workload.stop()
            if not problems:
                await workload.read_all()
                problems = await judge.converge(self._cluster)
            self._final = list((await self._cluster.statuses()).values())
            for door in world.doors.values():
                await door.close()
        except (RuntimeError, MembersError, UnexpectedAnswerError, ExceptionGroup) as error:
            problems.append(f"after everything was healed: {type(error).__name__}: {error}")
        return problems

    async def _ready(self) -> None:
        give_up = time.monotonic() + _READY_S
        while await self._cluster.leader() is None or len(self._cluster.running()) < len(self._cluster.nodes):
            if time.monotonic() > give_up:
                raise RuntimeError(f"no leader within {_READY_S:g} s of the start: {self._cluster.findings()}")
            await asyncio.sleep(0.05)

    def _judge(self, problems: list[str], events: list[Event], begin_ns: int, end_ns: int) -> Report:
        operations = self._history.operations
        judgement = judge.judge(operations)
        problems = [*judgement.problems, *problems, *self._cluster.findings()]
        save(self._directory / "history.jsonl", operations)
        (self._directory / "faults.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, events)) + b"\n")
        if judgement.page:
            (self._directory / "timeline.html").write_text(judgement.page)
        return Report(
            name=self._name,
            version=version(),
            nodes=self._plan.nodes,
            build=self._plan.build.kind + (" with clocks" if self._plan.faked_clocks else ""),
            faulted_s=round((end_ns - begin_ns) / 1e9, 1),
            faults=dict(Counter(event.fault for event in events)),
            operations=counts(operations),
            service=judge.service(operations, events, begin_ns, end_ns),
            check_s=round(judgement.check_s, 2),
            check_steps=judgement.steps,
            problems=problems,
            undecided=judgement.undecided,
            terms=max((status.term for status in self._final), default=0),
            snapshots=sum(status.snapshot_index > 0 for status in self._final),
            stopped_by_disk=self._cluster.excused_ends,
        )
