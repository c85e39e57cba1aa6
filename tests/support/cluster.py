"""A real local cluster for tests: three nodes and three simulated hosts as processes on loopback, one per test session.

A test takes `cluster`, and finds and leaves it whole and empty. What exists is asked of three witnesses that must
agree: the API, the files of the hosts' drivers, and Terraform's state.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from acceptance.terraform.runner import Terraform
from provider_shim.mirror import cli_config, lay_out

from controlplane.cli.client import Client
from controlplane.cli.dev import processes, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.processes import ProcessId
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import ProblemError
from controlplane.drivers.simulated.store import Store

T = TypeVar("T")
POLL_S = 0.1
NODES = 3
HOSTS = 3
GC_SETTINGS = """\
gc:
  every_s: 0.5
  policy:
    failed_microvm_after_s: 15
    unmanaged_microvm_after_s: 15
    leftover_after_s: 15
    quarantined_volumes_after_s: 15
"""
Existing = tuple[str, str, str]
"""NAMESPACE/NAME, uid, host."""


def within(seconds: float, look: Callable[[], T | None], what: str) -> T:
    """The first answer of `look` that is neither None nor False, or a failure at the deadline."""
    give_up = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < give_up, f"{what}: not within {seconds:g} seconds"
        time.sleep(POLL_S)


# -- fixtures ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    directory = tmp_path_factory.mktemp("cluster")
    layout = setup.create(directory / "c", nodes=NODES, hosts=HOSTS, driver="simulated", say=lambda _: None)
    for node in layout.plan.nodes:
        with layout.settings(node.name).open("a") as settings:
            settings.write(GC_SETTINGS)
    cluster = DevCluster(layout, Progress())
    cluster.start()
    cluster.await_ready()
    yield cluster
    left = cluster.purge()
    assert not left, left


@pytest.fixture
def cluster(running_cluster: DevCluster) -> Iterator[DevCluster]:
    """The session's cluster with every process running and nothing declared, before and after the test."""
    make_whole(running_cluster)
    yield running_cluster
    make_whole(running_cluster)
    make_empty(running_cluster)


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLI configuration for Terraform whose mirror holds the provider."""
    directory = tmp_path_factory.mktemp("mirror")
    lay_out(directory, Path(sys.executable))
    return cli_config(directory, directory / "terraform.rc")


def make_whole(cluster: DevCluster) -> None:
    cluster.start()
    cluster.await_ready()


def make_empty(cluster: DevCluster) -> None:
    """Release what is held, delete everything that is declared, and wait until the hosts have confirmed it."""
    client = cluster.client()
    for held in client.get("/gc/holds").body["items"]:
        thing = {key: held[key] for key in ("kind", "namespace", "host", "name") if held[key] is not None}
        client.request("POST", "/gc/release", body=thing)
    cluster.delete_microvms()
    for collection in ("namespaces", "placementpolicies", "rolebindings", "roles", "hosts"):
        for each in items(client, f"/{collection}"):
            try:
                client.request("DELETE", f"/{collection}/{each['name']}")
            except ProblemError as problem:
                if problem.code != "not_found":  # an agent that nobody declared
                    raise


# -- processes ---------------------------------------------------------------------------------------------------------


def child_of(cluster: DevCluster, node: str, child: str) -> ProcessId | None:
    """A node's `front` or `raft` process, if it runs now."""
    parent = processes.recorded(cluster.layout.run_file(node))
    assert parent is not None
    wanted = f"controlplane.bootstrap.{child}".encode()
    return next((each for each in processes.session_of(parent) if wanted in command_line(each)), None)


def command_line(process: ProcessId) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it ended


# -- witnesses ---------------------------------------------------------------------------------------------------------


def items(client: Client, path: str) -> list[dict[str, Any]]:
    return client.get(path, {"limit": 5000}).body["items"]


def leader_of(cluster: DevCluster, client: Client | None = None) -> str:
    leader = (client or cluster.client()).get("/cluster").body["log"]["leader"]
    assert leader in {node.name for node in cluster.layout.plan.nodes}
    return leader


def declared(client: Client, *, deleting: bool = True) -> list[Existing]:
    """Every microVM as the API lists it, `deleting` ones among them if asked for; those that nobody placed yet are on
    host `-`."""
    return sorted(
        (f"{item['namespace']}/{item['name']}", item["uid"], item["status"]["host"] or "-")
        for item in items(client, "/microvms")
        if deleting or item["status"]["phase"] != "deleting"
    )


def on_drivers(cluster: DevCluster) -> list[Existing]:
    """Every microVM that the hosts' drivers hold, read from their own files."""
    found: list[Existing] = []
    for host in cluster.layout.plan.hosts:
        store = Store(cluster.layout.driver_state(host.name))
        try:
            found += [(f"{row.namespace}/{row.name}", row.uid or "unmanaged", host.name) for row in store.all()]
        finally:
            store.close()
    return sorted(found)


def in_state(terraform: Terraform) -> list[tuple[str, str]]:
    """NAMESPACE/NAME and uid of every microVM in Terraform's state."""
    found = terraform.resources()
    return sorted((each["id"], each["uid"]) for key, each in found.items() if key.startswith("flintlock_microvm."))


def assert_witnesses_agree(cluster: DevCluster, terraform: Terraform, *, count: int) -> None:
    """No duplicate and no orphan: the API, the drivers and Terraform's state have the same `count` microVMs."""
    client = cluster.client()
    within(
        20,
        lambda: (stored := declared(client)) == on_drivers(cluster) and len(stored) == count,
        f"the API and the drivers have the same {count} microVMs",
    )
    assert in_state(terraform) == [(name, uid) for name, uid, _ in declared(client)]


def assert_nothing_left(cluster: DevCluster) -> None:
    """Nothing is declared and no driver holds anything; agents that nobody declares stay known as pending."""
    client = cluster.client()
    assert declared(client) == []
    assert on_drivers(cluster) == []
    assert items(client, "/namespaces") == []
    assert items(client, "/placementpolicies") == []
    assert items(client, "/rolebindings") == items(client, "/roles") == []
    assert [host["name"] for host in items(client, "/hosts") if host["declared"]] == []
