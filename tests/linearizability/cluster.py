"""Real nodes as processes, each in its own network namespace with its own data directory and certificates.

A node is either its raft process (as shipped, or `member.py`: the same with a disk that obeys), kept running here as
its parent would, or in `api` builds the whole node, parent and children, as `flintctl node run` starts it. Faults come
from outside: signals, files, the network. What a process says by itself when nobody harmed it is a finding: every end
that was not ordered, and every error in its log, is remembered until the round is judged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import yaml
from linearizability.member import Replaced
from linearizability.network import Network
from linearizability.sandbox import in_network, tmpfs
from support.faulty_disk import lose_power, write_control

from controlplane.consensus import LogClient
from controlplane.identity import tokens
from controlplane.identity.authority import Authority
from controlplane.ports import LogAdmin, LogError, LogStatus, Member
from controlplane.supervisor import EX_CONFIG

REPOSITORY = Path(__file__).resolve().parents[2]
FAKETIME = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu" / "faketime" / "libfaketime.so.1"
SMALL_DISK_BYTES = 160 << 20
RAFT_PORT, GATEWAY_PORT, HTTP_PORT = 7101, 7201, 7301
_RESTART_S = 0.2
_ERROR_LEVELS = ("error", "critical", "exception")

BuildKind = Literal["shipped", "instrumented", "api"]


@dataclass(frozen=True)
class Build:
    """What runs. `shipped`: the raft process; `instrumented`: on a disk that obeys; `api`: the whole node."""

    kind: BuildKind = "shipped"
    snapshot_entries: int = 20_000
    retain_entries: int = 5_000
    """Obeyed by the `instrumented` build only: it is no setting of a node."""
    stale_reads: bool = False


@dataclass
class Node:
    name: str
    address: str
    directory: Path
    process: asyncio.subprocess.Process | None = None
    frozen: bool = False
    excuses: list[str] = field(default_factory=list[str])
    """Words that its log may hold, because a fault made it say them."""
    may_end: bool = False
    """Whether a fault gave it a reason to end by itself."""
    ends: list[str] = field(default_factory=list[str])
    """How it ended by itself, when nothing excused that."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is started or ended."""

    @property
    def settings(self) -> Path:
        return self.directory / "node.yaml"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def control(self) -> Path:
        return self.directory / "disk.json"

    @property
    def ledger(self) -> Path:
        return self.directory / "synced.jsonl"

    @property
    def clock(self) -> Path:
        return self.directory / "clock"

    @property
    def socket(self) -> Path:
        return self.data / "private" / "log.sock"


