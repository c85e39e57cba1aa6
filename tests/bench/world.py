"""A real three-node cluster on loopback whose simulated hosts share one process; and what its processes use."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml
from bench import proc

from controlplane.cli.client import Client
from controlplane.cli.dev import processes, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.layout import HostPlan, Layout
from controlplane.cli.dev.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[2]
NAMESPACE = "bench"
CAPACITY = {"vcpu": 4_000, "memory_in_mb": 4_000_000}
POLL_S = 0.25
_STOP_S = 20.0


class World:
    """Nodes n1..n3, hosts h1..hN."""

    def __init__(self, layout: Layout, nodes: DevCluster, agents: subprocess.Popen[bytes]) -> None:
        self.layout = layout
        self.nodes = nodes
        self.agents = agents
        self.hosts = [host.name for host in layout.plan.hosts]
        self.client: Client = nodes.client()
        self.pids = {"agents": agents.pid}
        for node in nodes.members():
            assert node.process is not None
            for child in proc.children(node.process.pid):
                for role in ("raft", "front"):
                    if f"controlplane.bootstrap.{role}" in proc.command(child):
                        self.pids[f"{role} {node.name}"] = child

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each process."""
        return {name: proc.cpu_s(pid) for name, pid in self.pids.items()}

    def memory(self) -> dict[str, proc.Memory]:
        return {name: proc.memory(pid) for name, pid in self.pids.items()}

    def leader(self) -> str:
        return self.client.get("/cluster").body["log"]["leader"]

    def declare_fixed(self) -> None:
        """The hosts and the namespace."""
        resources = [{"kind": "Host", "name": host, "spec": {"schedulable": True}} for host in self.hosts]
        resources.append({"kind": "Namespace", "name": NAMESPACE, "spec": {}})
        self.apply({"atomic": True, "resources": resources})
        within(30, lambda: self._ready_hosts() == len(self.hosts), "every host is ready")

    def apply(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """POST /apply. Raises AssertionError when anything was refused."""
        results = self.client.request("POST", "/apply", body=body, read_timeout_s=60).body["results"]
        refused = [result for result in results if result["outcome"] == "refused"]
        assert not refused, refused[:3]
        return results

    def _ready_hosts(self) -> int:
        return self.client.get("/cluster").body["hosts"].get("ready", 0)

    def running(self) -> int:
        return self.client.get("/cluster").body["microvms"].get("running", 0)

    def microvms(self) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"limit": 2000}
        while True:
            body = self.client.get("/microvms", query).body
            yield from body["items"]
            if not body["continue"]:
                return
            query["continue"] = body["continue"]

    def in_drivers(self) -> set[str]:
        """uids that the hosts' drivers hold, from their own files."""
        found: list[str] = []
        for host in self.hosts:
            path = self.layout.driver_state(host) / "simulated.db"
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                found += [uid for (uid,) in database.execute("SELECT uid FROM microvm")]
        assert len(found) == len(set(found)), "a microVM runs on two hosts"
        return set(found)

    def access_log(self) -> AccessLog:
        return AccessLog([self.layout.log(node.name) for node in self.layout.plan.nodes])


class AccessLog:
    """What the fronts wrote of their requests since this was made."""

    def __init__(self, paths: list[Path]) -> None:
        self._from = {path: path.stat().st_size for path in paths}

    def requests(self) -> Iterator[tuple[str, int, float]]:
        """(kind, status, duration in ms) of each; the kind is the method and the path with its names left out."""
        for path, offset in self._from.items():
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    if b'"request"' in line:
                        record = json.loads(line)
                        if record.get("event") == "request":
                            yield _kind(record), record["status"], record["duration_ms"]


def _kind(record: dict[str, Any]) -> str:
    segments = str(record["path"]).removeprefix("/api/v2/").split("/")
    return f"{record['method']} /{'/'.join('*' if place % 2 else part for place, part in enumerate(segments))}"


@contextmanager
def running_world(directory: Path, *, hosts: int) -> Iterator[World]:
    """A cluster in `directory`; everything of it is gone afterwards."""
    layout = setup.create(directory, nodes=3, hosts=hosts, driver="simulated", say=lambda _: None)
    for host in layout.plan.hosts:
        config = layout.settings(host.name)
        settings = yaml.safe_load(config.read_text())
        settings["capacity"] = CAPACITY
        config.write_text(yaml.safe_dump(settings))
    nodes = DevCluster(Layout(layout.directory, layout.plan.model_copy(update={"hosts": []})), Progress())
    try:
        nodes.start()
        nodes.await_ready()
        with shared_agents(layout, layout.plan.hosts) as agents:
            world = World(layout, nodes, agents)
            world.declare_fixed()
            yield world
    finally:
        left = nodes.purge()
        assert not left, left


@contextmanager
def shared_agents(layout: Layout, hosts: Sequence[HostPlan]) -> Iterator[subprocess.Popen[bytes]]:
    """The agents of `hosts` in one process."""
    with layout.log("agents").open("ab") as output:
        agents = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.agents", *(str(layout.settings(host.name)) for host in hosts)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(os.environ),
        )
    try:
        yield agents
    finally:
        _end(agents)


def _end(agents: subprocess.Popen[bytes]) -> None:
    assert agents.stdin is not None
    agents.stdin.close()
    try:
        agents.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        agents.kill()
        agents.wait()
    processes.reap()


def within(seconds: float, holds: Callable[[], bool], what: str) -> float:
    """Seconds until `holds`; AssertionError at the deadline."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} seconds"
        time.sleep(POLL_S)
    return time.monotonic() - began
