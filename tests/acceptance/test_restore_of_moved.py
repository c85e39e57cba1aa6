"""A cluster is restored to a state of before a microVM was restarted elsewhere, while both hosts run.

The restored state names the host that was lost then, and the other one runs the newer copy: both are well and may have
a lease. The hosts' own files are watched all the time: two copies never run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.cluster import items, within
from support.copies import running
from support.nodes import Nodes, started_nodes

SPEC = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}
MOVES = {**SPEC, "recovery": {"on_host_failure": "restart_elsewhere"}}
LOOK_S = 0.1


def hosts_of(nodes: Nodes, name: str = "web") -> list[str]:
    """Those on which it runs now."""
    return running(nodes.cluster).get(name, [])


@contextmanager
def watched(look: Callable[[], list[str]]) -> Iterator[list[list[str]]]:
    """Every answer of `look` meanwhile that names more than one host."""
    too_many: list[list[str]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_S):
            if len(found := look()) > 1:
                too_many.append(found)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield too_many
    finally:
        over.set()
        watching.join()


def status(nodes: Nodes, name: str = "web") -> dict[str, Any]:
    return nodes.cluster.client().get(f"/namespaces/demo/microvms/{name}").body["status"]


def phases(nodes: Nodes) -> dict[str, str]:
    return {host["name"]: host["status"]["phase"] for host in items(nodes.cluster.client(), "/hosts")}


def declare(nodes: Nodes, name: str, spec: dict[str, Any]) -> None:
    nodes.cluster.client().request("PUT", f"/namespaces/demo/microvms/{name}", body={"spec": spec})


def test_a_restored_state_starts_no_second_copy(tmp_path: Path) -> None:
    with started_nodes(tmp_path, nodes=1, hosts=2) as nodes:
        client = nodes.cluster.client()
        for host in ("h1", "h2"):
            client.request("PUT", f"/hosts/{host}", body={"spec": {}})
        client.request("PUT", "/namespaces/demo", body={"spec": {}})
        within(20, lambda: set(phases(nodes).values()) == {"ready"}, "both hosts are ready")
        declare(nodes, "web", MOVES)
        within(20, lambda: status(nodes)["ready"], "it runs")
        first = status(nodes)["host"]
        other = "h2" if first == "h1" else "h1"
        nodes.done("snapshot", "save", str(tmp_path / "backup"))
        with watched(lambda: hosts_of(nodes)) as too_many:
            nodes.kill(first)
            within(40, lambda: status(nodes)["ready"] and status(nodes)["host"] == other, "it runs elsewhere")
            nodes.start(first)
            within(20, lambda: phases(nodes)[first] == "ready", "the host that was lost is back")

            nodes.kill("n1")
            (nodes.layout.data("n1") / "raft").rename(tmp_path / "raft.old")
            config = str(nodes.layout.settings("n1"))
            nodes.done("snapshot", "restore", str(tmp_path / "backup"), "--config", config)
            assert hosts_of(nodes) == [other], "the copy that the restored state does not know"
            nodes.start("n1")
            nodes.cluster.await_ready()
            declare(nodes, "new", SPEC)

            within(40, lambda: status(nodes)["ready"] and hosts_of(nodes) == [first], "it runs again")
            within(20, lambda: set(phases(nodes).values()) == {"ready"}, "both hosts are ready")
        assert not too_many
        assert (status(nodes)["host"], status(nodes)["epoch"]) == (first, 1)
        within(20, lambda: status(nodes, "new")["ready"], "what was declared meanwhile is placed")
        assert status(nodes, "new")["epoch"] == 1_000_001
        left = [each for each in client.get("/drift").body["items"] if each["class"] == "unmanaged"]
        assert [each["host"] for each in left] == [other], "the newer copy is kept, and does not run"
