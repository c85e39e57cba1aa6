"""Nodes are upgraded one by one to a build that knows more: nobody stops, and what is new waits for the last one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import make_whole, within

from controlplane.cli.client import Client
from controlplane.cli.dev import processes, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.progress import Progress
from controlplane.cli.errors import ProblemError

NEXT_BUILD = Path(__file__).parents[1] / "support" / "next_build"
POLICY = "/failoverpolicies/patient"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[DevCluster]:
    """Three nodes of this build."""
    layout = setup.create(tmp_path / "c", nodes=3, hosts=1, driver="simulated", say=lambda _: None)
    cluster = DevCluster(layout, Progress())
    cluster.start()
    cluster.await_ready()
    yield cluster
    assert not cluster.purge()


def _stop(cluster: DevCluster, node: str) -> None:
    parent = processes.recorded(cluster.layout.run_file(node))
    assert parent is not None
    assert processes.stop([parent], grace_s=30) == []


def _upgrade(cluster: DevCluster, node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop(cluster, node)
    with monkeypatch.context() as environ:
        environ.setenv("PYTHONPATH", str(NEXT_BUILD))
        cluster.start([node])
    cluster.await_ready()


def _declare_what_is_new(client: Client) -> None:
    client.request("PUT", POLICY, body={"spec": {}})


def test_what_the_next_build_brings_waits_for_every_node(fresh: DevCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (node.name for node in fresh.layout.plan.nodes)
    through_first = fresh.client(node=first, retry_for_s=0)

    for node, late in ((first, f"{second} (1), {third} (1)"), (second, f"{third} (1)")):
        _upgrade(fresh, node, monkeypatch)
        with pytest.raises(ProblemError, match="needs machine version 2") as refused:
            _declare_what_is_new(through_first)
        assert refused.value.code == "upgrade_pending"
        within(10, lambda late=late: late in _refusal(through_first), f"the refusal names {late}")
        # What every node knows goes on.
        fresh.client().request("PUT", f"/namespaces/during-{node}", body={"spec": {}})
    assert fresh.client().get("/cluster").body["machine_version"] == 1

    _upgrade(fresh, third, monkeypatch)
    within(30, lambda: through_first.get("/cluster").body["machine_version"] == 2, "the version rises by itself")
    _declare_what_is_new(through_first)
    assert through_first.get(POLICY).body["name"] == "patient"

    # Back to the build of before: that node ends, says why, and the others go on.
    _stop(fresh, second)
    fresh.start([second])
    within(30, lambda: processes.recorded(fresh.layout.run_file(second)) is None, "the older build stops")
    assert "machine version is 2 from here on; this build knows 1" in fresh.log_tail(second, lines=200)
    fresh.client().request("PUT", "/namespaces/afterwards", body={"spec": {}})
    with monkeypatch.context() as environ:
        environ.setenv("PYTHONPATH", str(NEXT_BUILD))
        make_whole(fresh)


def _refusal(client: Client) -> str:
    with pytest.raises(ProblemError) as refused:
        _declare_what_is_new(client)
    return str(refused.value)
