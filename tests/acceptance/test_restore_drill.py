"""The restore drill: a cluster with microVMs is backed up, destroyed, and restored from every kind of place.

What must hold afterwards: every node has the same state, namely that of the snapshot; writes work; nothing that runs on
a host was destroyed or started again; and a node with the old cluster's data is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cluster import on_drivers, within
from support.nodes import Nodes, started_nodes
from support.s3 import BUCKET, S3Server, s3_server

from controlplane.cli.errors import ProblemError

NAMES = ("n1", "n2", "n3")
SPEC = {"spec": {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}}


@dataclass
class World:
    nodes: Nodes
    s3: S3Server
    directory: Path

    @property
    def places(self) -> dict[str, str]:
        return {
            "directory": str(self.directory / "backups"),
            "archive": str(self.directory / "all.flsnap"),
            "s3": f"s3://{BUCKET}/drill",
        }

    def flintctl(self, *arguments: str) -> str:
        """Its standard output; S3 is reached by the environment, as on an operator's machine."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("FLINTLOCK_", "AWS_"))}
        environ |= self.nodes.layout.environment | self.s3.environment | {"HOME": str(self.directory)}
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def document(self, *arguments: str) -> Any:
        return json.loads(self.flintctl(*arguments, "-o", "json"))

    def raft_dir(self, node: str) -> Path:
        return self.nodes.layout.data(node) / "raft"

    def declare(self, name: str) -> dict[str, Any]:
        client = self.nodes.cluster.client()
        client.request("PUT", f"/namespaces/demo/microvms/{name}", body=SPEC)
        within(30, lambda: self.vm(name)["status"]["ready"], f"{name} is ready")
        return self.vm(name)

    def vm(self, name: str) -> dict[str, Any]:
        return self.nodes.cluster.client().get(f"/namespaces/demo/microvms/{name}").body

    def starts(self, name: str) -> int:
        """How often the guest was started, as its console says; waits for the host's agent."""
        path = f"/namespaces/demo/microvms/{name}/console"

        def console() -> str | None:
            try:
                return self.nodes.cluster.client().get(path, {"offset": 0, "limit": 65536}).text
            except ProblemError as problem:
                if problem.code != "host_unreachable":
                    raise
                return None

        return within(30, console, f"the console of {name} can be read").count(" started with ")

    def on_host(self) -> set[str]:
        return {name for name, _, _ in on_drivers(self.nodes.cluster)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("drill")
    with s3_server(directory / "s3") as s3, started_nodes(directory, nodes=3, hosts=1) as nodes:
        yield World(nodes, s3, directory)


def save_everywhere(world: World) -> dict[str, Any] | None:
    """One point of the state in every place; None when something was written in between."""
    for path in (world.directory / "backups", world.directory / "all.flsnap"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    with ThreadPoolExecutor() as pool:
        saves = {kind: pool.submit(world.document, "snapshot", "save", place) for kind, place in world.places.items()}
    saved = {kind: save.result() for kind, save in saves.items()}
    return saved["s3"] if len({each["index"] for each in saved.values()}) == 1 else None


def test_the_drill(world: World) -> None:
    nodes, client = world.nodes, world.nodes.cluster.client()
    client.request("PUT", "/hosts/h1", body={"spec": {}})
    client.request("PUT", "/namespaces/demo", body={"spec": {}})
    kept, doomed = world.declare("kept"), world.declare("deleted-since")

    saved = within(90, lambda: save_everywhere(world), "the same point is saved in three places")
    digests = {
        kind: world.document("snapshot", "verify", place)["items"][0]["digest"] for kind, place in world.places.items()
    }
    assert len(set(digests.values())) == 1

    made = world.declare("made-since")
    client.request("DELETE", "/namespaces/demo/microvms/deleted-since")
    within(30, lambda: "demo/deleted-since" not in world.on_host(), "what was deleted is gone from the host")
    before = world.on_host()
    assert before == {"demo/kept", "demo/made-since"}

    # Every node is destroyed; one old data directory turns up again later.
    for name in NAMES:
        nodes.kill(name)
    old = world.directory / "old-n3"
    world.raft_dir("n3").rename(old)
    for name in NAMES:
        shutil.rmtree(nodes.layout.data(name))

    for name, (kind, place) in zip(NAMES, world.places.items(), strict=True):
        arguments = ("snapshot", "restore", place, "--config", str(nodes.layout.settings(name)))
        assert "Nothing was written" in world.flintctl(*arguments, "--dry-run"), kind
        assert not world.raft_dir(name).exists()
        assert "Incarnation:  2" in world.flintctl(*arguments), kind
    for name in NAMES:
        scheduled = {"store": str(world.directory / "scheduled"), "every_s": 5, "keep": 2}
        nodes.write_settings(name, {**nodes.settings(name), "backup": scheduled})
    nodes.start(*NAMES)
    nodes.cluster.await_ready()

    # Every node has one state again, and that of the snapshot is what it grew from.
    views = within(30, lambda: _same_hash(nodes), "all nodes have one state hash at one index")
    assert {view["incarnation"] for view in views} == {2}
    assert all(view["last_index"] > saved["index"] for view in views)
    assert world.vm("kept")["uid"] == kept["uid"]
    client.request("PUT", "/namespaces/after", body={"spec": {}})

    # Backups go on by themselves, and every node sees it.
    for name in NAMES:
        within(60, lambda name=name: _backed_up(nodes, name, saved["index"]), f"{name} sees a scheduled backup")
    assert "Backup:" in world.flintctl("cluster", "status")

    # Hosts: nothing was destroyed, nothing that ran was started again, what is not known is only reported.
    within(
        60, lambda: world.on_host() >= {"demo/kept", "demo/made-since", "demo/deleted-since"}, "deleted is made again"
    )
    assert world.vm("deleted-since")["uid"] == doomed["uid"]
    within(30, lambda: world.vm("kept")["status"]["ready"], "what ran on is seen running")
    assert world.starts("kept") == 1
    drift = within(30, lambda: _unmanaged(world), "what the snapshot does not know is reported")
    assert drift == {made["uid"]}
    assert "demo/made-since" in world.on_host()

    # The old cluster's data is refused, and changes nothing.
    nodes.kill("n3")
    kept_aside = world.directory / "restored-n3"
    world.raft_dir("n3").rename(kept_aside)
    shutil.copytree(old, world.raft_dir("n3"))
    nodes.start("n3")
    log = nodes.layout.log("n3")
    within(30, lambda: "incarnation" in log.read_text(errors="replace"), "the old node says why nobody talks to it")
    client = nodes.client(nodes.leader())
    client.request("PUT", "/namespaces/after2", body={"spec": {}})
    view = nodes.raft("n3")
    assert view is None or (not view["has_quorum"] and view["incarnation"] == 1)
    peers = {peer["node"]: peer["connected"] for peer in client.get("/raft").body["peers"]}
    assert peers["n3"] is False

    # With its restored data it is whole again.
    if nodes.alive("n3"):
        nodes.kill("n3")
    shutil.rmtree(world.raft_dir("n3"))
    kept_aside.rename(world.raft_dir("n3"))
    nodes.start("n3")
    within(60, lambda: _same_hash(nodes), "all nodes are level")


def _same_hash(nodes: Nodes) -> list[dict[str, Any]] | None:
    views = [view for name in NAMES if (view := nodes.raft(name)) is not None]
    if len(views) != 3 or len({view["state_hash_index"] for view in views}) != 1:
        return None
    assert len({view["state_hash"] for view in views}) == 1
    return views


def _backed_up(nodes: Nodes, name: str, index: int) -> bool:
    backup = nodes.client(name).get("/cluster").body["backup"]
    return backup["error"] == "" and (backup["last_index"] or 0) > index and not backup["overdue"]


def _unmanaged(world: World) -> set[str] | None:
    items = world.nodes.cluster.client().get("/drift").body["items"]
    return {item["uid"] for item in items if item["class"] == "unmanaged"} or None
