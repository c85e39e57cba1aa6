"""The agents' service: who may open a session, and the sessions that this node holds.

A session begins with a committed AgentConnected, so that the replica here has applied everything that was acknowledged
to earlier sessions before the first assignments are computed from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import NoReturn

import grpc
import structlog
from grpc import aio

from controlplane.api.gateway.access import SESSION, Doorkeeper
from controlplane.api.gateway.peer import caller
from controlplane.api.gateway.renewing import Context as RenewContext
from controlplane.api.gateway.renewing import Renewing
from controlplane.api.gateway.session import AgentSession
from controlplane.api.gateway.translate import WireError, decode_held_ttl_ms, decode_hello, encode_endpoints
from controlplane.machine.outcome import Rejected
from controlplane.model.commands import AgentConnected
from controlplane.model.resources import Inventory, MicroVM
from controlplane.ports import Clock, Heartbeat, Ids, LogError, Proposer, StateReader
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

HELLO_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 4.0
"""How long the log may take to commit that the agent connected, before it is sent to another node."""
_Context = aio.ServicerContext[wire.FromAgent, wire.ToAgent]


class Sessions:
    """The sessions at this node, one per host."""

    def __init__(self) -> None:
        self._by_host: dict[str, AgentSession] = {}

    def get(self, host: str) -> AgentSession | None:
        return self._by_host.get(host)

    def holds(self, host: str, session: str) -> bool:
        here = self._by_host.get(host)
        return here is not None and here.session == session

    def __iter__(self) -> Iterator[AgentSession]:
        return iter(tuple(self._by_host.values()))

    def add(self, session: AgentSession) -> None:
        """The newest session is the host's only one."""
        old = self._by_host.get(session.host)
        self._by_host[session.host] = session
        if old is not None:
            old.end(f"host {session.host} opened another session", retry_after_ms=500)

    def remove(self, session: AgentSession) -> None:
        if self._by_host.get(session.host) is session:
            del self._by_host[session.host]


class SessionService(rpc.AgentGatewayServicer):
    def __init__(
        self,
        *,
        node: str,
        cluster_id: str,
        reader: StateReader,
        proposer: Proposer,
        ids: Ids,
        clock: Clock,
        nodes: Callable[[], Mapping[str, str]],
        doorkeeper: Doorkeeper,
        renewing: Renewing,
        sessions: Sessions,
        heard: Callable[[Heartbeat], None],
        lease_ttl_ms: int,
        opened: Callable[[MicroVM], Mapping[str, str]],
    ) -> None:
        """`heard` is told of every heartbeat; no lease that is granted here is longer than `lease_ttl_ms`. `opened`
        gives a microVM's secrets.
        """
        self._node = node
        self._cluster_id = cluster_id
        self._reader = reader
        self._proposer = proposer
        self._ids = ids
        self._clock = clock
        self._nodes = nodes
        self._doorkeeper = doorkeeper
        self._renewing = renewing
        self._sessions = sessions
        self._heard = heard
        self._lease_ttl_ms = lease_ttl_ms
        self._opened = opened

    async def Session(  # noqa: N802 - the wire's name
        self, request_iterator: AsyncIterator[wire.FromAgent], context: _Context
    ) -> AsyncGenerator[wire.ToAgent]:
        hello, inventory, held_ttl_ms = await self._receive(request_iterator, context)
        refusal = await self._connect(hello, inventory, max(self._lease_ttl_ms, held_ttl_ms))
        if refusal is not None:
            yield wire.ToAgent(goodbye=refusal)
            return
        session = AgentSession(
            host=hello.host,
            session=hello.session,
            shown=caller(context.auth_context()),
            reader=self._reader,
            proposer=self._proposer,
            clock=self._clock,
            ids=self._ids,
            heard=self._heard,
            opened=self._opened,
        )
        self._sessions.add(session)
        log.info("session opened", host=hello.host, session=hello.session)
        # Whose certificate was withdrawn while it connected is seen neither above nor by whoever looks at sessions.
        if (reason := self._doorkeeper.refused(context, SESSION, hello.host)) is not None:
            session.end(reason)
        try:
            async with aclosing(session.run(request_iterator, self._welcome(hello.host))) as messages:
                async for message in messages:
                    yield message
        except WireError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._sessions.remove(session)
            log.info("session closed", host=hello.host, session=hello.session)

    async def Renew(  # noqa: N802 - the wire's name
        self, request: wire.RenewRequest, context: RenewContext
    ) -> wire.RenewReply:
        return await self._renewing.renew(request, context)

    async def _receive(
        self, incoming: AsyncIterator[wire.FromAgent], context: _Context
    ) -> tuple[wire.Hello, Inventory, int]:
        """The hello of the host that the certificate names with what it says, or the end of the call."""
        # Whose certificate opens no session at all is not waited for.
        if (reason := self._doorkeeper.refused(context, SESSION)) is not None:
            await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, reason)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(incoming)
        except (TimeoutError, StopAsyncIteration):
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "hello: missing; it is the first message")
        if not first.HasField("hello"):
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "hello: missing; it is the first message")
        hello = first.hello
        if (reason := self._doorkeeper.refused(context, SESSION, hello.host)) is not None:
            await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, f"hello.host: {reason}")
        if hello.cluster_id not in ("", self._cluster_id):
            message = f"hello.cluster_id: the host belongs to {hello.cluster_id!r}, this is {self._cluster_id!r}"
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        try:
            return hello, decode_hello(hello), decode_held_ttl_ms(hello)
        except WireError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _connect(self, hello: wire.Hello, inventory: Inventory, lease_ttl_ms: int) -> wire.Goodbye | None:
        """Commit the connection; a goodbye when that cannot be done here and now."""
        command = AgentConnected(
            host=hello.host,
            uid=self._ids.new(),
            session=hello.session,
            node=self._node,
            inventory=inventory,
            lease_ttl_ms=lease_ttl_ms,
        )
        deadline_s = self._clock.monotonic_s() + CONNECT_TIMEOUT_S
        while True:
            left_s = deadline_s - self._clock.monotonic_s()
            try:
                outcome = await self._proposer.propose(command, actor=f"host:{hello.host}", timeout_s=max(left_s, 0.1))
            except LogError as error:  # safe to repeat: the session is the same
                if left_s <= 0.5:
                    reason = f"node {self._node} cannot commit: {error or type(error).__name__}"
                    return wire.Goodbye(reason=reason, retry_after_ms=round(error.retry_after_s * 500))
                await asyncio.sleep(0.2)
                continue
            if isinstance(outcome, Rejected):
                return wire.Goodbye(reason=outcome.message, retry_after_ms=5000)
            return None

    def _welcome(self, host: str) -> wire.Welcome:
        record = self._reader.state.hosts.get(host)
        return wire.Welcome(
            cluster_id=self._cluster_id,
            node=self._node,
            admitted=record is not None and record.declared,
            tells_leaderless=True,
            endpoints=encode_endpoints(self._nodes()),
        )


async def _refuse(context: _Context, code: grpc.StatusCode, message: str) -> NoReturn:
    log.warning("session refused", peer=context.peer(), code=code.name, reason=message)
    await context.abort(code, message)
    raise AssertionError("abort does not return")
