"""The gateway of one node: a gRPC server that agents and other nodes dial, over mutual TLS only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import structlog
from grpc import aio

from controlplane.api.gateway.access import Doorkeeper
from controlplane.api.gateway.door import Door, DoorError
from controlplane.api.gateway.link import MAX_MESSAGE_BYTES, Link, RelayService
from controlplane.api.gateway.nodes import NodesTeller
from controlplane.api.gateway.renewals import LeadersKeeper, Renewals
from controlplane.api.gateway.renewing import Renewing
from controlplane.api.gateway.revoking import SessionCutter
from controlplane.api.gateway.sessions import Sessions, SessionService
from controlplane.api.gateway.staying import PERIOD_S, Advice, Adviser
from controlplane.api.gateway.trusting import TrustTeller
from controlplane.identity.files import TlsFiles
from controlplane.model.resources import Host, MicroVM
from controlplane.ports import Clock, CompactedError, Ids, LeaseGrantor, NodeView, Proposer, StateReader
from controlplane.ports.issuance import Issuer
from controlplane.ports.secrets import Vault, VaultError
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SERVER_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Two nodes that were given one port by mistake must not share it.
    ("grpc.so_reuseport", 0),
]
_STOP_GRACE_S = 1.0


class GatewayError(Exception):
    """The gateway cannot start; the message names what it was given."""


class Gateway:
    """`nodes` gives the gateway of every node as HOST:PORT, this one included; empty where it is not known. Other nodes
    are asked there, and agents are told to dial them. `keeper` grants while this node leads, never longer than
    `lease_ttl_s`; `leader` names the node that does. `view` is what this node believes. `issuer` renews
    certificates; None: nobody does. `vault` opens secrets; None: a host that has some is served by another node.
    """

    def __init__(
        self,
        node: str,
        cluster_id: str,
        reader: StateReader,
        proposer: Proposer,
        ids: Ids,
        clock: Clock,
        nodes: Callable[[], Mapping[str, str]],
        tls: TlsFiles,
        listen: str,
        keeper: LeaseGrantor,
        leader: Callable[[], str | None],
        lease_ttl_s: float,
        view: Callable[[], NodeView],
        issuer: Issuer | None = None,
        vault: Vault | None = None,
    ) -> None:
        self._node = node
        self._reader = reader
        self._sessions = Sessions()
        doorkeeper = Doorkeeper(cluster_id, reader, clock)
        self._link = Link(node=node, reader=reader, sessions=self._sessions, nodes=nodes, tls=tls, view=view)
        self._renewals = Renewals(LeadersKeeper(node, keeper, self._link, leader), self._sessions, clock)
        self._relay = RelayService(node=node, doorkeeper=doorkeeper, sessions=self._sessions, keeper=keeper, view=view)
        self._service = SessionService(
            node=node,
            cluster_id=cluster_id,
            reader=reader,
            proposer=proposer,
            ids=ids,
            clock=clock,
            nodes=nodes,
            doorkeeper=doorkeeper,
            renewing=Renewing(issuer, doorkeeper, self._sessions.get),
            sessions=self._sessions,
            heard=self._renewals.heard,
            lease_ttl_ms=ceil(lease_ttl_s * 1000),
            opened=vault.open if vault is not None else _no_vault,
        )
        self._door = Door(listen, tls, _SERVER_OPTIONS, self._furnish)
        self._trust = TrustTeller(reader, self._sessions, clock)
        self._nodes = NodesTeller(nodes, self._sessions, clock)
        self._cutter = SessionCutter(reader, self._sessions)
        self._adviser = Adviser(node, reader, self._link, clock, self._advise)
        self._loops: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The bound port, once started; `listen` may have asked for any."""
        return self._door.port

    @property
    def link(self) -> Link:
        """Implements `ports.AgentLink`."""
        return self._link

    async def start(self) -> None:
        """Raises GatewayError."""
        try:
            await self._door.open()
        except DoorError as error:
            raise GatewayError(str(error)) from error
        watching = (self._wake(), self._watch_leader(), self._cutter.run())
        loops = (*watching, self._renewals.run(), self._door.follow(), self._trust.run(), self._nodes.run())
        self._loops = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Say goodbye to every agent, so that they dial another node at once."""
        for session in self._sessions:
            session.end(f"node {self._node} is stopping")
        # One of them may be opening the door anew.
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        await self._door.close(_STOP_GRACE_S)
        await self._link.close()

    def _furnish(self, server: aio.Server) -> None:
        rpc.add_AgentGatewayServicer_to_server(self._service, server)
        rpc.add_NodeRelayServicer_to_server(self._relay, server)

    async def _wake(self) -> None:
        """Events only say whose session should look at the state again."""
        while True:
            try:
                async for event in self._reader.watch(None):
                    host = _host_of(event.object)
                    session = self._sessions.get(host) if host is not None else None
                    if session is not None:
                        session.wake()
            except CompactedError:
                log.info("fell behind the events")
            for session in self._sessions:
                session.wake()
            await asyncio.sleep(0.05)

    async def _watch_leader(self) -> None:
        """Without a leader a node can only acknowledge heartbeats: see `staying` for what its agents are told."""
        while True:
            try:
                await self._adviser.look()
            except Exception:
                log.exception("cannot tell what agents are to do without a leader")
            await asyncio.sleep(PERIOD_S)

    def _advise(self, advice: Advice) -> None:
        for session in self._sessions:
            if advice is Advice.STAY:
                session.send(wire.ToAgent(heartbeat_ack=wire.HeartbeatAck(leaderless=True)))
            elif advice is Advice.LEAVE:
                session.end(f"node {self._node} has no leader, and others may have one", retry_after_ms=200)


def _no_vault(vm: MicroVM) -> Mapping[str, str]:
    raise VaultError(f"microVM {vm.meta.namespace}/{vm.meta.name} has secrets, and this node no key ring")


def _host_of(subject: object) -> str | None:
    match subject:
        case MicroVM():
            return subject.placement.host if subject.placement is not None else None
        case Host():
            return subject.meta.name
        case _:
            return None
