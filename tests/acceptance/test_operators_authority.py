"""A cluster whose certificates come from an operator's own authority: files that openssl made by the commands of
docs/guides/certificates.md, for three nodes and a host, which are replaced while everything runs.

Real processes over real TLS, told of nothing but files.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from support.cluster import within

from controlplane.cli.client import Client
from controlplane.cli.dev import setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.layout import Layout
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import CliError
from controlplane.identity import storage
from controlplane.identity.check import issued_by
from controlplane.identity.issuing import serial_text
from controlplane.settings import split_address

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "certificates.md"
NODES, HOSTS = ("n1", "n2", "n3"), ("h1", "h2")
FOLLOWED_S = 10.0
SILENCE_S = 1.5
"""Whoever is let in is told nothing by a peer of the log until he says who he is."""

pytestmark = pytest.mark.timeout(600)


def commands_of_guide() -> tuple[str, str]:
    """Those that make an authority and a node's certificate."""
    (block,) = re.findall(r"```sh\n(openssl req.*?)```", GUIDE.read_text(), re.DOTALL)
    first, second = block.split("\nopenssl")
    return first, f"openssl{second}"


class Authority:
    """Below `directory`, as the guide has it made."""

    def __init__(self, directory: Path, cluster_id: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._cluster_id = cluster_id
        make, self._issue = commands_of_guide()
        self._run(make)

    @property
    def root(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Certificate and key of a node or a host."""
        kind = "node" if name in NODES else "host"
        command = self._issue
        for said, meant in (("demo/node", f"{self._cluster_id}/{kind}"), ("10.0.0.1", "127.0.0.1")):
            assert said in command
            command = command.replace(said, meant)
        self._run(re.sub(r"\bn1\b", name, command))
        return (self.directory / f"{name}.crt").read_bytes(), (self.directory / f"{name}.key").read_bytes()

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.directory, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr


class Files:
    """A member's own triple, in one directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.ca = directory / "ca.crt"
        self.certificate, self.key = directory / f"{name}.crt", directory / f"{name}.key"
        self.serials: list[str] = []
        """Of every certificate that it has had."""

    def certify(self, authority: Authority, name: str) -> None:
        """The key first, as the guide says."""
        certificate, key = authority.issue(name)
        storage.replace(self.key, key, mode=0o600)
        storage.replace(self.certificate, certificate, mode=0o644)
        self.serials.append(serial_text(x509.load_pem_x509_certificate(certificate)))

    def trust(self, *authorities: Authority) -> None:
        storage.replace(self.ca, b"".join(each.certificate.read_bytes() for each in authorities), mode=0o644)


@dataclass
class Cluster:
    own: Authority
    stranger: Authority
    dev: DevCluster
    operators: Path
    """What whoever talks to the API from elsewhere trusts."""
    files: dict[str, Files] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        return self.dev.layout

    def client(self) -> Client:
        token = self.layout.token_file.read_text().strip()
        return Client(self.layout.endpoints, token, self.operators)

    def flintctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.layout.environment, "FLINTLOCK_CA_FILE": str(self.operators)}
        command = [str(Path(sys.executable).parent / "flintctl"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def is_healthy(self) -> bool:
        return self.flintctl("raft", "status").returncode == 0

    def phase(self, host: str) -> str:
        return str(self.client().get(f"/hosts/{host}").body["status"]["phase"])

    def sessions(self, host: str) -> int:
        return self.layout.log(host).read_text().count("session opened")

    def addresses(self) -> dict[str, list[str]]:
        """Of every server, by what it is."""
        nodes = self.layout.plan.nodes
        return {
            "raft": [f"127.0.0.1:{each.raft_port}" for each in nodes],
            "gateway": [f"127.0.0.1:{each.gateway_port}" for each in nodes],
            "http": [f"127.0.0.1:{each.http_port}" for each in nodes],
        }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes and h1 by the operator's authority, h2 by another one of the same names."""
    directory = tmp_path_factory.mktemp("operators")
    layout = setup.create(directory / "c", nodes=3, hosts=2, driver="simulated", say=lambda _: None)
    cluster_id = layout.plan.cluster_id
    made = Cluster(
        own=Authority(directory / "own", cluster_id),
        stranger=Authority(directory / "stranger", cluster_id),
        dev=DevCluster(layout, Progress()),
        operators=directory / "operators-ca.crt",
    )
    made.operators.write_bytes(made.own.certificate.read_bytes())
    for name in layout.names:
        files = made.files[name] = Files(layout.pki(name), name)
        files.trust(made.own)
        files.certify(made.stranger if name == "h2" else made.own, name)
        settings = yaml.safe_load(layout.settings(name).read_text())
        settings["tls"] = {"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)}
        layout.settings(name).write_text(yaml.safe_dump(settings))
    # Nothing is left of what made the directory.
    for path in layout.authority.iterdir():
        path.unlink()
    try:
        made.dev.start([*NODES, "h1"])
        within(90, made.is_healthy, "three nodes have a leader")
        client = made.client()
        for host in HOSTS:
            client.request("PUT", f"/hosts/{host}", body={"spec": {}})
        within(30, lambda: made.phase("h1") == "ready", "h1 is ready")
        yield made
    finally:
        left = made.dev.purge()
        assert not left, left


def shown_at(address: str, trusts: Path, files: Files | None = None) -> x509.Certificate | None:
    """The server's certificate if it lets in whoever shows `files`; None if it does not. Raises ssl.SSLError for a
    server whose authority `trusts` does not hold.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(trusts)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    host, port = split_address(address)
    with (
        socket.create_connection((host, port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
        assert der is not None
        secure.settimeout(SILENCE_S)
        # In TLS 1.3 a client hears only after its handshake what the server thinks of its certificate.
        try:
            let_in = bool(secure.recv(1))
        except TimeoutError:
            let_in = True
        except OSError:
            let_in = False
        return x509.load_der_x509_certificate(der) if let_in else None


def test_every_server_shows_the_operators_certificate_and_asks_members_for_theirs(cluster: Cluster) -> None:
    addresses = cluster.addresses()
    for address in addresses["http"]:
        shown = shown_at(address, cluster.operators)
        assert shown is not None
        assert issued_by(shown, cluster.own.root)
    for kind, name in (("raft", "n2"), ("gateway", "h1")):
        for address in addresses[kind]:
            shown = shown_at(address, cluster.operators, cluster.files[name])
            assert shown is not None, f"{name} is let in by {kind} {address}"
            assert issued_by(shown, cluster.own.root)
            assert shown_at(address, cluster.operators) is None, f"nobody is let in by {kind} {address}"
            assert shown_at(address, cluster.operators, cluster.files["h2"]) is None, "a stranger"
    assert shown_at(addresses["raft"][0], cluster.operators, cluster.files["h1"]) is None, "a host is no peer"
    with pytest.raises(ssl.SSLCertVerificationError):
        shown_at(addresses["http"][0], cluster.stranger.certificate)


def test_a_host_of_another_authority_is_refused_until_it_has_files_of_the_right_one(cluster: Cluster) -> None:
    log = cluster.layout.log("h2")
    cluster.dev.start(["h2"])
    within(20, lambda: "was not issued by the authority in" in log.read_text(), "it does not even start")
    # Who trusts a stranger's authority himself finds out at the nodes.
    cluster.files["h2"].trust(cluster.own, cluster.stranger)
    within(10, lambda: bool(cluster.dev.start(["h2"])), "it has ended, and is started again")
    within(20, lambda: "session ended" in log.read_text(), "h2 is refused")
    assert cluster.sessions("h2") == 0
    assert cluster.phase("h2") != "ready"
    cluster.files["h2"].certify(cluster.own, "h2")
    within(20, lambda: cluster.phase("h2") == "ready", "h2 is ready, without a restart")


def test_who_has_an_authority_elsewhere_is_told_that_the_cluster_signs_nothing(cluster: Cluster) -> None:
    for arguments in (["token", "create", "--role", "host", "--host", "h9"], ["ca", "rotate"]):
        done = cluster.flintctl(*arguments)
        assert done.returncode != 0
        assert "authority" in done.stderr, done.stderr


class Load:
    """Writes and looks at hosts without an end; what failed beyond the client's own retries."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.done = 0
        self.failures: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                try:
                    self._client.request("PUT", "/namespaces/load", body={"spec": {"max_vcpu": 1 + self.done % 7}})
                    phases = {name: self._client.get(f"/hosts/{name}").body["status"]["phase"] for name in HOSTS}
                    self.failures += [f"{name} is {phase}" for name, phase in phases.items() if phase != "ready"]
                except (CliError, OSError) as error:
                    self.failures.append(str(error))
                self.done += 1
                time.sleep(0.05)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def all_show(addresses: Sequence[str], trusts: Path, authority: Authority, files: Files | None) -> bool:
    for address in addresses:
        try:
            shown = shown_at(address, trusts, files)
        except (ConnectionError, ssl.SSLError):  # between two servers of one port
            return False
        if shown is None or not issued_by(shown, authority.root):
            return False
    return True


def is_refused(address: str, trusts: Path, files: Files) -> bool:
    try:
        return shown_at(address, trusts, files) is None
    except ConnectionError:  # as above
        return False


def test_every_file_is_replaced_while_everything_runs(cluster: Cluster, tmp_path: Path) -> None:
    """Both roots everywhere, the new certificates machine by machine, the new root alone."""
    new, addresses = Authority(tmp_path / "new", cluster.layout.plan.cluster_id), cluster.addresses()
    within(20, lambda: cluster.phase("h2") == "ready", "h2 is ready")
    sessions = {name: cluster.sessions(name) for name in HOSTS}
    client = cluster.client()
    old = Files(cluster.own.directory, "h1")  # as it was issued
    both = tmp_path / "both.crt"
    both.write_bytes(cluster.own.certificate.read_bytes() + new.certificate.read_bytes())
    load = Load(client)
    with load.running():
        for files in cluster.files.values():
            files.trust(cluster.own, new)
        time.sleep(2)  # for every process to have looked at its files, which tells nobody
        for name, files in cluster.files.items():
            files.certify(new, name)
        for kind, shows in (("http", None), ("raft", cluster.files["n2"]), ("gateway", cluster.files["h1"])):
            within(
                FOLLOWED_S,
                lambda: all_show(addresses[kind], both, new, shows),  # noqa: B023 - used at once
                f"{kind} shows the new certificates",
            )
        for files in cluster.files.values():
            files.trust(new)
        for address in addresses["gateway"]:
            within(FOLLOWED_S, lambda: is_refused(address, both, old), "the old root is a stranger's")  # noqa: B023
        assert load.failures == [], load.failures[:3]
    assert load.done > 20
    assert {name: cluster.sessions(name) for name in HOSTS} == sessions, "no session was opened anew"
    cluster.operators.write_bytes(new.certificate.read_bytes())
    # What is dialled from now on is dialled by the new files alone.
    cluster.dev.kill_member("n3")
    cluster.dev.start(["n3"])
    within(40, cluster.is_healthy, "n3 is back among its peers")
    cluster.own = new


def test_a_certificate_of_elsewhere_is_revoked_by_its_serial(cluster: Cluster) -> None:
    """Each that it had: a session goes on by the one that began it."""
    for serial in cluster.files["h1"].serials:
        done = cluster.flintctl("ca", "revoke", "host", "h1", "--serial", serial, "--reason", "the disk was sold")
        assert done.returncode == 0, done.stderr
    log = cluster.layout.log("h1")
    within(10, lambda: "was revoked by operator: the disk was sold" in log.read_text(), "h1 is told")
    within(30, lambda: cluster.phase("h1") != "ready", "h1 is gone for the cluster")
    cluster.files["h1"].certify(cluster.own, "h1")
    within(20, lambda: cluster.phase("h1") == "ready", "h1 is back by another certificate")
