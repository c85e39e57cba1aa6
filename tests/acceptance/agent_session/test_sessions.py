"""An agent finds a node that can serve it, and of its sessions only the newest counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest
from acceptance.agent_session.streams import hello, raw_session, read, read_one
from acceptance.agent_session.world import Cluster
from support.builders import declare_microvm, place

from controlplane.agent.statedir import NODES
from controlplane.model.commands import AgentLost, Destroyed, Report


async def test_the_agent_dials_another_node_when_its_own_stops(ready: Cluster) -> None:
    await ready.start_node("n2")
    await ready.place()
    await ready.settled()
    await ready.stop_node("n1")
    await ready.reaches(lambda: ready.agents["h1"].node == "n2")
    await ready.reaches(lambda: ready.replica.state.hosts["h1"].node == "n2")
    await ready.place("second")
    await ready.settled("second")


async def test_the_agent_hears_of_nodes_that_came_after_its_welcome(cluster: Cluster) -> None:
    """While its session lasts, every node that its welcome named may be replaced; it still knows them when it starts
    again."""
    later = cluster.ports.pop("n2")
    await cluster.start_node("n1")
    await cluster.declared("h1", "h2")
    cluster.start_agent()
    await cluster.connected()
    async with raw_session(cluster, "h2") as stream:
        await stream.write(hello("h2"))
        assert [each.node for each in (await read(stream)).welcome.endpoints] == ["n1"]
        cluster.ports["n2"] = later
        while [each.node for each in (await read_one(stream, "nodes")).nodes.endpoints] != ["n1", "n2"]:
            pass
    await cluster.start_node("n2")
    await cluster.stop_node("n1")
    await cluster.reaches(lambda: cluster.agents["h1"].node == "n2")
    await cluster.stop_agent()
    cluster.start_agent(endpoints={"n1": cluster.addresses["n1"]})
    await cluster.reaches(lambda: cluster.agents["h1"].node == "n2")


@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff", b'{"n2": 3}'])
async def test_what_an_agent_remembers_of_nodes_may_be_damaged(ready: Cluster, damage: bytes) -> None:
    await ready.stop_agent()
    file = ready.directory / "h1" / NODES
    assert json.loads(file.read_bytes()) == ready.addresses
    file.write_bytes(damage)
    ready.start_agent()
    await ready.connected()


async def test_the_agent_leaves_a_node_that_is_cut_off_from_the_cluster(ready: Cluster) -> None:
    await ready.start_node("n2")
    ready.views["n1"].cut()
    await ready.place()
    await ready.reaches(lambda: ready.agents["h1"].node == "n2")
    await ready.settled()


async def test_the_agent_leaves_a_node_that_does_not_answer(cluster: Cluster) -> None:
    """The kernel accepts connections to n1 and nobody says anything, as with a stopped process."""
    with socket.create_server(("127.0.0.1", cluster.ports["n1"])):
        await cluster.start_node("n2")
        await cluster.declared()
        cluster.start_agent(connect_timeout_s=0.5)
        await cluster.reaches(lambda: cluster.agents["h1"].node == "n2")


async def test_a_report_whose_outcome_was_lost_is_repeated_without_harm(ready: Cluster) -> None:
    ready.replica.lose_outcomes = 3
    with contextlib.suppress(Exception):
        await ready.replica.propose(declare_microvm(), actor="alice")
    with contextlib.suppress(Exception):
        await ready.replica.propose(place(ready.vm()), actor="alice")
    await ready.settled()
    assert ready.replica.lose_outcomes == 0
    assert len(await ready.drivers["h1"].list()) == 1


async def test_reports_wait_for_a_leader(ready: Cluster) -> None:
    await ready.place()
    ready.replica.leaderless = True
    await ready.tamper("create", "stranger")
    await asyncio.sleep(0.3)
    assert not ready.replica.state.hosts["h1"].unmanaged
    ready.replica.leaderless = False
    await ready.reaches(lambda: bool(ready.replica.state.hosts["h1"].unmanaged))
    await ready.settled()


async def test_a_session_that_is_no_longer_the_hosts_ends_and_a_new_one_begins(ready: Cluster) -> None:
    session = ready.replica.state.hosts["h1"].session
    assert session is not None
    await ready.replica.accept(AgentLost(host="h1", session=session, reason="test"))
    await ready.reaches(lambda: ready.replica.state.hosts["h1"].session not in (None, session))
    await ready.place()
    await ready.settled()


async def test_the_newest_session_of_a_host_is_its_only_one(ready: Cluster) -> None:
    """A second agent with the host's certificate takes over; the first is told goodbye by its node."""
    first = ready.replica.state.hosts["h1"].session
    async with raw_session(ready, "h1", node="n1") as stream:
        await stream.write(hello("h1", session="second", boot_id=ready.boot_id()))
        welcome = await read(stream)
        assert welcome.welcome.node == "n1"
        assert ready.replica.state.hosts["h1"].session == "second"
        await ready.reaches(lambda: ready.replica.state.hosts["h1"].session not in (first, "second"))
        while (message := await read(stream)).WhichOneof("message") != "goodbye":
            assert message.WhichOneof("message") == "assignments"
        assert "another session" in message.goodbye.reason


async def test_an_older_session_cannot_report(ready: Cluster) -> None:
    vm = await ready.place()
    await ready.settled()
    before = ready.replica.state.digest
    outcome = await ready.replica.propose(
        Report(host="h1", session="an-old-one", destroyed=[Destroyed(uid=vm.meta.uid, epoch=vm.epoch)]), actor="x"
    )
    assert outcome.code == "stale"
    assert ready.replica.state.digest == before
