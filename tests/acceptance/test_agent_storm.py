"""What agents do when leases are not renewed: they stay where nobody leads, and leave a node that alone is cut off.

Each change of node is a committed AgentConnected. Fifty real agents and the real gateways of two nodes, over loopback
with mutual TLS; the third voter is the one that led.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from acceptance.agent_session.world import Cluster
from support.harness import Replica
from support.ports import free_ports

from controlplane.identity.authority import Authority
from controlplane.model.commands import AgentConnected

AGENTS = 50
LOSS_S = 5.0
"""Longer than agents wait for a grant."""
REAL = {"heartbeat_s": 1.0, "unresponsive_s": 2.5, "grantless_s": 2.0, "complete_report_s": 15.0, "resync_s": 10.0}
"""As agents are set by default."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Cluster]:
    ports = free_ports(2)
    made = Cluster(
        directory=tmp_path,
        replica=Replica(),
        authority=Authority.create(tmp_path / "ca", cluster_id="test"),
        ports={"n1": ports[0], "n2": ports[1]},
    )
    try:
        for node in made.ports:
            await made.start_node(node)
        hosts = [f"h{number}" for number in range(AGENTS)]
        await made.declared(*hosts)
        for host in hosts:
            made.start_agent(host, **REAL)
        await made.reaches(lambda: all(agent.node is not None for agent in made.agents.values()))
        await made.reaches(lambda: len(_granted(made)) == AGENTS)
        yield made
    finally:
        await made.close()


def _granted(fleet: Cluster) -> set[str]:
    return {each.host for keeper in fleet.keepers.values() for asked in keeper.asked for each in asked}


def _connections(fleet: Cluster) -> Counter[str]:
    return Counter(command.node for command in fleet.replica.commands if isinstance(command, AgentConnected))


def _lead(fleet: Cluster, leader: str | None) -> None:
    fleet.leader, fleet.replica.leaderless, fleet.replica.hears = leader, leader is None, ("n2",)
    for node, keeper in fleet.keepers.items():
        keeper.leads = node == leader


async def test_without_a_leader_anywhere_every_agent_stays(fleet: Cluster) -> None:
    before = _connections(fleet)
    assert before.total() == AGENTS
    _lead(fleet, None)
    await asyncio.sleep(LOSS_S)
    for keeper in fleet.keepers.values():
        keeper.asked.clear()
    _lead(fleet, "n2")
    await fleet.reaches(lambda: len(_granted(fleet)) == AGENTS)
    await asyncio.sleep(1.0)
    changes = _connections(fleet) - before
    assert not changes, f"{changes.total()} of {AGENTS} agents changed node and gained nothing by it"


async def test_a_node_that_alone_is_cut_off_is_left_at_once(fleet: Cluster) -> None:
    before = _connections(fleet)
    at_n1 = sum(agent.node == "n1" for agent in fleet.agents.values())
    assert 0 < at_n1 < AGENTS
    _lead(fleet, "n2")
    fleet.views["n1"].cut()
    began_s = asyncio.get_running_loop().time()
    await fleet.reaches(lambda: all(agent.node == "n2" for agent in fleet.agents.values()))
    assert asyncio.get_running_loop().time() - began_s < 4.5, "before half of a lease has passed"
    assert _connections(fleet) - before == Counter(n2=at_n1)
