"""A cluster from nothing, as an operator makes it: `init`, two nodes and a host that join by tokens, certificates of
seconds that are renewed under sessions and leadership that go on, and a host that is robbed and shut out.

Real processes over real TLS. No part of it is told any certificate but by `flintctl`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.cluster import within
from support.ports import free_ports
from support.scanner import found_below

from controlplane.cli.client import Client
from controlplane.cli.errors import CliError

FLINTCTL = Path(sys.executable).parent / "flintctl"
START_S = 60.0
NODE_LIFE_S, HOST_LIFE_S = 30, 8

pytestmark = pytest.mark.timeout(600)


class Machines:
    """What runs on several machines, here below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ports = free_ports(9)
        self.servers = {f"n{i + 1}": [f"127.0.0.1:{port}" for port in ports[3 * i : 3 * i + 3]] for i in range(3)}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def client(self) -> Client:
        first = self.directory / "n1"
        token = (first / "token").read_text().strip()
        return Client([f"https://{self.servers['n1'][2]}"], token, first / "ca.crt")

    def flintctl(self, *arguments: str, token: str = "") -> str:
        first = self.directory / "n1"
        environment = {
            **os.environ,
            "FLINTLOCK_ENDPOINTS": f"https://{self.servers['n1'][2]}",
            "FLINTLOCK_CA_FILE": str(first / "ca.crt"),
            "FLINTLOCK_TOKEN": (first / "token").read_text().strip() if (first / "token").exists() else "",
            "FLINTLOCK_JOIN_TOKEN": token,
        }
        done = subprocess.run(
            [FLINTCTL, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def addresses(self, node: str) -> list[str]:
        raft, gateway, http = self.servers[node]
        return ["--raft", raft, "--gateway", gateway, "--http", http]

    def join(self, name: str, token: str, *driver: str) -> None:
        """`driver`: options of a host, that say what its microVMs are run by."""
        what = ["--node", name, *self.addresses(name)] if name in self.servers else ["--host", name]
        where = ["--server", self.servers["n1"][2], "--dir", str(self.directory / name)]
        self.flintctl("join", *what, *where, *(driver or ("--driver", "simulated")), token=token)

    def run(self, name: str) -> None:
        kind = "node" if name in self.servers else "agent"
        config = self.directory / name / f"{name}.yaml"
        with (self.directory / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [FLINTCTL, kind, "run", "--config", str(config)], stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.directory / name / f"{name}.crt").read_bytes())

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    yield made
    made.stop()


def test_a_cluster_is_made_joined_renewed_and_rid_of_a_host(machines: Machines) -> None:
    lives = ["--node-life", f"{NODE_LIFE_S}s", "--host-life", f"{HOST_LIFE_S}s"]
    where = ["--dir", str(machines.directory / "n1"), "--cluster-id", "prod", "--node", "n1"]
    machines.flintctl("init", *where, *machines.addresses("n1"), *lives)
    machines.run("n1")
    client = machines.client
    within(START_S, lambda: found_of(client, "/authority", "authorities"), "n1 has its authority in the state")

    # Both tokens are made first: what a token is for is decided when it is used.
    node_token = machines.flintctl("token", "create", "--role", "node", "--uses", "2").strip()
    host_token = machines.flintctl("token", "create", "--role", "host", "--host", "h1").strip()
    for node in ("n2", "n3"):
        machines.join(node, node_token)
        machines.run(node)
        within(START_S, lambda: promoted(client, node), f"{node} votes")  # noqa: B023 - used at once
    machines.join("h1", host_token)
    machines.run("h1")
    client.request("PUT", "/hosts/h1", body={"spec": {}})
    within(START_S, lambda: host(client)["status"]["phase"] == "ready", "h1 is ready")

    within(START_S, lambda: sessions(machines) == 1, "the agent has a session")

    first = {name: machines.certificate(name) for name in ("h1", "n1", "n2", "n3")}
    leader = client.get("/raft").body["leader"], client.get("/raft").body["term"]
    within(
        2.5 * NODE_LIFE_S,
        lambda: (
            all(
                machines.certificate(name).not_valid_before_utc > before.not_valid_before_utc
                for name, before in first.items()
            )
            and machines.certificate("h1").not_valid_before_utc > first["h1"].not_valid_after_utc
        ),
        "every certificate is another one, the host's not for the first time",
    )
    assert host(client)["status"]["phase"] == "ready"
    assert sessions(machines) == 1, "no session was opened anew"
    assert (client.get("/raft").body["leader"], client.get("/raft").body["term"]) == leader

    machines.flintctl("ca", "revoke", "host", "h1", "--reason", "the disk was sold")
    within(10, lambda: "was revoked by operator: the disk was sold" in machines.log("h1"), "h1 is told")
    within(30, lambda: host(client)["status"]["phase"] != "ready", "h1 is gone for the cluster")
    assert "session opened" not in machines.log("h1").split("was revoked by operator")[-1]
    secrets = {"node": node_token.split(".")[1], "host": host_token.split(".")[1]}
    assert found_below(machines.directory, secrets) == set(), "join tokens are written nowhere"


def found_of(client: Client, path: str, key: str) -> Any:
    try:
        return client.get(path).body[key]
    except (CliError, OSError):
        return None


def promoted(client: Client, node: str) -> bool:
    try:
        client.request("POST", f"/raft/members/{node}/actions/promote", params={"timeout_s": 5})
    except CliError:
        return False
    return True


def host(client: Client) -> dict[str, Any]:
    return client.get("/hosts/h1").body


def sessions(machines: Machines) -> int:
    return machines.log("h1").count("session opened")
