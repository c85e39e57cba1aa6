"""The cluster's authority is replaced under load: every node and every agent gets a certificate of another root, and
nobody who uses the cluster notices. Then the rotation is begun again and aborted, and the leader changes meanwhile.

Real processes over real TLS, made by `flintctl` alone.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from acceptance.test_joining_cluster import START_S, Machines, found_of, promoted
from cryptography import x509
from support.cluster import within

from controlplane.cli.client import Client
from controlplane.cli.errors import CliError
from controlplane.identity import issuing
from controlplane.identity.check import issued_by
from controlplane.settings import split_address

HOSTS = ("h1", "h2")
NODES = ("n1", "n2", "n3")
RENEWED_S = 40.0

pytestmark = pytest.mark.timeout(480)


class Load:
    """Writes and reads without an end, and counts what failed beyond the client's own retries."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._over = threading.Event()
        self.done = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._client.request("PUT", "/namespaces/load", body={"spec": {"max_vcpu": 1 + self.done % 7}})
                for name in HOSTS:
                    phase = self._client.get(f"/hosts/{name}").body["status"]["phase"]
                    if phase != "ready":
                        self.failures.append(f"{name} is {phase}")
            except (CliError, OSError) as error:
                self.failures.append(str(error))
            self.done += 1
            time.sleep(0.05)

    @classmethod
    @contextmanager
    def on(cls, client: Client) -> Iterator[Load]:
        load = cls(client)
        thread = threading.Thread(target=load.run)
        thread.start()
        try:
            yield load
        finally:
            load._over.set()
            thread.join()


