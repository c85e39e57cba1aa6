"""Three nodes, four hosts and the recorder on one bridge, and an operator's view of them. Use inside a sandbox."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from chaos import witness
from chaos.history import Copy, copies
from chaos.hosts import Host
from chaos.nodes import Nodes
from chaos.recorder import Recorder
from linearizability.cluster import GATEWAY_PORT, REPOSITORY
from linearizability.network import HARNESS_ADDRESS, Network
from linearizability.sandbox import bind, unbind
from support.cluster import items, within

from controlplane.cli.client import Client
from controlplane.cli.errors import CliError
from controlplane.identity.authority import Authority

NODES = ("n1", "n2", "n3")
HOSTS = ("h1", "h2", "h3", "h4")
NAMESPACE = "chaos"
PET = "pet"
MOVERS = {"vm-0": "pause", "vm-1": "stop", "vm-2": "pause", "vm-3": "shutdown"}
"""MicroVMs that restart elsewhere, and what their hosts do with them at the end of a lease."""
PATIENCE_S = 120.0
FRESH_S = 2.0
"""Who runs is heard of several times in so long, also on a busy machine."""
_GUESTS = 100
"""The last part of the first guest's address."""


class Fleet:
    """`directory` keeps the evidence: logs, consoles, and `sightings.jsonl`."""

    def __init__(self, directory: Path, images: Path) -> None:
        directory.mkdir(parents=True)
        self._token = secrets.token_urlsafe(32)
        with ExitStack() as stack:
            self.directory = short = bind(directory, "chaos")
            stack.callback(unbind, short)
            self.network = Network()
            stack.callback(self.network.close)
            self.nodes = Nodes(short, self.network, NODES, self._token)
            stack.callback(self.nodes.close)
            self.hosts = {name: self._make_host(name, images) for name in HOSTS}
            for host in self.hosts.values():
                stack.callback(host.end)
            consoles = {host.name: host.vms for host in self.hosts.values()}
            self.recorder = stack.enter_context(Recorder(HARNESS_ADDRESS, consoles, short / "sightings.jsonl"))
            self._stack = stack.pop_all()
        self.client = self.client_of(*NODES)

    def close(self) -> None:
        self._stack.close()

    def start(self) -> None:
        self.nodes.start()
        for host in self.hosts.values():
            host.start()
        self.await_service()
        for name in HOSTS:
            self.client.request("PUT", f"/hosts/{name}", body={"spec": {}})
        self.client.request("PUT", f"/namespaces/{NAMESPACE}", body={"spec": {}})
        self.await_ready_hosts(PATIENCE_S)

    def _make_host(self, name: str, images: Path) -> Host:
        pki = self.directory / "pki" / name
        tls = Authority.load(self.directory / "pki" / "ca").issue_host(name, pki)
        settings: dict[str, object] = {
            "cluster_id": "raft-check",
            "endpoints": {node: f"{self.network.addresses[node]}:{GATEWAY_PORT}" for node in NODES},
            "tls": {"ca": str(tls.ca), "certificate": str(tls.certificate), "key": str(tls.key)},
            "drivers": [{"kind": "qemu", "images_dir": str(images), "accelerator": "tcg"}],
            "capacity": {"vcpu": 8, "memory_in_mb": 1024},
        }
        host = Host(name, self.directory / name, self.network, settings)
        host.lay_out()
        return host

    # -- the operator's view -------------------------------------------------------------------------------------------

    def client_of(self, *names: str, retry_for_s: float = 60.0) -> Client:
        endpoints = [self.nodes.endpoint(name) for name in names]
        return Client(endpoints, self._token, self.nodes.ca_file, retry_for_s=retry_for_s)

    def flintctl(self, *arguments: str) -> str:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FLINTLOCK_")}
        kept |= {
            "FLINTLOCK_ENDPOINTS": ",".join(self.nodes.endpoint(name) for name in NODES),
            "FLINTLOCK_TOKEN": self._token,
            "FLINTLOCK_CA_FILE": str(self.nodes.ca_file),
            "PYTHONPATH": str(REPOSITORY),
        }
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=kept)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def leader(self) -> str | None:
        return self.nodes.leader()

    def await_service(self) -> None:
        """Every node leads or follows a leader, and answers."""
        within(PATIENCE_S, lambda: all(self._serves(name) for name in NODES), "every node answers")

    def _serves(self, name: str) -> bool:
        try:
            return self.client_of(name, retry_for_s=0.0).get("/cluster").body["log"]["leader"] is not None
        except CliError:
            return False

    def phases(self) -> dict[str, str]:
        return {host["name"]: host["status"]["phase"] for host in items(self.client, "/hosts")}

    def await_ready_hosts(self, seconds: float) -> None:
        within(seconds, lambda: set(self.phases().values()) == {"ready"}, "every host is ready")

    def microvms(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in items(self.client, "/microvms")}

    def uid(self, name: str) -> str:
        return self.microvms()[name]["uid"]

    def running(self) -> dict[str, str]:
        """Uid to host of what the API calls running."""
        return {
            each["uid"]: each["status"]["host"]
            for each in self.microvms().values()
            if each["status"]["power_state"] == "running"
        }

    def declare(self, name: str, recovery: dict[str, object], **more: object) -> None:
        address = f"10.77.0.{_GUESTS + [*MOVERS, PET].index(name)}"
        spec = witness.spec(address, self.recorder.place, recovery, **more)
        self.client.request("PUT", f"/namespaces/{NAMESPACE}/microvms/{name}", body={"spec": spec})

    # -- the witnesses' view -------------------------------------------------------------------------------------------

    def living(self) -> dict[str, Copy]:
        """The newest copy of each uid that was heard of just now."""
        heard = copies(self.recorder.sightings(time.monotonic() - FRESH_S))
        return {uid: lives[-1] for uid, lives in heard.items()}

    def await_agreement(self, seconds: float) -> None:
        """Whatever is declared as running runs, and is heard, where the API says."""

        def agreed() -> bool:
            running, living = self.running(), self.living()
            everything = len(running) == len(self.microvms()) == len(living)
            return everything and all(uid in living and living[uid].host == host for uid, host in running.items())

        within(seconds, agreed, "everything runs where the API says")
