"""Hellos, reports and certificates that a node refuses: it says why, and nothing changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from acceptance.agent_session.streams import channel, hello, raw_session, read, read_to_end
from acceptance.agent_session.world import WAIT_S, Cluster
from grpc import aio

from controlplane.identity.authority import Authority
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (hello("h2"), grpc.StatusCode.PERMISSION_DENIED, "hello.host: .* host h1 of cluster test, which may not"),
        (hello("h1", cluster_id="other"), grpc.StatusCode.FAILED_PRECONDITION, "hello.cluster_id: the host belongs"),
        (hello("h1", protocol=7), grpc.StatusCode.INVALID_ARGUMENT, "hello.protocol: 7; this node speaks 1"),
        (hello("h1", session=""), grpc.StatusCode.INVALID_ARGUMENT, "hello.session: missing"),
        (hello("h1", drivers=[]), grpc.StatusCode.INVALID_ARGUMENT, "hello.drivers: 0"),
        (
            hello("h1", held_ttl_ms=3_600_001),
            grpc.StatusCode.INVALID_ARGUMENT,
            "hello.held_ttl_ms: 3600001 is not between 0 and 3600000",
        ),
        (hello("h1", capacity=wire.Amount()), grpc.StatusCode.INVALID_ARGUMENT, "hello.capacity.vcpu: 0"),
        (
            wire.FromAgent(heartbeat=wire.Heartbeat(sequence=1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "hello: missing; it is the first message",
        ),
    ],
)
async def test_a_hello_that_cannot_be_accepted(
    cluster: Cluster, message: wire.FromAgent, code: grpc.StatusCode, says: str
) -> None:
    await cluster.start_node("n1")
    digest = cluster.replica.state.digest
    async with raw_session(cluster, "h1") as stream:
        await stream.write(message)
        with pytest.raises(aio.AioRpcError, match=says) as refused:
            await asyncio.wait_for(stream.read(), WAIT_S)
    assert refused.value.code() is code
    assert cluster.replica.state.digest == digest


async def test_a_report_that_makes_no_sense_ends_the_session_and_names_the_field(ready: Cluster) -> None:
    await ready.stop_agent()
    async with raw_session(ready, "h1") as stream:
        await stream.write(hello("h1", boot_id=ready.boot_id()))
        assert (await read(stream)).HasField("welcome")
        observed = wire.Observed(uid="vm-web", epoch=1, power="levitating")
        await stream.write(wire.FromAgent(report=wire.Report(observed=[observed])))
        with pytest.raises(aio.AioRpcError, match=r"observed.vm-web.power: 'levitating' is not one of"):
            await read_to_end(stream)


async def test_a_node_certificate_opens_no_session(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    async with raw_session(cluster, "h1", tls=cluster.certificate("node", "n2")) as stream:
        # It is refused for what it is; a hello could come too late to be written.
        with pytest.raises(aio.AioRpcError, match="belongs to node n2 of cluster test, which may not act") as refused:
            await asyncio.wait_for(stream.read(), WAIT_S)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_host_certificate_asks_no_questions(ready: Cluster) -> None:
    async with channel(ready, ready.certificate("host", "h1"), "n1") as opened:
        stub = rpc.NodeRelayStub(opened)
        for call in (
            stub.Presence(wire.PresenceRequest()),
            stub.Ask(wire.AskRequest(host="h1", question=wire.Question(console=wire.ConsoleRequest(uid="x")))),
            stub.Grant(wire.GrantRequest(heard=[wire.Heard(host="h1", session="s", sequence=1)])),
        ):
            with pytest.raises(
                aio.AioRpcError, match=r"belongs to host h1 of cluster test, which may not \w+ Relay"
            ) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_certificate_of_another_authority_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.start_node("n1")
    stranger = Authority.create(tmp_path / "other-ca", cluster_id="other").issue_host("h1", tmp_path / "other")
    mixed = replace(stranger, ca=cluster.certificate("host", "h1").ca)
    async with raw_session(cluster, "h1", tls=mixed) as stream:
        with pytest.raises(aio.AioRpcError) as refused:
            await asyncio.wait_for(stream.read(), WAIT_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not cluster.replica.commands


async def test_a_connection_without_a_certificate_is_not_let_in(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    credentials = grpc.ssl_channel_credentials(cluster.certificate("host", "h1").ca.read_bytes())
    async with aio.secure_channel(cluster.addresses["n1"], credentials) as opened:
        with pytest.raises(aio.AioRpcError) as refused:
            await rpc.NodeRelayStub(opened).Presence(wire.PresenceRequest())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
