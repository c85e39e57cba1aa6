"""What nodes ask each other: questions to agents, whatever node they dialled, the leader for leases, all of them for
what they believe.

Between nodes the question travels over mutual TLS with the node's own certificate. The relay answers only for sessions
of its own, and for the leases that it keeps itself, and never passes a question on, so two nodes with different views
of the state cannot send it round in circles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc import aio

from controlplane.api.gateway.access import Doorkeeper
from controlplane.api.gateway.found import decode_definition
from controlplane.api.gateway.sessions import Sessions
from controlplane.api.gateway.translate import (
    WireError,
    decode_bids,
    decode_grants,
    decode_observation,
    decode_plan,
    decode_view,
    encode_bid_requests,
    encode_grants,
    encode_view,
    raise_error,
)
from controlplane.identity.files import TlsFiles
from controlplane.identity.reloading import Stamp, stamp
from controlplane.model.resources import Bid, Observation
from controlplane.ports import (
    BidRequestItem,
    Grant,
    Heartbeat,
    HostUnreachableError,
    LeaseGrantor,
    LogError,
    NodeView,
    NoLeaderError,
    PlanItem,
    Presence,
    StateReader,
    Told,
)
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_ASK_S = 60.0
MAX_GRANT_S = 5.0
_UNASKED = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "it did not answer in time",
    grpc.StatusCode.UNAVAILABLE: "it cannot be reached",
    grpc.StatusCode.UNIMPLEMENTED: "its version does not tell",
}
"""Why a node's view is not known."""
_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]


class Link:
    """Implements `ports.AgentLink` and `ports.NodeLink`."""

    def __init__(
        self,
        *,
        node: str,
        reader: StateReader,
        sessions: Sessions,
        nodes: Callable[[], Mapping[str, str]],
        tls: TlsFiles,
        view: Callable[[], NodeView],
    ) -> None:
        """`nodes` gives the gateway of every node; empty where it is not known. `view`: what this node believes."""
        self._node = node
        self._reader = reader
        self._sessions = sessions
        self._nodes = nodes
        self._tls = tls
        self._view = view
        self._channels: dict[str, tuple[tuple[str, Stamp], aio.Channel]] = {}
        """By node, with the address that was dialled and the files that were shown."""
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for _, channel in channels.values():
            await channel.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        bids: dict[str, Bid] = {}
        for request in encode_bid_requests(items):
            answer = await self._ask(host, wire.Question(bid=request), timeout_s=timeout_s)
            bids.update(decode_bids(host, request.items, answer))
        return bids

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        question = wire.Question(console=wire.ConsoleRequest(uid=uid, offset=offset, limit=limit))
        answer = await self._ask(host, question, timeout_s=timeout_s)
        raise_error(answer)
        return answer.console.next_offset, answer.console.data

    async def detail(self, host: str, uid: str, *, timeout_s: float) -> Observation:
        """What the agent sees now, before it went through the log. Raises HostUnreachableError, DriverError."""
        question = wire.Question(detail=wire.DetailRequest(uid=uid))
        answer = await self._ask(host, question, timeout_s=timeout_s)
        raise_error(answer)
        try:
            return decode_observation(host, answer.detail.observed)
        except WireError as error:
            raise HostUnreachableError(f"host {host} answered what cannot be read: {error}") from error

    async def plan(self, host: str, *, timeout_s: float) -> Sequence[PlanItem]:
        answer = await self._ask(host, wire.Question(plan=wire.PlanRequest()), timeout_s=timeout_s)
        raise_error(answer)
        try:
            return decode_plan(answer)
        except WireError as error:
            raise HostUnreachableError(f"host {host} answered what cannot be read: {error}") from error

    async def definition(self, host: str, uid: str, *, timeout_s: float) -> Told:
        question = wire.Question(definition=wire.DefinitionRequest(uid=uid))
        answer = await self._ask(host, question, timeout_s=timeout_s)
        raise_error(answer)
        try:
            return decode_definition(answer.definition)
        except WireError as error:
            raise HostUnreachableError(f"host {host} answered what cannot be read: {error}") from error

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        peers = [node for node in sorted(self._nodes()) if node != self._node]
        answers = await asyncio.gather(*(self._presence_at(node, timeout_s) for node in peers))
        present = local_presence(self._node, self._sessions)
        silent: list[str] = []
        for node, answer in zip(peers, answers, strict=True):
            if answer is None:
                silent.append(node)
            else:
                present += answer
        return present, silent

    async def grant(self, leader: str, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        """What the node `leader` grants. Raises NoLeaderError when it does not lead, or does not answer."""
        heard = [wire.Heard(host=each.host, session=each.session, sequence=each.sequence) for each in asked]
        try:
            reply = await self._stub(leader).Grant(wire.GrantRequest(heard=heard), timeout=timeout_s)
        except aio.AioRpcError as error:
            raise NoLeaderError(f"node {leader} grants nothing: {error.details() or error.code().name}") from None
        except OSError as error:
            raise NoLeaderError(f"node {leader} cannot be asked: {error}") from error
        return decode_grants(reply.granted)

    async def views(self, *, timeout_s: float) -> Mapping[str, NodeView | str]:
        peers = [node for node in sorted(self._nodes()) if node != self._node]
        answers = await asyncio.gather(*(self._view_of(node, timeout_s) for node in peers))
        return {self._node: self._view(), **dict(zip(peers, answers, strict=True))}

    async def _view_of(self, node: str, timeout_s: float) -> NodeView | str:
        try:
            return decode_view(await self._stub(node).View(wire.ViewRequest(), timeout=timeout_s))
        except aio.AioRpcError as error:
            return _UNASKED.get(error.code()) or f"{error.details() or error.code().name}"
        except OSError as error:
            return str(error)

    async def _presence_at(self, node: str, timeout_s: float) -> list[Presence] | None:
        try:
            reply = await self._stub(node).Presence(wire.PresenceRequest(), timeout=timeout_s)
        except (aio.AioRpcError, OSError):
            return None
        return [
            Presence(
                node=node,
                host=each.host,
                session=each.session,
                last_heartbeat_age_s=each.last_heartbeat_age_ms / 1000,
            )
            for each in reply.hosts
        ]

    async def _ask(self, host: str, question: wire.Question, *, timeout_s: float) -> wire.Answer:
        local = self._sessions.get(host)
        if local is not None:
            return await local.ask(question, timeout_s=timeout_s)
        record = self._reader.state.hosts.get(host)
        node = record.node if record is not None else None
        if node is None or node == self._node:
            raise HostUnreachableError(f"the agent of host {host} has no session")
        if not self._nodes().get(node):
            raise HostUnreachableError(f"the agent of host {host} is at node {node}, which this node does not know")
        request = wire.AskRequest(host=host, question=question, timeout_ms=round(timeout_s * 1000))
        try:
            reply = await self._stub(node).Ask(request, timeout=timeout_s)
        except aio.AioRpcError as error:
            raise HostUnreachableError(f"host {host} by node {node}: {error.details() or error.code().name}") from None
        except OSError as error:
            raise HostUnreachableError(f"host {host} by node {node}: {error}") from error
        return reply.answer

    def _stub(self, node: str) -> rpc.NodeRelayAsyncStub:
        """Raises OSError when the node's address is not known or the certificate files cannot be read."""
        address = self._nodes().get(node)
        if not address:
            raise OSError(f"the gateway of node {node} is not known")
        wanted = (address, stamp(self._tls))
        dialled, channel = self._channels.get(node, (None, None))
        if channel is None or dialled != wanted:
            if channel is not None:
                # Calls that are under way end by their own deadlines.
                closing = asyncio.create_task(channel.close(grace=MAX_ASK_S))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            credentials = grpc.ssl_channel_credentials(
                root_certificates=self._tls.ca.read_bytes(),
                private_key=self._tls.key.read_bytes(),
                certificate_chain=self._tls.certificate.read_bytes(),
            )
            channel = aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)
            self._channels[node] = (wanted, channel)
        return rpc.NodeRelayStub(channel)


