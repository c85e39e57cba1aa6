"""A real cluster whose nodes come and go: three to begin with, and more that join it, each with its own processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from controlplane.cli.client import Client
from controlplane.cli.dev import layout as layouts
from controlplane.cli.dev import processes, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.layout import LOOPBACK, Layout, NodePlan
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import CliError
from controlplane.identity.authority import Authority
from support.cluster import within


@dataclass
class Nodes:
    cluster: DevCluster

    @property
    def layout(self) -> Layout:
        return self.cluster.layout

    def plan(self, name: str) -> NodePlan:
        return next(node for node in self.layout.plan.nodes if node.name == name)

    def prepare(self, name: str, *, contacts: tuple[str, ...]) -> NodePlan:
        """A certificate and settings for a node that is to join the members `contacts`; not started."""
        raft, gateway, http = layouts.free_ports(3)
        node = NodePlan(name=name, raft_port=raft, gateway_port=gateway, http_port=http)
        known = [self.plan(each) for each in contacts]
        plan = self.layout.plan.model_copy(update={"nodes": [*self.layout.plan.nodes, node]})
        self.cluster.layout = Layout(self.layout.directory, plan)
        Authority.load(self.layout.authority).issue_node(name, self.layout.pki(name), addresses=[LOOPBACK])
        narrowed = Layout(self.layout.directory, plan.model_copy(update={"nodes": [*known, node]}))
        settings = setup.node_settings(narrowed, node)
        self.write_settings(name, {**settings, "raft": {**dict(settings["raft"]), "join": True}})  # type: ignore[call-overload]
        return node

    def settings(self, name: str) -> dict[str, Any]:
        return yaml.safe_load(self.layout.settings(name).read_text())

    def write_settings(self, name: str, document: dict[str, Any]) -> None:
        self.layout.settings(name).write_text(yaml.safe_dump(document))
        self.layout.settings(name).chmod(0o600)

    def start(self, *names: str) -> None:
        self.cluster.start(names)

    def kill(self, name: str) -> None:
        self.cluster.kill_member(name)

    def alive(self, name: str) -> bool:
        return processes.recorded(self.layout.run_file(name)) is not None

    def client(self, name: str) -> Client:
        return self.cluster.client(node=name)

    def raft(self, name: str) -> dict[str, Any] | None:
        """The node's view of the log; None while it does not answer."""
        try:
            return self.cluster.client(node=name, retry_for_s=0.0).get("/raft").body
        except CliError:
            return None

    def flintctl(self, *arguments: str, at: str | None = None, timeout_s: float = 90) -> tuple[int, str, str]:
        """Exit code, stdout and stderr, as an operator's shell has it; `at`: the node to ask, else all."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("FLINTLOCK_", "AWS_"))}
        environ |= self.layout.environment | {"HOME": str(self.layout.directory)}
        if at is not None:
            environ["FLINTLOCK_ENDPOINTS"] = self.layout.endpoint(at)
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environ)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def done(self, *arguments: str, at: str | None = None, timeout_s: float = 90) -> str:
        code, out, err = self.flintctl(*arguments, at=at, timeout_s=timeout_s)
        assert code == 0, (arguments, out, err)
        return out

    def leader(self) -> str:
        def found() -> str | None:
            for node in self.layout.plan.nodes:
                view = self.raft(node.name) if self.alive(node.name) else None
                if view is not None and view["role"] == "leader" and view["has_quorum"]:
                    return node.name
            return None

        return within(20, found, "a leader")


@contextmanager
def started_nodes(
    directory: Path, *, nodes: int = 3, hosts: int = 1, more: Mapping[str, Any] | None = None
) -> Iterator[Nodes]:
    """`more`: settings that each node has besides the usual ones."""
    layout = setup.create(directory / "c", nodes=nodes, hosts=hosts, driver="simulated", say=lambda _: None)
    running = Nodes(DevCluster(layout, Progress()))
    for node in layout.plan.nodes:
        running.write_settings(node.name, {**running.settings(node.name), **(more or {})})
    try:
        running.cluster.start()
        running.cluster.await_ready()
        yield running
    finally:
        left = running.cluster.purge()
        assert not left, left
