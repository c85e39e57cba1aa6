"""An operator's day with the log: look, add, promote, replace, hand over, remove; by flintctl on real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.cluster import within
from support.nodes import Nodes, started_nodes


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with started_nodes(tmp_path_factory.mktemp("raft")) as running:
        yield running


def status(nodes: Nodes, *, at: str | None = None) -> tuple[int, dict[str, Any]]:
    code, out, err = nodes.flintctl("raft", "status", "-o", "json", at=at)
    assert code in (0, 2), err
    return code, json.loads(out)


def healthy(nodes: Nodes, *, at: str | None = None) -> dict[str, Any] | None:
    code, out, _ = nodes.flintctl("raft", "status", "-o", "json", at=at)
    return json.loads(out) if code == 0 else None


def test_an_operators_day(nodes: Nodes) -> None:
    # Every node announces where its API is, so one endpoint is enough to ask them all.
    found = within(60, lambda: _whole(healthy(nodes, at="n1"), 3), "three nodes answer, asked through one")
    assert {node["role"] for node in found["nodes"]} == {"leader", "follower"}
    assert all(node["fsync_latency"]["samples"] for node in found["nodes"])

    # A node joins as a learner, is promoted, and is reached by the others although their settings do not name it.
    plan = nodes.prepare("n4", contacts=("n1", "n2"))
    nodes.start("n4")
    addresses = ("--address", f"127.0.0.1:{plan.raft_port}", "--api", f"127.0.0.1:{plan.http_port}")
    addresses += ("--gateway", f"127.0.0.1:{plan.gateway_port}")
    assert nodes.done("raft", "add", "n4", *addresses, "--learner") == "n4: added as a learner\n"
    within(30, lambda: (view := nodes.raft("n4")) and view["role"] == "learner" and view["has_quorum"], "n4 learns")
    assert nodes.done("raft", "promote", "n4") == "n4: votes\n"
    found = within(60, lambda: _whole(healthy(nodes, at="n4"), 4), "four nodes answer, asked through the new one")
    assert {node["member"] for node in found["nodes"]} == {"voter"}
    known = {node["node"]: node for node in nodes.client("n1").get("/cluster").body["nodes"]}
    assert known["n4"]["address"] == f"127.0.0.1:{plan.http_port}"
    within(20, lambda: _agents_known(nodes, "n1", "n4"), "n1 asks n4 for its agents")
    within(20, lambda: _agents_known(nodes, "n4", "n3"), "n4 asks n3, which its settings do not name")

    # The leadership is handed over where the operator wants it.
    target = next(name for name in ("n1", "n2", "n3") if name != found["leader"])
    assert nodes.done("raft", "transfer", target) == f"{target}: leads\n"
    assert nodes.leader() == target

    # A node dies: degraded, said, and exit code 2. It is replaced under a new id.
    dead = next(name for name in ("n1", "n2", "n3") if name != target)
    nodes.kill(dead)
    code, found = within(30, lambda: _degraded(nodes, at=target), "the loss is seen")
    assert any(line.startswith(f"{dead}: does not answer") for line in found["problems"]), found["problems"]
    plan = nodes.prepare("n5", contacts=(target, "n4"))
    nodes.start("n5")
    out = nodes.done(
        "raft", "replace", dead, "n5", "--address", f"127.0.0.1:{plan.raft_port}", "--yes", at=target, timeout_s=120
    )
    assert out == f"n5: added, and votes\n{dead}: removed\n"
    found = within(60, lambda: _whole(healthy(nodes, at=target), 4), "whole again")
    assert dead not in {node["node"] for node in found["nodes"]}

    # Its id is used up: the dead node's process refuses to run, and nobody adds it again.
    nodes.start(dead)
    within(30, lambda: not nodes.alive(dead), "the removed node ends by itself")
    code, _, err = nodes.flintctl("raft", "add", dead, "--address", "127.0.0.1:1", at=target)
    assert (code, "a removed id is never accepted again" in err) == (1, True)

    # A leader leaves for good; writes go on, and its process ends.
    nodes.client("n4").request("PUT", "/namespaces/demo", body={"spec": {}})
    out = nodes.done("raft", "leave", target, "--yes", at="n4")
    assert f"{target}: left" in out
    within(30, lambda: not nodes.alive(target), "the node that left ends by itself")
    nodes.client("n4").request("PUT", "/namespaces/demo2", body={"spec": {}})
    found = within(60, lambda: _whole(healthy(nodes, at="n4"), 3), "three nodes, one leader")
    assert (
        len({node["state_hash"] for node in found["nodes"] if node["state_hash_index"] == found["commit_index"]}) <= 1
    )

    # What is refused says why, and changes nothing.
    code, _, err = nodes.flintctl("raft", "remove", "n9", "--yes", at="n4")
    assert (code, "n9 is not a member of this cluster" in err) == (1, True)


def _whole(found: dict[str, Any] | None, count: int) -> dict[str, Any] | None:
    return found if found is not None and sum(node["answers"] for node in found["nodes"]) == count else None


def _degraded(nodes: Nodes, *, at: str) -> tuple[int, dict[str, Any]] | None:
    code, found = status(nodes, at=at)
    return (code, found) if code == 2 else None


def _agents_known(nodes: Nodes, asked: str, of: str) -> bool:
    known = nodes.client(asked).get("/cluster").body["nodes"]
    return any(node["node"] == of and node["agents"] is not None for node in known)


def test_one_survivor_goes_on_alone(nodes: Nodes) -> None:
    """Runs on what the day before left: three members."""
    found = within(60, lambda: _whole(healthy(nodes, at="n4"), 3), "three nodes")
    others = [node["node"] for node in found["nodes"] if node["node"] != "n4"]
    for name in others:
        nodes.kill(name)
    code, found = within(30, lambda: _leaderless(nodes), "nobody leads any more")
    assert code == 2
    assert "no leader: nothing can be written" in found["problems"]

    # While it runs, and without a word that the loss is accepted, nothing is done.
    config = str(nodes.layout.settings("n4"))
    accept = "--yes-i-lose-unreplicated-writes"
    code, _, err = nodes.flintctl("raft", "recover", "--config", config, accept)
    assert (code, "in use by another process" in err) == (1, True), err
    nodes.kill("n4")
    code, out, err = nodes.flintctl("raft", "recover", "--config", config)
    assert (code, "nothing was changed" in err, accept in err) == (1, True, True)
    assert "members then  n4, the only voter" in out
    assert "warning: " in out

    out = nodes.done("raft", "recover", "--config", config, accept)
    assert "n4: recovered, as the only member, in incarnation 2" in out
    nodes.start("n4")
    found = within(30, lambda: _whole(healthy(nodes, at="n4"), 1), "n4 leads alone")
    assert (found["leader"], found["incarnation"]) == ("n4", 2)
    client = nodes.client("n4")
    assert {each["name"] for each in client.get("/namespaces").body["items"]} >= {"demo", "demo2"}
    client.request("PUT", "/namespaces/demo3", body={"spec": {}})

    # The others come back with logs of the old incarnation: they are refused. A new node is welcome.
    nodes.start(others[0])
    plan = nodes.prepare("n6", contacts=("n4",))
    nodes.start("n6")
    nodes.done("raft", "add", "n6", "--address", f"127.0.0.1:{plan.raft_port}", at="n4", timeout_s=120)
    within(60, lambda: _whole(healthy(nodes, at="n4"), 2), "n4 and n6")
    view = nodes.raft(others[0])
    assert view is None or not view["has_quorum"]


def _leaderless(nodes: Nodes) -> tuple[int, dict[str, Any]] | None:
    code, found = status(nodes, at="n4")
    return (code, found) if found["leader"] is None else None