class RelayService(rpc.NodeRelayServicer):
    """What this node answers other nodes: only of its own sessions, leases and beliefs."""

    def __init__(
        self,
        *,
        node: str,
        doorkeeper: Doorkeeper,
        sessions: Sessions,
        keeper: LeaseGrantor,
        view: Callable[[], NodeView],
    ) -> None:
        """`keeper` is this node's own, which grants while it leads; `view`: what it believes."""
        self._node = node
        self._doorkeeper = doorkeeper
        self._sessions = sessions
        self._keeper = keeper
        self._view = view

    async def Presence(  # noqa: N802 - the wire's name
        self, request: wire.PresenceRequest, context: aio.ServicerContext[wire.PresenceRequest, wire.PresenceReply]
    ) -> wire.PresenceReply:
        await self._permitted(context, "NodeRelay/Presence")
        return wire.PresenceReply(
            node=self._node,
            hosts=[
                wire.Present(
                    host=each.host,
                    session=each.session,
                    last_heartbeat_age_ms=round(each.last_heartbeat_age_s * 1000),
                )
                for each in local_presence(self._node, self._sessions)
            ],
        )

    async def Ask(  # noqa: N802 - the wire's name
        self, request: wire.AskRequest, context: aio.ServicerContext[wire.AskRequest, wire.AskReply]
    ) -> wire.AskReply:
        await self._permitted(context, "NodeRelay/Ask")
        session = self._sessions.get(request.host)
        if session is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the agent of host {request.host} has no session here")
        timeout_s = min(max(request.timeout_ms / 1000, 0.05), MAX_ASK_S)
        try:
            return wire.AskReply(answer=await session.ask(request.question, timeout_s=timeout_s))
        except HostUnreachableError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def Grant(  # noqa: N802 - the wire's name
        self, request: wire.GrantRequest, context: aio.ServicerContext[wire.GrantRequest, wire.GrantReply]
    ) -> wire.GrantReply:
        await self._permitted(context, "NodeRelay/Grant")
        asked = [Heartbeat(host=each.host, session=each.session, sequence=each.sequence) for each in request.heard]
        try:
            grants = await self._keeper.grant(
                asked, timeout_s=min(context.time_remaining() or MAX_GRANT_S, MAX_GRANT_S)
            )
        except LogError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return wire.GrantReply(granted=encode_grants(grants))

    async def View(  # noqa: N802 - the wire's name
        self, request: wire.ViewRequest, context: aio.ServicerContext[wire.ViewRequest, wire.ViewReply]
    ) -> wire.ViewReply:
        await self._permitted(context, "NodeRelay/View")
        return encode_view(self._view())

    async def _permitted(self, context: aio.ServicerContext[Any, Any], method: str) -> None:
        if (reason := self._doorkeeper.refused(context, method)) is not None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)


def local_presence(node: str, sessions: Sessions) -> list[Presence]:
    return [
        Presence(node=node, host=each.host, session=each.session, last_heartbeat_age_s=each.heartbeat_age_s)
        for each in sessions
    ]
