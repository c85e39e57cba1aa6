"""One replica with nodes and agents around it, for every test of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from acceptance.agent_session.world import Cluster
from support.harness import Replica
from support.ports import free_ports

from controlplane.identity.authority import Authority


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    ports = free_ports(2)
    made = Cluster(
        directory=tmp_path,
        replica=Replica(),
        authority=Authority.create(tmp_path / "ca", cluster_id="test"),
        ports={"n1": ports[0], "n2": ports[1]},
    )
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def ready(cluster: Cluster) -> Cluster:
    """One node, one host that is declared and connected."""
    await cluster.start_node("n1")
    await cluster.declared()
    cluster.start_agent()
    await cluster.connected()
    return cluster