class Cluster:
    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        first = machines.directory / "n1"
        # What an operator has elsewhere: the root of before, which nobody replaces for him.
        self.kept = machines.directory / "operator-ca.crt"
        self.kept.write_bytes((first / "ca.crt").read_bytes())
        self.client = self.new_client()

    def new_client(self) -> Client:
        token = (self.machines.directory / "n1" / "token").read_text().strip()
        return Client([f"https://{self.machines.servers[each][2]}" for each in NODES], token, self.kept)

    def authority(self) -> Any:
        return self.client.get("/authority").body

    def signs(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.authority()["authorities"][0]["certificate"].encode())

    def waiting(self) -> list[dict[str, str]]:
        return self.authority()["rotation"]["waiting"]

    def all_of(self, root: x509.Certificate) -> bool:
        return all(issued_by(self.machines.certificate(name), root) for name in (*NODES, *HOSTS))

    def trusted_by(self, name: str) -> set[str]:
        pem = (self.machines.directory / name / "ca.crt").read_bytes()
        return {issuing.fingerprint(each) for each in x509.load_pem_x509_certificates(pem)}

    def sessions(self) -> dict[str, int]:
        return {name: self.machines.log(name).count("session opened") for name in HOSTS}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that share their tokens, and two hosts. Tests leave no rotation under way."""
    tmp_path = tmp_path_factory.mktemp("rotation")
    machines = Machines(tmp_path)
    try:
        where = ["--dir", str(tmp_path / "n1"), "--cluster-id", "prod", "--node", "n1"]
        machines.flintctl("init", *where, *machines.addresses("n1"))
        machines.run("n1")
        client = machines.client
        within(START_S, lambda: found_of(client, "/authority", "authorities"), "n1 has its authority in the state")
        token = machines.flintctl("token", "create", "--role", "node", "--uses", "2").strip()
        for node in ("n2", "n3"):
            machines.join(node, token)
            (tmp_path / node / "tokens.json").write_bytes((tmp_path / "n1" / "tokens.json").read_bytes())
            machines.run(node)
            within(START_S, lambda: promoted(client, node), f"{node} votes")  # noqa: B023 - used at once
        for name in HOSTS:
            client.request("PUT", f"/hosts/{name}", body={"spec": {}})
            machines.join(name, machines.flintctl("token", "create", "--role", "host", "--host", name).strip())
            machines.run(name)
        made = Cluster(machines)
        for name in HOSTS:
            within(
                START_S,
                lambda: made.client.get(f"/hosts/{name}").body["status"]["phase"] == "ready",  # noqa: B023
                f"{name} is ready",
            )
        yield made
    finally:
        machines.stop()


def test_another_authority_takes_over_under_load_and_an_aborted_one_does_not(cluster: Cluster) -> None:
    machines, client = cluster.machines, cluster.client
    old, sessions = cluster.signs(), cluster.sessions()
    early = machines.flintctl("token", "create", "--role", "host", "--host", "h3").strip()
    with Load.on(client) as load:
        machines.flintctl("ca", "rotate")
        new = cluster.signs()
        assert new != old
        within(RENEWED_S, lambda: cluster.waiting() == [], "every member has renewed")
        assert cluster.all_of(new)
        # A token of before still lets in.
        machines.join("h3", early)
        gone = {"kind": "host", "name": "h3", "reason": "it never runs, and the next rotation would wait for it"}
        client.request("POST", "/authority/actions/revoke", body=gone)
        client.request("POST", "/raft/actions/transfer-leadership", body={})
        assert cluster.trusted_by("h1") == {issuing.fingerprint(old), issuing.fingerprint(new)}
        machines.flintctl("ca", "retire")
        both = (*NODES, *HOSTS)
        within(
            20,
            lambda: all(cluster.trusted_by(name) == {issuing.fingerprint(new)} for name in both),
            "nobody trusts the old one",
        )
        cluster.kept.write_text(machines.flintctl("ca", "bundle"))
        assert load.failures == [], load.failures[:3]
    assert load.done > 20
    assert cluster.sessions() == sessions, "no session was opened anew"

    with Load.on(cluster.new_client()) as load:
        machines.flintctl("ca", "rotate")
        within(RENEWED_S, lambda: cluster.waiting() == [], "every member has renewed again")
        machines.flintctl("ca", "rotate", "--abort", "--wait", "--timeout", "60")
        assert load.failures == [], load.failures[:3]
    assert cluster.all_of(new)
    assert cluster.sessions() == sessions


def stop(machines: Machines, name: str) -> None:
    process = machines.processes.pop(name)
    process.terminate()
    process.wait(20)


def test_every_server_of_a_node_refuses_what_is_older_than_tls_1_3(cluster: Cluster) -> None:
    for address in cluster.machines.servers["n1"]:
        assert version_of(address, ssl.TLSVersion.TLSv1_3) == "TLSv1.3", address
        with pytest.raises(OSError):  # noqa: PT011 - an alert or the end of the connection, as the server likes
            version_of(address, ssl.TLSVersion.TLSv1_2)


def version_of(address: str, newest: ssl.TLSVersion) -> str | None:
    """Of TLS, as agreed with a client that knows no newer one. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    with socket.create_connection(split_address(address), timeout=10) as plain, context.wrap_socket(plain) as secure:
        return secure.version()


def test_by_force_who_is_away_is_left_behind_and_joins_anew(cluster: Cluster) -> None:
    machines = cluster.machines
    stop(machines, "h2")
    machines.flintctl("ca", "rotate")
    within(RENEWED_S, lambda: cluster.waiting() == [{"kind": "host", "name": "h2"}], "everybody but h2 has renewed")
    with pytest.raises(AssertionError, match=r"members still depend on the authority [0-9a-f]{64}: host h2"):
        machines.flintctl("ca", "retire")
    machines.flintctl("ca", "retire", "--force")
    machines.run("h2")
    within(20, lambda: "session ended" in machines.log("h2"), "h2 is refused")
    assert "session opened" not in machines.log("h2")
    stop(machines, "h2")
    (machines.directory / "h2").rename(machines.directory / "lost")
    machines.join("h2", machines.flintctl("token", "create", "--role", "host", "--host", "h2").strip())
    machines.run("h2")
    within(START_S, lambda: "session opened" in machines.log("h2"), "h2 is back")