class Cluster:
    def __init__(self, directory: Path, network: Network, names: Sequence[str], build: Build, token: str) -> None:
        self.directory = directory
        self.network = network
        self.build = build
        self.token = token
        self.small_disk: str | None = None
        """The node whose data lies on a disk small enough to fill."""
        self.faked_clocks = False
        self.excused_ends = 0
        """How often a node stopped because a fault of its disk left it no choice."""
        self.nodes = {name: Node(name, network.add(name), directory / name) for name in names}
        self._made = len(self.nodes)
        self._gone: list[Node] = []
        self._authority = Authority.create(directory / "pki" / "ca", cluster_id="raft-check")
        tokens.write_tokens(directory / "tokens.json", [tokens.entry_for(token, name="raft-check", roles=["admin"])])
        self._clients = {name: LogClient(node.socket) for name, node in self.nodes.items()}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    @property
    def ca_file(self) -> Path:
        return self.directory / "pki" / "ca" / "ca.crt"

    def lay_out(self, *, small_disk: str | None = None, faked_clocks: bool = False) -> None:
        """Write what every node needs. `faked_clocks`: their wall clocks can be set."""
        self.small_disk, self.faked_clocks = small_disk, faked_clocks
        for node in self.nodes.values():
            self._lay_out(node)

    def _lay_out(self, node: Node, *, join: bool = False) -> None:
        node.directory.mkdir(mode=0o700)
        if node.name == self.small_disk:
            tmpfs(node.data, SMALL_DISK_BYTES)
        node.clock.write_text("+0\n")
        self._authority.issue_node(node.name, self.directory / "pki" / node.name, addresses=[node.address])
        node.settings.write_text(yaml.safe_dump(self._settings(node, join=join), sort_keys=False))

    def _settings(self, node: Node, *, join: bool) -> dict[str, object]:
        others = [other for other in self.nodes.values() if other is not node]

        def server(port: int, **more: object) -> dict[str, object]:
            peers = {other.name: f"{other.address}:{port}" for other in others}
            return {"listen": f"{node.address}:{port}", "peers": peers, **more}

        pki = self.directory / "pki" / node.name
        return {
            "node": node.name,
            "cluster_id": "raft-check",
            "data_dir": str(node.data),
            "raft": server(RAFT_PORT, join=join, snapshot_entries=self.build.snapshot_entries),
            "gateway": server(GATEWAY_PORT),
            "http": server(HTTP_PORT),
            "tls": {
                "ca": str(self.ca_file),
                "certificate": str(pki / f"{node.name}.crt"),
                "key": str(pki / f"{node.name}.key"),
            },
            "tokens_file": str(self.directory / "tokens.json"),
        }

    # -- members -------------------------------------------------------------------------------------------------------

    async def make_node(self) -> Node:
        """A node under a new name that waits to be added."""
        self._made += 1
        name = f"n{self._made}"
        node = Node(name, await asyncio.to_thread(self.network.add, name), self.directory / name)
        self.nodes[name] = node
        self._clients[name] = LogClient(node.socket)
        self._lay_out(node, join=True)
        await self.start(name)
        return node

    def member(self, name: str) -> Member:
        address = self.nodes[name].address
        return Member(
            name, f"{address}:{RAFT_PORT}", "voter", api=f"{address}:{HTTP_PORT}", gateway=f"{address}:{GATEWAY_PORT}"
        )

    async def discard(self, name: str) -> None:
        """The node was removed from the cluster: it may be there no more."""
        node = self.nodes[name]
        await self.end(name)
        self._gone.append(self.nodes.pop(name))
        await self._clients.pop(name).aclose()
        node.excuses += ["removed from the cluster"]

    def admin(self, name: str) -> LogAdmin:
        """The way to ask for changes of the membership through a node."""
        return self._clients[name]

    # -- processes -----------------------------------------------------------------------------------------------------

    async def start(self, *names: str) -> None:
        """Start those (default: all) that do not run."""
        for name in names or self.nodes:
            node = self.nodes[name]
            async with node.lock:
                if node.process is None or node.process.returncode is not None:
                    await self._spawn(node)
                if name not in self._keepers or self._keepers[name].done():
                    self._keepers[name] = asyncio.create_task(self._keep(node))

    async def _spawn(self, node: Node) -> None:
        with node.log.open("ab") as log:
            node.process = await asyncio.create_subprocess_exec(
                *in_network(node.name, self._command(node)),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(node),
                start_new_session=True,
            )
        node.frozen = False

    def _command(self, node: Node) -> list[str]:
        config = str(node.settings)
        if self.build.kind == "api":
            return [sys.executable, "-m", "controlplane.cli.main", "node", "run", "--config", config]
        if self.build.kind == "shipped":
            return [sys.executable, "-m", "controlplane.bootstrap.raft", config]
        replaced = Replaced(
            control=str(node.control),
            ledger=str(node.ledger),
            retain_entries=self.build.retain_entries,
            stale_reads=self.build.stale_reads,
        )
        return [sys.executable, "-m", "linearizability.member", config, msgspec.json.encode(replaced).decode()]

    def _environment(self, node: Node) -> dict[str, str]:
        paths = [REPOSITORY, REPOSITORY / "tests", REPOSITORY / "provider-shim"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        if self.faked_clocks:
            environment |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(node.clock),
                # No clock but the wall clock may be touched; every second it looks for a new offset.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
            }
        return environment

    async def _keep(self, node: Node) -> None:
        """What the parent does: start again what died, unless it says that this would change nothing."""
        while True:
            process = node.process
            assert process is not None
            code = await process.wait()
            if node.may_end:
                self.excused_ends += 1
            else:
                node.ends.append(f"{node.name} ended by itself with code {code}; see {node.log}")
            if code == EX_CONFIG:
                return
            await asyncio.sleep(_RESTART_S)
            async with node.lock:
                if node.process is process:
                    await self._spawn(node)

    async def end(self, *names: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End those (default: all) at once, and return when they are gone."""
        nodes = [self.nodes[name] for name in names or self.nodes]
        for node in nodes:
            async with node.lock:
                if (keeper := self._keepers.pop(node.name, None)) is not None:
                    keeper.cancel()
                    with suppress(asyncio.CancelledError):
                        await keeper
        for node in nodes:
            self._signal(node, how)
            if how is not signal.SIGKILL and node.frozen:
                self._signal(node, signal.SIGCONT)
        for node in nodes:
            if node.process is not None:
                await node.process.wait()
                # The parent of an `api` build may go before its children do.
                self._signal(node, signal.SIGKILL)
                node.process = None
                node.frozen = False

    def freeze(self, *names: str) -> None:
        for name in names:
            self._signal(self.nodes[name], signal.SIGSTOP)
            self.nodes[name].frozen = True

    def thaw(self, *names: str) -> None:
        for name in names:
            self._signal(self.nodes[name], signal.SIGCONT)
            self.nodes[name].frozen = False

    def _signal(self, node: Node, number: signal.Signals) -> None:
        if node.process is not None:
            # Each node is a session of its own, so this reaches a whole one and nothing else.
            with suppress(ProcessLookupError):
                os.killpg(node.process.pid, number)

    def running(self) -> list[str]:
        return [n.name for n in self.nodes.values() if n.process is not None and n.process.returncode is None]

    async def close(self) -> None:
        await self.end()
        for client in self._clients.values():
            await client.aclose()

    # -- disks ---------------------------------------------------------------------------------------------------------

    def order_disk(self, name: str, mode: str, **details: object) -> None:
        write_control(self.nodes[name].control, mode, **details)

    def wipe(self, name: str) -> None:
        """Empty the disk of an ended node."""
        node = self.nodes[name]
        for each in node.data.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        node.ledger.unlink(missing_ok=True)

    def lose_power(self, name: str, chance: random.Random | None) -> int:
        """Take from the files of an ended node what it had not synced; gives the bytes lost."""
        ledger = self.nodes[name].ledger
        return sum(lose_power(ledger, chance).values()) if ledger.exists() else 0

    # -- what they say -------------------------------------------------------------------------------------------------

    async def status(self, name: str, timeout_s: float = 1.0) -> LogStatus | None:
        """None while the node does not answer."""
        node = self.nodes[name]
        if node.process is None or node.frozen:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                return await self._clients[name].status()
        except (LogError, TimeoutError):
            return None

    async def statuses(self, timeout_s: float = 1.0) -> dict[str, LogStatus]:
        answers = await asyncio.gather(*(self.status(name, timeout_s) for name in self.nodes))
        return {status.node: status for status in answers if status is not None}

    async def leader(self) -> str | None:
        """Who leads with a quorum, by its own word; the one of the highest term if there are several."""
        leading = [s for s in (await self.statuses()).values() if s.role == "leader" and s.has_quorum]
        return max(leading, key=lambda s: s.term).node if leading else None

    def findings(self) -> list[str]:
        """Ends that nobody ordered, and errors in the logs, that no fault excuses."""
        found: list[str] = []
        for node in [*self.nodes.values(), *self._gone]:
            found += node.ends
            found += [f"{node.name} logged: {line}" for line in errors_in(node.log, node.excuses)]
        return found


def errors_in(log: Path, excuses: Sequence[str]) -> Iterator[str]:
    if not log.exists():
        return
    for raw in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(raw)
        except ValueError:
            # Not a line of ours: the interpreter's own words, such as a traceback at the start.
            level, text = "error", raw
        else:
            level, text = str(entry.get("level")), raw[:600]
        if level in _ERROR_LEVELS and raw.strip() and not any(excuse in raw for excuse in excuses):
            yield text
