"""A node of a real cluster whose peers stand still says so, whatever it is asked, and is whole again by itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.cluster import leader_of, make_whole, within

from controlplane.cli.client import Client
from controlplane.cli.dev import processes
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.errors import ProblemError

VM = "/namespaces/demo/microvms/web"
SPEC = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}
AGE = "Flintlock-Age"
ASKED: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/microvms", None),
    ("GET", VM, None),
    ("GET", f"{VM}/why", None),
    ("GET", f"{VM}/console", None),
    ("GET", f"{VM}?wait_for=stopped&wait_s=1", None),
    ("GET", "/watch", None),
    ("GET", "/drift", None),
    ("PUT", f"{VM}?dry_run=true", {"spec": SPEC}),
    ("PUT", VM, {"spec": {**SPEC, "vcpu": 2}}),
    ("DELETE", VM, None),
    ("POST", f"{VM}/actions/restart", None),
    ("POST", "/apply?dry_run=true", {"resources": []}),
    ("POST", "/snapshots", None),
]


@pytest.fixture
def alone(cluster: DevCluster) -> Iterator[tuple[str, Client, list[str], list[str]]]:
    """The leader, with the others stopped; and what a stream said that was open before."""
    client = cluster.client()
    client.request("PUT", "/namespaces/demo", body={"spec": {}})
    client.request("PUT", VM, body={"spec": SPEC})
    node = leader_of(cluster)
    others = sorted(each.name for each in cluster.layout.plan.nodes if each.name != node)
    own = cluster.client(node=node, retry_for_s=0)
    heard: list[str] = []
    # Not the whole history: others may have used the cluster, and whoever asks for too much at once is too slow.
    begun = max(0, own.get("/namespaces").body["revision"] - 5)
    watching = threading.Thread(target=_watch, args=(own, begun, heard))
    watching.start()
    within(10, lambda: heard, "the stream has begun")
    frozen = [
        process
        for other in others
        if (parent := processes.recorded(cluster.layout.run_file(other))) is not None
        for process in processes.session_of(parent)
    ]
    for process in frozen:
        assert process.signal(signal.SIGSTOP)
    try:
        yield node, own, others, heard
    finally:
        for process in frozen:
            process.signal(signal.SIGCONT)
        watching.join(30)
        make_whole(cluster)


def _watch(client: Client, begun: int, heard: list[str]) -> None:
    try:
        for event in client.events("/watch", {"from": begun}):
            heard.append(event.event)
    except ProblemError as problem:
        heard.append(f"{problem.status} {problem.code}")


def _leaderless_s(client: Client, node: str) -> float:
    """Since when the node says of itself that it has no leader; 0 while it has one."""
    (belief,) = [each["belief"] for each in client.get("/cluster").body["nodes"] if each["node"] == node]
    return belief["since_s"] if belief["leader"] is None else 0.0


def _age_s(client: Client) -> float:
    """How old what the node knows may be, as its stale answer says."""
    return float(client.get(f"{VM}?consistency=stale").headers[AGE])


def test_a_node_without_a_majority_says_so_in_every_answer(
    cluster: DevCluster, alone: tuple[str, Client, list[str], list[str]]
) -> None:
    node, own, others, heard = alone

    def refusal(asked: tuple[str, str, dict[str, Any] | None]) -> ProblemError | str:
        method, path, body = asked
        try:
            answer = own.request(method, path, body=body)
        except ProblemError as problem:
            return problem
        return f"{method} {path} was answered with {answer.status}"

    within(10, lambda: own.get("/raft").body["has_quorum"] is False, "it knows that it is alone")
    within(15, lambda: _leaderless_s(own, node) > 3.0, "longer than an election: it knows that the others are gone")
    began_s = time.monotonic()
    with ThreadPoolExecutor(len(ASKED)) as pool:
        for asked, found in zip(ASKED, pool.map(refusal, ASKED), strict=True):
            assert isinstance(found, ProblemError), found
            assert (found.status, found.code) == (503, "no_majority"), (asked, found.body)
            assert found.body["contact"]["misses"] == others
            assert f"node {node} cannot reach a majority" in found.message
            assert found.body["retry_after_s"] > 0
    assert time.monotonic() - began_s < 3.0, "nobody waits for what cannot come"
    assert own.get(f"{VM}?consistency=stale").body["spec"]["vcpu"] == 1
    known_s = _age_s(own)
    within(5, lambda: _age_s(own) >= known_s + 0.9, "what it knows grows old")
    seen = own.get("/cluster").body
    beliefs = {each["node"]: (each["belief"] or {}).get("leader", each["not_asked"]) for each in seen["nodes"]}
    assert beliefs == {node: None, **dict.fromkeys(others, "it did not answer in time")}
    within(10, lambda: heard[-1] == "503 no_majority", f"the stream ends with the reason, not {heard[-1]}")


def test_it_is_whole_again_by_itself(cluster: DevCluster) -> None:
    """After the test before."""
    seen = cluster.client().get("/cluster")
    assert seen.body["disagreements"] == []
    assert {each["belief"]["leader"] for each in seen.body["nodes"]} == {seen.body["log"]["leader"]}
    assert AGE not in seen.headers
