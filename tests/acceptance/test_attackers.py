"""Attackers at every door of a running cluster: each is refused, costs bounded memory, runs nothing, leaves its mark in
the audit, and the cluster serves on.

What each door does with each kind of wrong bytes is in the unit tests that `make security` runs; here are the whole
processes, with their real ports.
"""

from __future__ import annotations

import json
import pickle
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from bench import proc
from support.cluster import child_of, items, within

from controlplane.cli.dev.cluster import DevCluster
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

DOORS = ("raft", "gateway", "http")
GROWTH_MB = 40.0
SPEC: dict[str, Any] = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}


class Bomb:
    """Makes a file in whoever unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def port_of(cluster: DevCluster, door: str) -> int:
    return getattr(cluster.layout.plan.nodes[0], f"{door}_port")


def context(cluster: DevCluster, *, member: str | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(cluster.layout.ca_file))
    made.check_hostname = False
    if member is not None:
        pki = cluster.layout.pki(member)
        made.load_cert_chain(pki / f"{member}.crt", pki / f"{member}.key")
    return made


def heard(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """What comes back, until the other end hangs up or says nothing for a moment."""
    answer = b""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=2) as plain,
        tls.wrap_socket(plain) if tls is not None else plain as connection,
    ):
        connection.sendall(data)
        while len(answer) < 100_000 and (more := connection.recv(4096)):
            answer += more
    return answer


@contextmanager
def unharmed(cluster: DevCluster) -> Iterator[None]:
    """Its processes are the same ones afterwards, hardly larger, and it still takes writes."""
    node = cluster.layout.plan.nodes[0].name
    before = {child: child_of(cluster, node, child) for child in ("front", "raft")}
    memory = {each.pid: proc.memory(each.pid).rss_mb for each in before.values() if each is not None}
    assert len(memory) == 2
    yield
    assert {child: child_of(cluster, node, child) for child in before} == before
    for pid, rss_mb in memory.items():
        assert proc.memory(pid).rss_mb < rss_mb + GROWTH_MB
    cluster.client(node=node).request("PUT", "/namespaces/after", body={"spec": {}})


def session(cluster: DevCluster, token: str | None = None) -> requests.Session:
    made = requests.Session()
    made.trust_env, made.verify = False, str(cluster.layout.ca_file)
    made.headers["Authorization"] = f"Bearer {token or cluster.layout.environment['FLINTLOCK_TOKEN']}"
    return made


def url(cluster: DevCluster, path: str) -> str:
    return f"{cluster.layout.endpoints[0]}/api/v2{path}"


def refusals(cluster: DevCluster) -> list[dict[str, Any]]:
    found = cluster.client().get("/audit", {"limit": 1000, "newest": "true"}).body["items"]
    return [each for each in found if each["outcome"] == "refused"]


@pytest.mark.parametrize("door", DOORS)
def test_pickles_are_data_at_every_port(cluster: DevCluster, door: str, tmp_path: Path) -> None:
    mark = tmp_path / "went-off"
    bomb = pickle.dumps(Bomb(mark))
    pickle.loads(bomb)
    assert mark.exists(), "it would"
    mark.unlink()
    port = port_of(cluster, door)
    framed = len(bomb).to_bytes(4, "big") + bomb
    grpc_framed = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" + len(bomb).to_bytes(4, "big") + bomb
    put = (
        f"PUT /api/v2/namespaces/x HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {cluster.layout.environment['FLINTLOCK_TOKEN']}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    ).encode()
    with unharmed(cluster):
        for data in (bomb, framed, grpc_framed, put + bomb):
            assert len(heard(port, data)) < 1000
            assert len(heard(port, data, context(cluster))) < 2000, "with TLS and no certificate"
            heard(port, data, context(cluster, member="h1"))
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("door", DOORS)
def test_nobody_is_talked_into_an_older_tls(cluster: DevCluster, door: str) -> None:
    old = context(cluster, member="n2")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", port_of(cluster, door)), timeout=5) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        old.wrap_socket(plain).close()


def test_a_host_opens_its_own_session_alone(cluster: DevCluster) -> None:
    pki = cluster.layout.pki("h2")
    ca = cluster.layout.ca_file.read_bytes()
    stolen = grpc.ssl_channel_credentials(ca, (pki / "h2.key").read_bytes(), (pki / "h2.crt").read_bytes())
    hello = wire.FromAgent(hello=wire.Hello(host="h1", session="forged", protocol=1))
    with unharmed(cluster):
        for credentials, code in (
            (stolen, grpc.StatusCode.PERMISSION_DENIED),
            (grpc.ssl_channel_credentials(ca), grpc.StatusCode.UNAVAILABLE),
        ):
            with grpc.secure_channel(f"127.0.0.1:{port_of(cluster, 'gateway')}", credentials) as channel:
                answers = rpc.AgentGatewayStub(channel).Session(iter([hello]), timeout=10)
                with pytest.raises(grpc.RpcError) as refused:
                    next(answers)
                assert refused.value.code() is code
        with grpc.secure_channel(f"127.0.0.1:{port_of(cluster, 'gateway')}", stolen) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                rpc.NodeRelayStub(channel).Presence(wire.PresenceRequest(), timeout=10)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, "what is among nodes is not a host's"


def test_a_stolen_idempotency_key_gives_nothing(cluster: DevCluster) -> None:
    owner = session(cluster)
    owner.put(url(cluster, "/namespaces/demo"), json={"spec": {}}, timeout=30)
    vm, key = url(cluster, "/namespaces/demo/microvms/web"), {"Idempotency-Key": "known-to-a-thief"}
    made = owner.put(vm, json={"spec": SPEC}, headers=key, timeout=30)
    assert made.status_code == 201
    secret = owner.post(url(cluster, "/api-tokens"), json={"name": "thief"}, timeout=30).json()["secret"]
    try:
        thief = session(cluster, secret)
        for body in ({"spec": SPEC}, {"spec": {**SPEC, "vcpu": 2}}):
            answer = thief.put(vm, json=body, headers=key, timeout=30)
            assert answer.status_code == 403
            assert made.json()["uid"] not in answer.text
        within(20, lambda: any(each["actor"] == "token/thief" for each in refusals(cluster)), "the thief in the audit")
    finally:
        owner.delete(url(cluster, "/api-tokens/thief"), timeout=30)


TRAVERSALS = [
    ({"kernel": {"image": "../../etc"}}, "/spec/kernel/image"),
    ({"kernel": {"image": "a/../../b"}}, "/spec/kernel/image"),
    ({"kernel": {"image": "file:///etc/passwd"}}, "/spec/kernel/image"),
    ({"kernel": {"image": "http://169.254.169.254/latest/meta-data"}}, "/spec/kernel/image"),
    ({"additional_volumes": {"../x": {"size_in_mb": 1}}}, "/spec/additional_volumes/..~1x"),
    ({"additional_volumes": {"..": {"size_in_mb": 1}}}, "/spec/additional_volumes/.."),
    ({"root_volume": {"container_source": "a//../b"}}, "/spec/root_volume/container_source"),
    ({"metadata": {"../seed": "x"}}, "/spec/metadata/..~1seed"),
    ({"interfaces": {"../../net": {}}}, "/spec/interfaces/..~1..~1net"),
    ({"interfaces": {"eth1": {"bridge_name": "../br0"}}}, "/spec/interfaces/eth1/bridge_name"),
]


def test_names_lead_nowhere_and_are_in_the_audit(cluster: DevCluster) -> None:
    asked = session(cluster)
    asked.put(url(cluster, "/namespaces/demo"), json={"spec": {}}, timeout=30)
    with unharmed(cluster):
        for wrong, pointer in TRAVERSALS:
            answer = asked.put(
                url(cluster, "/namespaces/demo/microvms/web"), json={"spec": {**SPEC, **wrong}}, timeout=30
            )
            assert answer.status_code == 422, wrong
            assert pointer in [each["pointer"] for each in answer.json()["errors"]], answer.text
        for path in (
            "/namespaces/%2e%2e/microvms/web",
            "/namespaces/demo/microvms/..%2fweb",
            "/snapshots/..%2f/manifest",
        ):
            assert asked.get(url(cluster, path), timeout=30).status_code in (404, 422)
    assert items(cluster.client(), "/microvms") == []
    within(20, lambda: sum(each.get("status") == 422 for each in refusals(cluster)), "the refused changes in the audit")


BOMBS = {
    "nested lists": b"[" * 900_000,
    "nested objects": b'{"spec":' * 100_000,
    "a number of a megabyte": b'{"spec": {"vcpu": ' + b"9" * 900_000 + b"}}",
    "one key a hundred thousand times": b'{"spec": {' + b'"a": 0,' * 100_000 + b'"b": 0}}',
    "sixteen megabytes": b'{"labels": {"' + b"a" * (16 << 20) + b'": ""}}',
}


def throw_bombs(cluster: DevCluster) -> None:
    asked = session(cluster)
    asked.headers["Content-Type"] = "application/json"
    for name, bomb in BOMBS.items():
        for method, path in (("PUT", "/namespaces/demo"), ("POST", "/apply")):
            try:
                answer = asked.request(method, url(cluster, path), data=bomb, timeout=30)
            except requests.ConnectionError:  # it hung up on what is too large
                continue
            assert answer.status_code in (413, 422), (name, answer.status_code)
            assert len(answer.content) < 20_000


def test_bombs_cost_bounded_memory(cluster: DevCluster) -> None:
    throw_bombs(cluster)  # what a body of the largest size takes stays with the allocator
    with unharmed(cluster):
        for _ in range(8):
            throw_bombs(cluster)


def test_nothing_that_a_request_names_is_asked_by_a_node(cluster: DevCluster) -> None:
    """A listener of the attacker's, named wherever a request can name something; it hears nothing."""
    asked = session(cluster)
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(2)
        there = f"127.0.0.1:{trap.getsockname()[1]}"
        headers = {"Host": there, "X-Forwarded-Host": there, "X-Forwarded-For": there, "Forwarded": f"host={there}"}
        answers = [asked.get(url(cluster, "/namespaces"), headers=headers, timeout=30)]
        answers.append(
            requests.get(
                cluster.layout.endpoints[0] + "/docs",
                headers=headers,
                verify=str(cluster.layout.ca_file),
                allow_redirects=False,
                timeout=30,
            )
        )
        asked.put(url(cluster, "/namespaces/demo"), json={"spec": {}}, timeout=30)
        image = {"kernel": {"image": f"{there}/kernel:1"}, "root_volume": {"container_source": f"{there}/root:1"}}
        vm = url(cluster, "/namespaces/demo/microvms/web")
        answers.append(asked.put(vm, json={"spec": {**SPEC, **image}}, timeout=30))
        raw = f"GET http://{there}/ HTTP/1.1\r\nHost: {there}\r\nConnection: close\r\n\r\n".encode()
        told = heard(port_of(cluster, "http"), raw, context(cluster))
        with pytest.raises(TimeoutError):
            trap.accept()
    assert there.encode() not in told
    assert not any(there in json.dumps(dict(answer.headers)) for answer in answers)
