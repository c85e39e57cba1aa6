"""Leases and failover on a real local cluster: processes on loopback, simulated guests.

A microVM that may move has one running copy at most, at any time that the test looks: that is read from the hosts' own
files, not from what the control plane believes.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.cluster import POLL_S, child_of, items, leader_of, make_whole, within

from controlplane.cli.client import Client
from controlplane.cli.dev.cluster import DevCluster
from controlplane.drivers.simulated.store import Store

TTL_S = 10.0
FENCED_S = 14.3
"""Since the grant, which is no sooner than the heartbeat that the lease counts from."""
SLACK_S = 12.0
"""For a machine that is as busy as CI's."""


@pytest.fixture
def client(cluster: DevCluster) -> Client:
    """Three ready hosts, and six microVMs that may move."""
    client = cluster.client()
    for host in cluster.layout.plan.hosts:
        client.request("PUT", f"/hosts/{host.name}", body={"spec": {}})
    client.request("PUT", "/namespaces/demo", body={"spec": {}})
    within(20, lambda: set(phases(client).values()) == {"ready"}, "every host is ready")
    spec = {
        "vcpu": 1,
        "memory_in_mb": 128,
        "kernel": {"image": "demo/kernel:6.1"},
        "recovery": {"on_host_failure": "restart_elsewhere"},
    }
    for number in range(6):
        client.request("PUT", f"/namespaces/demo/microvms/vm-{number}", body={"spec": spec})
    within(20, lambda: all(status["phase"] == "active" for status in microvms(client).values()), "all run")
    return client


def phases(client: Client) -> dict[str, str]:
    return {host["name"]: host["status"]["phase"] for host in items(client, "/hosts")}


def microvms(client: Client) -> dict[str, dict[str, object]]:
    return {vm["name"]: vm["status"] for vm in items(client, "/microvms")}


def on(client: Client, host: str) -> set[str]:
    return {name for name, status in microvms(client).items() if status["host"] == host}


def copies(cluster: DevCluster) -> dict[str, list[str]]:
    """The hosts whose driver has it, by microVM."""
    found: dict[str, list[str]] = {}
    for host in cluster.layout.plan.hosts:
        store = Store(cluster.layout.driver_state(host.name))
        try:
            for row in store.all():
                found.setdefault(str(row.name), []).append(host.name)
        finally:
            store.close()
    return found


def lease_ended_s(cluster: DevCluster, host: str) -> float:
    """How long ago the lease of a host ended, by its own clock and its driver's own file."""
    store = Store(cluster.layout.driver_state(host))
    try:
        lease = store.lease()
    finally:
        store.close()
    assert lease is not None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - lease.ends_s


def held(seconds: float, look: Callable[[], object], what: str) -> None:
    """It is so for all of that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert look(), what
        time.sleep(POLL_S)


def test_what_was_on_a_dead_host_runs_elsewhere_and_the_host_gives_its_copies_up(
    cluster: DevCluster, client: Client
) -> None:
    victim = str(microvms(client)["vm-0"]["host"])
    moving = on(client, victim)
    cluster.kill_member(victim)
    within(FENCED_S + SLACK_S, lambda: on(client, victim) != moving, "something is given up there")
    assert lease_ended_s(cluster, victim) > FENCED_S - TTL_S - 0.1, "given up while it could run there"
    assert phases(client)[victim] == "fenced"
    within(
        SLACK_S,
        lambda: all(status["phase"] == "active" and status["host"] != victim for status in microvms(client).values()),
        "all of it runs elsewhere",
    )
    assert {microvms(client)[name]["epoch"] for name in moving} == {2}
    make_whole(cluster)
    within(20, lambda: phases(client)[victim] == "ready", "the host is back")
    within(20, lambda: all(len(hosts) == 1 for hosts in copies(cluster).values()), "its own copies are gone")


@contextmanager
def stopped_front(cluster: DevCluster, node: str) -> Iterator[None]:
    front = child_of(cluster, node, "front")
    assert front is not None
    assert front.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        front.signal(signal.SIGCONT)
        make_whole(cluster)


def test_a_leader_whose_front_hangs_costs_no_host_its_lease(cluster: DevCluster, client: Client) -> None:
    leader = leader_of(cluster)
    other = next(node.name for node in cluster.layout.plan.nodes if node.name != leader)
    asked = cluster.client(node=other)
    with stopped_front(cluster, leader):
        # Meanwhile nobody leads.
        within(15, lambda: asked.get("/cluster").body["log"]["leader"] not in (leader, None), "another node leads")
        held(12, lambda: set(phases(asked).values()) <= {"ready", "suspect"}, "a host lost its lease")
        within(5, lambda: set(phases(asked).values()) == {"ready"}, "every host is ready")
