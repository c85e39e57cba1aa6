"""The audit chain of a real cluster: whatever is killed, each node's files hold the same whole chain, and no secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import requests
from support.cluster import child_of, within
from support.nodes import Nodes, started_nodes

SECRET = "hunter2-in-user-data"
SPEC = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}, "metadata": {"user-data": SECRET}}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with started_nodes(tmp_path) as running:
        yield running


def exports(nodes: Nodes, node: str) -> list[Path]:
    directory = Path(nodes.settings(node)["data_dir"]) / "audit"
    return sorted((nodes.layout.settings(node).parent / directory).glob("audit-*.jsonl"))


def exported(nodes: Nodes, node: str) -> bytes:
    return b"".join(path.read_bytes() for path in exports(nodes, node))


def head(nodes: Nodes) -> dict[str, Any] | None:
    """None: the chain has not begun."""
    return nodes.cluster.client().get("/audit", {"limit": 1, "newest": "true"}).body["head"]


def test_kills_between_apply_and_export_lose_and_double_nothing(nodes: Nodes) -> None:
    client = nodes.cluster.client()
    within(20, lambda: head(nodes), "the beginning of the chain")
    client.request("PUT", "/namespaces/demo", body={"spec": {}})
    names = [node.name for node in nodes.layout.plan.nodes]
    refused = requests.put(
        f"{nodes.layout.endpoint(names[0])}/api/v2/hosts/h9",
        json={"spec": {}},
        headers={"Authorization": f"Bearer flk_{SECRET}"},
        verify=str(nodes.layout.authority / "ca.crt"),
        timeout=30,
    )
    assert refused.status_code == 401
    # A node keeps what it refused for a moment, and may be killed with it.
    within(30, lambda: b'"status":401' in exported(nodes, names[0]), "the refusal in the chain")
    for number in range(30):
        client.request("PUT", f"/namespaces/n{number}", body={"spec": {}})
        if number % 6 == 3 and (front := child_of(nodes.cluster, names[number % 3], "front")) is not None:
            front.signal(SIGKILL)
        if number == 20:
            nodes.kill(names[1])
            nodes.start(names[1])
    client.request("PUT", "/namespaces/demo/microvms/web", body={"spec": SPEC})

    last = head(nodes)
    assert last is not None
    end = str(last["hash"]).encode()
    for name in names:
        within(30, lambda name=name: end in exported(nodes, name), f"all of the chain at {name}")
        shown = nodes.done("audit", "verify", "--live", *map(str, exports(nodes, name)))
        assert shown.startswith("Records 1 to "), shown
    common = min((exported(nodes, name) for name in names), key=len)
    assert all(exported(nodes, name).startswith(common) for name in names)
    records = [json.loads(line) for line in common.splitlines()]
    made = [each["name"] for each in records if each["outcome"] == "created" and each.get("kind") == "Namespace"]
    assert sorted(made) == sorted(["demo", *(f"n{number}" for number in range(30))])
    assert SECRET.encode() not in common
    assert nodes.layout.token_file.read_bytes().strip() not in common
