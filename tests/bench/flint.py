"""Three of our nodes on loopback as `flintctl dev up` starts them, without hosts; and what is asked of them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import proc
from bench.load import NUMBER, Request, Target

from controlplane.bootstrap.raft import socket_path
from controlplane.cli.dev import processes, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.layout import LOOPBACK, Layout
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import CliError
from controlplane.cli.values import dig, text
from controlplane.settings import load_node

READY_S = 60.0
MAX_LAG = 1000
_POLL_S = 0.1


class Flint:
    """Nodes n1..n3 with the settings that ship."""

    name = "ours"

    def __init__(self, layout: Layout, nodes: DevCluster) -> None:
        self.layout = layout
        self.members = tuple(node.name for node in layout.plan.nodes)
        self.ca = layout.ca_file
        self._nodes = nodes
        self._ports = {node.name: node.http_port for node in layout.plan.nodes}
        self._clients = {name: nodes.client(node=name, retry_for_s=0.0) for name in self.members}
        self._headers = (
            f"Authorization: Bearer {layout.token_file.read_text().strip()}",
            "Content-Type: application/json",
        )

    # -- requests ------------------------------------------------------------------------------------------------------

    def put(self, prefix: str, value: bytes) -> Request:
        return Request("h1", "PUT", f"/api/v2/namespaces/{prefix}{NUMBER}", self._headers, value)

    def put_many(self, prefix: str, value: bytes, count: int) -> Request:
        """One atomic batch of `count` declarations."""
        item = {"kind": "Namespace", "name": prefix + NUMBER, **json.loads(value)}
        body = json.dumps({"atomic": True, "resources": [item] * count}, separators=(",", ":")).encode()
        return Request("h1", "POST", "/api/v2/apply", self._headers, body, step=count, forbid='"refused"')

    def read(self, prefix: str, *, stale: bool) -> Request:
        query = "?consistency=stale" if stale else ""
        return Request("h1", "GET", f"/api/v2/namespaces/{prefix}{NUMBER}{query}", self._headers)

    # -- the cluster ---------------------------------------------------------------------------------------------------

    def targets(self, *names: str) -> list[Target]:
        return [Target(LOOPBACK, self._ports[name]) for name in names or self.members]

    def await_ready(self) -> None:
        self.leader()

    def leader(self) -> str:
        """Once every running node says the same, and has applied nearly everything."""
        give_up = time.monotonic() + READY_S
        while (found := self._agreed()) is None:
            if time.monotonic() > give_up:
                raise TimeoutError(
                    f"no leader after {READY_S:g} s:\n" + "\n".join(map(self._nodes.log_tail, self.members))
                )
            time.sleep(_POLL_S)
        return found

    def _agreed(self) -> str | None:
        seen: set[str | None] = set()
        heads: list[int] = []
        for member in self._nodes.members():
            if member.process is None:
                continue
            try:
                found = self._clients[member.name].get("/cluster", read_timeout_s=2).body
            except CliError:
                return None
            seen.add(text(dig(found, "log", "leader")) or None)
            heads.append(int(str(dig(found, "revision"))))
        agreed = len(seen) == 1 and max(heads) - min(heads) <= MAX_LAG
        return seen.pop() if agreed else None

    def log_socket(self, name: str) -> Path:
        return socket_path(load_node(self.layout.settings(name)))

    def pids(self) -> dict[str, int]:
        """Of each process, the nodes' parents included."""
        found: dict[str, int] = {}
        for member in self._nodes.members():
            if member.process is None:
                continue
            found[member.name] = member.process.pid
            for child in proc.children(member.process.pid):
                for role in ("raft", "front"):
                    if f"controlplane.bootstrap.{role}" in proc.command(child):
                        found[f"{member.name} {role}"] = child
        return found

    def start(self, *names: str) -> None:
        self._nodes.start(names or None)

    def kill(self, name: str) -> int:
        """kill -9 of a node's processes, all at once; gives the moment before it, on CLOCK_MONOTONIC in nanoseconds."""
        return self._signal(name, signal.SIGKILL)

    def freeze(self, name: str) -> int:
        return self._signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: signal.Signals) -> int:
        process = processes.recorded(self.layout.run_file(name))
        assert process is not None, f"{name} does not run"
        session = [member.pid for member in processes.session_of(process)]
        session.sort(key=lambda pid: "controlplane.bootstrap.raft" not in proc.command(pid))
        at = time.monotonic_ns()
        for pid in session:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return at

    def restart(self, name: str) -> None:
        processes.reap()
        give_up = time.monotonic() + READY_S
        while not self._nodes.start([name]):
            assert time.monotonic() < give_up, f"{name} did not end"
            time.sleep(_POLL_S)


@contextmanager
def running(directory: Path) -> Iterator[Flint]:
    """A fresh cluster in `directory`, which must not exist; gone afterwards."""
    layout = setup.create(directory, nodes=3, hosts=0, driver="simulated", say=lambda _: None)
    nodes = DevCluster(layout, Progress())
    try:
        nodes.start()
        nodes.await_ready()
        yield Flint(layout, nodes)
    finally:
        left = nodes.purge()
        assert not left, left
