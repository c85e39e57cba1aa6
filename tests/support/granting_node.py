"""A node's gateway that does as a test says: it welcomes, acknowledges, assigns, and grants or does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import msgspec
from grpc import aio

from controlplane.identity.files import TlsFiles
from controlplane.model.spec import MicroVMSpec
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc


@dataclass
class GrantingNode(rpc.AgentGatewayServicer):
    """`grants`: whether heartbeats are granted. `off_by` is added to the sequence that a grant answers."""

    name: str
    tls: TlsFiles
    address: str
    grants: bool = True
    admitted: bool = True
    ttl_s: float = 1.0
    grace_s: float = 30.0
    off_by: int = 0
    hellos: list[wire.Hello] = field(default_factory=list)
    observed: dict[str, wire.Observed] = field(default_factory=dict)
    granted: int = 0
    _assigned: dict[str, wire.Assignment] = field(default_factory=dict)
    _revision: int = 1
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: aio.Server | None = None

    async def start(self) -> None:
        self._server = aio.server()
        rpc.add_AgentGatewayServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [(self.tls.key.read_bytes(), self.tls.certificate.read_bytes())],
            root_certificates=self.tls.ca.read_bytes(),
            require_client_auth=True,
        )
        self._server.add_secure_port(self.address, credentials)
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def assign(self, uid: str, spec: MicroVMSpec, *, generation: int = 1) -> None:
        self._assigned[uid] = wire.Assignment(
            uid=uid,
            namespace="demo",
            name=uid,
            epoch=1,
            generation=generation,
            spec_json=msgspec.json.encode(spec),
        )
        self._revision += 1
        self._changed.set()

    async def Session(  # the wire's name
        self, request_iterator: AsyncIterator[wire.FromAgent], context: object
    ) -> AsyncIterator[wire.ToAgent]:
        outgoing: asyncio.Queue[wire.ToAgent] = asyncio.Queue()
        loops = [asyncio.create_task(self._read(request_iterator, outgoing)), asyncio.create_task(self._push(outgoing))]
        try:
            while True:
                yield await outgoing.get()
        finally:
            for loop in loops:
                loop.cancel()

    async def _read(self, incoming: AsyncIterator[wire.FromAgent], outgoing: asyncio.Queue[wire.ToAgent]) -> None:
        async for message in incoming:
            match message.WhichOneof("message"):
                case "hello":
                    self.hellos.append(message.hello)
                    welcome = wire.Welcome(cluster_id="test", node=self.name, admitted=self.admitted)
                    await outgoing.put(wire.ToAgent(welcome=welcome))
                    self._changed.set()
                case "heartbeat":
                    sequence = message.heartbeat.sequence
                    await outgoing.put(wire.ToAgent(heartbeat_ack=wire.HeartbeatAck(sequence=sequence)))
                    if self.grants:
                        self.granted += 1
                        ttl_ms, grace_ms = round(self.ttl_s * 1000), round(self.grace_s * 1000)
                        grant = wire.Grant(sequence=sequence + self.off_by, ttl_ms=ttl_ms, grace_ms=grace_ms)
                        await outgoing.put(wire.ToAgent(grant=grant))
                case "report":
                    if message.report.complete:
                        self.observed.clear()
                    self.observed.update({seen.uid: seen for seen in message.report.observed})
                case _:
                    pass

    async def _push(self, outgoing: asyncio.Queue[wire.ToAgent]) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self.hellos:
                assignments = wire.Assignments(revision=self._revision, assignments=self._assigned.values())
                await outgoing.put(wire.ToAgent(assignments=assignments))
