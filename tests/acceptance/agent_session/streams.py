"""Sessions that a test speaks itself, message by message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
from acceptance.agent_session.world import WAIT_S, Cluster
from grpc import aio

from controlplane.identity.files import TlsFiles
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc


def hello(host: str, *, session: str = "s1", **changes: object) -> wire.FromAgent:
    fields: dict[str, object] = {
        "host": host,
        "session": session,
        "agent_version": "0",
        "boot_id": "b",
        "drivers": [wire.Driver(name="simulated", version="1", simulated=True)],
        "capacity": wire.Amount(vcpu=4, memory_in_mb=4096),
        "protocol": 1,
    }
    return wire.FromAgent(hello=wire.Hello(**{**fields, **changes}))


async def read(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]) -> wire.ToAgent:
    message = await asyncio.wait_for(stream.read(), WAIT_S)
    assert isinstance(message, wire.ToAgent), f"the node closed the stream: {await stream.details()}"
    return message


async def read_one(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent], kind: str) -> wire.ToAgent:
    """The next message of this kind, past others."""
    while True:
        message = await read(stream)
        if message.WhichOneof("message") == kind:
            return message


async def read_to_end(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]) -> None:
    while True:
        await read(stream)


async def heartbeat(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent], sequence: int) -> None:
    await stream.write(wire.FromAgent(heartbeat=wire.Heartbeat(sequence=sequence)))


def channel(cluster: Cluster, tls: TlsFiles, node: str) -> aio.Channel:
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes())
    return aio.secure_channel(cluster.addresses[node], credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@contextlib.asynccontextmanager
async def raw_session(
    cluster: Cluster, host: str, *, node: str = "n1", tls: TlsFiles | None = None
) -> AsyncIterator[aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]]:
    async with channel(cluster, tls or cluster.certificate("host", host), node) as opened:
        stream = rpc.AgentGatewayStub(opened).Session()
        try:
            yield stream
        finally:
            stream.cancel()
