"""Heartbeats reach the leader through any node, and what it grants comes back."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from acceptance.agent_session.streams import channel, heartbeat, hello, raw_session, read_one
from acceptance.agent_session.world import Cluster
from grpc import aio
from support.builders import detached, fenced, resurrect

from controlplane.model.resources import HostPhase
from controlplane.model.spec import HostFailure, Recovery
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_heartbeat_at_any_node_is_granted_by_the_leader(cluster: Cluster, node: str) -> None:
    await cluster.start_node("n1")
    await cluster.start_node("n2")
    await cluster.declared()
    async with raw_session(cluster, "h1", node=node) as stream:
        await stream.write(hello("h1", session="s7"))
        await read_one(stream, "welcome")
        await heartbeat(stream, 1)
        await heartbeat(stream, 2)
        grant = (await read_one(stream, "grant")).grant
        assert grant.sequence in (1, 2)
        assert (grant.ttl_ms, grant.grace_ms) == (10_000, 2_000)
    ((asked, *_), *_) = cluster.keepers["n1"].asked
    assert (asked.host, asked.session) == ("h1", "s7")
    assert cluster.keepers["n2"].asked == []


async def test_a_new_leader_is_asked_what_the_last_one_left_open(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    await cluster.start_node("n2")
    await cluster.declared()
    async with raw_session(cluster, "h1", node="n1") as stream:
        await stream.write(hello("h1"))
        await read_one(stream, "welcome")
        # n1 is deposed, and nobody knows whom to ask; then n2 leads, which does not know it at first.
        cluster.keepers["n1"].leads = False
        await heartbeat(stream, 5)
        assert (await read_one(stream, "heartbeat_ack")).heartbeat_ack.sequence == 5, "the node is alive"
        cluster.leader = None
        await asyncio.sleep(0.3)
        cluster.leader = "n2"
        await asyncio.sleep(0.3)
        cluster.keepers["n2"].leads = True
        assert (await read_one(stream, "grant")).grant.sequence == 5
    assert cluster.keepers["n1"].asked == []


async def test_a_node_that_does_not_lead_says_so_to_other_nodes(cluster: Cluster) -> None:
    cluster.leader = "n2"
    await cluster.start_node("n1")
    request = wire.GrantRequest(heard=[wire.Heard(host="h1", session="s1", sequence=1)])
    async with channel(cluster, cluster.certificate("node", "n2"), "n1") as opened:
        with pytest.raises(aio.AioRpcError, match="this node does not lead") as refused:
            await rpc.NodeRelayStub(opened).Grant(request)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_what_is_not_granted_is_acknowledged_all_the_same(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    await cluster.declared()
    cluster.keepers["n1"].refused = {"h1"}
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1"))
        await read_one(stream, "welcome")
        for sequence in (1, 2):
            await heartbeat(stream, sequence)
            await read_one(stream, "heartbeat_ack")
            await cluster.reaches(lambda sequence=sequence: len(cluster.keepers["n1"].asked) == sequence)
        cluster.keepers["n1"].refused = set()
        await heartbeat(stream, 3)
        assert (await read_one(stream, "grant")).grant.sequence == 3


@pytest.mark.parametrize(("held_ms", "committed_ms"), [(0, 10_000), (9_000, 10_000), (25_000, 25_000)])
async def test_the_longest_lease_that_may_be_out_is_committed_first(
    cluster: Cluster, held_ms: int, committed_ms: int
) -> None:
    await cluster.start_node("n1")
    await cluster.declared()
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1", held_ttl_ms=held_ms))
        await read_one(stream, "welcome")
        assert cluster.replica.state.hosts["h1"].lease_ttl_ms == committed_ms


async def test_a_host_that_is_detached_is_sent_away_and_rejoins(cluster: Cluster) -> None:
    """It is told what to destroy and what is still placed there, and is ready once it confirmed the one."""
    await cluster.start_node("n1")
    await cluster.declared("h1", "h2", "h3")
    drivers = [wire.Driver(name="simulated", version="1", simulated=True, fences=True)]
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1", session="s1", drivers=drivers))
        await read_one(stream, "welcome")
        moving = await cluster.place("moving", recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE))
        staying = await cluster.place("staying")
        await read_one(stream, "assignments")
        await cluster.replica.accept(detached("h1", session="s1"))
        goodbye = (await read_one(stream, "goodbye")).goodbye
        assert goodbye.reason == "host h1 is detached: its lease ended; it may dial in again"
    await cluster.replica.accept(fenced("h1"))
    await cluster.replica.accept(resurrect(moving))
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1", session="s2", drivers=drivers))
        await read_one(stream, "welcome")
        assigned = (await read_one(stream, "assignments")).assignments
        assert {each.uid: (each.destroy, each.epoch) for each in assigned.assignments} == {
            moving.meta.uid: (True, 1),
            staying.meta.uid: (False, 1),
        }
        await stream.write(wire.FromAgent(report=wire.Report(complete=True, assignments_revision=assigned.revision)))
        assert cluster.replica.state.hosts["h1"].phase is HostPhase.REJOINING
        gone = wire.Confirmed(uid=moving.meta.uid, epoch=1)
        await stream.write(wire.FromAgent(report=wire.Report(assignments_revision=assigned.revision, destroyed=[gone])))
        await cluster.reaches(lambda: cluster.replica.state.hosts["h1"].phase is HostPhase.READY)
        assert cluster.replica.state.hosts["h1"].stale == {}
        last = (await read_one(stream, "assignments")).assignments
        assert [each.uid for each in last.assignments] == [staying.meta.uid]
