"""Starts, watches and ends the processes of a local cluster. Every step can be repeated; what runs already is left
alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.cli.client import Client
from controlplane.cli.dev import leftovers, processes
from controlplane.cli.dev.layout import Layout
from controlplane.cli.dev.processes import ProcessId
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.values import Json, dig, objects, text

READY_TIMEOUT_S = 90.0
STOP_GRACE_S = 20.0
PURGE_TIMEOUT_S = 60.0
_DESTROYED = ("/microvmgroups", "/microvms")
_POLL_S = 0.2
_LOG_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the cluster."""

    name: str
    role: str
    """`node` or `agent`."""
    process: ProcessId | None


class DevCluster:
    def __init__(self, layout: Layout, progress: Progress) -> None:
        self.layout = layout
        self._progress = progress

    def client(self, *, node: str | None = None, retry_for_s: float = 30.0) -> Client:
        """A client of every node, or of one alone."""
        endpoints = self.layout.endpoints if node is None else [self.layout.endpoint(node)]
        token = self.layout.token_file.read_text().strip()
        return Client(endpoints, token, self.layout.ca_file, retry_for_s=retry_for_s)

    def members(self) -> list[Member]:
        processes.reap()
        nodes = {node.name for node in self.layout.plan.nodes}
        return [
            Member(name, "node" if name in nodes else "agent", processes.recorded(self.layout.run_file(name)))
            for name in self.layout.names
        ]

    def start(self, names: Sequence[str] | None = None) -> list[str]:
        """Start what does not run, of `names` or of all; gives what was started."""
        started: list[str] = []
        for member in self.members():
            if member.process is not None or (names is not None and member.name not in names):
                continue
            config = str(self.layout.settings(member.name))
            command = [sys.executable, "-m", "controlplane.cli.main", member.role, "run", "--config", config]
            processes.start(
                command,
                log=self.layout.log(member.name),
                run_file=self.layout.run_file(member.name),
                environ=_child_environ(os.environ),
            )
            started.append(member.name)
        return started

    def await_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every node serves and every host's agent is known. Raises CliError with the tail of the logs."""
        give_up = time.monotonic() + timeout_s
        for node in self.layout.plan.nodes:
            self._await(lambda name=node.name: self._node_problem(name), f"node {node.name}", node.name, give_up)
        for host in self.layout.plan.hosts:
            self._await(lambda name=host.name: self._host_problem(name), f"host {host.name}", host.name, give_up)

    def _await(self, problem: Callable[[], str | None], what: str, name: str, give_up: float) -> None:
        while (why := problem()) is not None:
            self._progress.moving(f"Waiting for {what}: {why}")
            dead = processes.recorded(self.layout.run_file(name)) is None
            if dead or time.monotonic() > give_up:
                ended = "its process ended" if dead else f"still not after {READY_TIMEOUT_S:.0f} s: {why}"
                raise CliError(
                    f"{what} did not become ready: {ended}\n{self.log_tail(name)}", hint=str(self.layout.log(name))
                )
            time.sleep(_POLL_S)

    def _node_problem(self, name: str) -> str | None:
        try:
            found = self.client(node=name, retry_for_s=0.0).get("/cluster").body
        except CliError as error:
            return error.message
        return None if dig(found, "log", "leader") else "no leader yet"

    def _host_problem(self, name: str) -> str | None:
        try:
            found = self.client().get(f"/hosts/{name}", {"include_pending": "true"}).body
        except CliError as error:
            gone = isinstance(error, ProblemError) and error.status == 404
            return "its agent is not connected" if gone else error.message
        phase = text(dig(found, "status", "phase"))
        return None if phase in ("pending", "ready") else f"it is {phase}"

    def status(self, nodes: Sequence[str] | None = None) -> Json | None:
        """The cluster's own view, from any node or one of `nodes`; None when none of them answers."""
        for node in nodes if nodes is not None else [None]:
            try:
                return self.client(node=node, retry_for_s=0.0).get("/cluster").body
            except CliError:
                continue
        return None

    def stop(self) -> list[str]:
        """End agents, then nodes; microVMs go on running. Gives the names of those that had to be killed."""
        killed: list[str] = []
        members = self.members()
        for role in ("agent", "node"):
            chosen = {
                m.name: processes.session_of(m.process) for m in members if m.role == role and m.process is not None
            }
            leaders = [session[0] for session in chosen.values() if session]
            stubborn = processes.stop(leaders, grace_s=STOP_GRACE_S)
            killed += [name for name, session in chosen.items() if session and session[0] in stubborn]
            # A leader that was killed leaves its children behind for a moment.
            orphans = [process for session in chosen.values() for process in session[1:]]
            if not processes.await_end(orphans, timeout_s=STOP_GRACE_S):
                processes.kill([process for process in orphans if process.alive])
        for member in members:
            self.layout.run_file(member.name).unlink(missing_ok=True)
        return killed

    def kill_member(self, name: str) -> None:
        """kill -9 of a member's processes, all of them at once."""
        process = processes.recorded(self.layout.run_file(name))
        if process is None:
            raise CliError(f"{name} does not run")
        if not processes.kill(processes.session_of(process)):
            raise CliError(f"{name} is still there after SIGKILL")

    def delete_microvms(self) -> None:
        """Ask the cluster to destroy everything, and wait until the hosts have confirmed it. Raises CliError."""
        client = self.client()
        give_up = time.monotonic() + PURGE_TIMEOUT_S
        while there := [
            each for path in _DESTROYED for each in objects(client.get(path, {"limit": 500}).body, "items")
        ]:
            for each in there:
                if each.get("deletion_requested_at") is None:
                    try:
                        client.request("DELETE", _path_of(each))
                    except ProblemError as problem:
                        if problem.status != 404:
                            raise
            if time.monotonic() > give_up:
                raise CliError(f"{len(there)} microVMs and groups are still there after {PURGE_TIMEOUT_S:.0f} s")
            self._progress.moving(f"Waiting for {len(there)} microVMs and groups to be destroyed")
            time.sleep(_POLL_S)

    def purge(self) -> list[str]:
        """End the processes, whatever microVM is left, and remove the directory. Gives what resisted."""
        self.stop()
        leftovers.destroy(self.layout)
        left = [line for line in leftovers.find(self.layout) if line.startswith("process")]
        if not left:
            shutil.rmtree(self.layout.directory)
        return left

    def log_tail(self, name: str, lines: int = _LOG_TAIL_LINES) -> str:
        """The end of a member's log, indented."""
        try:
            content = self.layout.log(name).read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            content = ["(no log)"]
        return "\n".join(f"  {name}| {line[:400]}" for line in content)


def _child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings come from the file alone: a stray FLINTLOCK_NODE__... of the user's shell must not reach three nodes."""
    return {key: value for key, value in environ.items() if not key.startswith("FLINTLOCK_")}


def _path_of(resource: Json) -> str:
    """Of a microVM or a group."""
    collection = "microvms" if resource["kind"] == "MicroVM" else "microvmgroups"
    return f"/namespaces/{resource['namespace']}/{collection}/{resource['name']}"
