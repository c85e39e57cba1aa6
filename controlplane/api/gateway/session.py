"""One agent's session at this node, from its welcome to its end.

Three loops beside the stream: one reads, one pushes assignments whenever the state says something else than what was
sent, one proposes what the agent told until the state says the same. A heartbeat is acknowledged by this node for
itself; whether it also renews the host's lease is the leader's to say, and comes in a message of its own. The session
ends when the stream does, or when the state names another session for the host, or none because it was detached: then
this agent is told goodbye, because whatever it reports is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

import structlog

from controlplane.api.gateway.found import encode_clearings
from controlplane.api.gateway.intake import Intake
from controlplane.api.gateway.outbox import Outbox
from controlplane.api.gateway.peer import Caller
from controlplane.machine.outcome import Code, Rejected
from controlplane.model.commands import Report
from controlplane.model.resources import Host, MicroVM
from controlplane.ports import Clock, Heartbeat, HostUnreachableError, Ids, LogError, Proposer, StateReader
from controlplane.ports.secrets import VaultError
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GATHER_S = 0.02
"""The state is looked at no more often than this: one change is acted on at once, a burst of them together."""
RESYNC_S = 5.0
"""The state is compared this often even if no event said that it changed."""
_QUEUE = 256
_PROPOSE_TIMEOUT_S = 5.0
_BACKOFF_BASE_S = 0.1
_BACKOFF_CAP_S = 3.0


class AgentSession:
    def __init__(
        self,
        *,
        host: str,
        session: str,
        shown: Caller,
        reader: StateReader,
        proposer: Proposer,
        clock: Clock,
        ids: Ids,
        heard: Callable[[Heartbeat], None],
        opened: Callable[[MicroVM], Mapping[str, str]],
    ) -> None:
        """`shown`: the certificate that opened it. `heard` is told of heartbeats; its answers come by `send`.
        `opened` gives a microVM's secrets, or raises VaultError.
        """
        self.host = host
        self.session = session
        self.shown = shown
        self.serials = {shown.serial}
        """Of the certificates that the agent has: once one of them is revoked, the session is over."""
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._ids = ids
        self._heard = heard
        self._heard_s = clock.monotonic_s()
        self._outbox = Outbox(opened)
        self._intake = Intake(host, session)
        self._outgoing: asyncio.Queue[wire.ToAgent] = asyncio.Queue(_QUEUE)
        self._wake_push = asyncio.Event()
        self._wake_propose = asyncio.Event()
        self._ended = asyncio.Event()
        self._goodbye: wire.Goodbye | None = None
        self._waiting: dict[str, asyncio.Future[wire.Answer]] = {}

    @property
    def heartbeat_age_s(self) -> float:
        return self._clock.monotonic_s() - self._heard_s

    def wake(self) -> None:
        """The state may have changed in what concerns this host."""
        self._wake_push.set()
        self._wake_propose.set()

    def end(self, reason: str, *, retry_after_ms: int = 0) -> None:
        """Say goodbye and end. The first reason is the one that is told."""
        if self._goodbye is None:
            self._goodbye = wire.Goodbye(reason=reason, retry_after_ms=retry_after_ms)
            log.info("session ends", host=self.host, session=self.session, reason=reason)
        self._ended.set()

    def send(self, message: wire.ToAgent) -> None:
        """What is worth nothing later: an acknowledgement or a grant. Dropped when the agent does not read."""
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("agent does not read", host=self.host)  # without acknowledgements it will dial another node

    async def ask(self, question: wire.Question, *, timeout_s: float) -> wire.Answer:
        """The agent's answer; the question gets its id here. Raises HostUnreachableError."""
        if self._ended.is_set():
            raise HostUnreachableError(f"the session of host {self.host} has ended")
        asked = wire.Question()
        asked.CopyFrom(question)
        asked.id = self._ids.new()
        waiting: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()
        self._waiting[asked.id] = waiting
        try:
            async with asyncio.timeout(timeout_s):
                await self._outgoing.put(wire.ToAgent(question=asked))
                return await waiting
        except TimeoutError:
            raise HostUnreachableError(f"host {self.host} did not answer within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(asked.id, None)

    async def run(self, incoming: AsyncIterator[wire.FromAgent], first: wire.Welcome) -> AsyncGenerator[wire.ToAgent]:
        """What to send, from the welcome to the end. Raises WireError for what it cannot read."""
        loops = [
            asyncio.create_task(self._read(incoming)),
            asyncio.create_task(self._push()),
            asyncio.create_task(self._propose()),
        ]
        ended = asyncio.create_task(self._ended.wait())
        try:
            yield wire.ToAgent(welcome=first)
            while True:
                message = asyncio.create_task(self._outgoing.get())
                try:
                    done, _ = await asyncio.wait([message, ended, *loops], return_when=asyncio.FIRST_COMPLETED)
                    if message in done:
                        yield message.result()
                        continue
                finally:
                    message.cancel()
                for loop in loops:
                    if loop.done():
                        loop.result()
                if self._goodbye is not None:
                    yield wire.ToAgent(goodbye=self._goodbye)
                return
        finally:
            self._ended.set()
            ended.cancel()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(HostUnreachableError(f"the session of host {self.host} has ended"))

    # -- the loops -----------------------------------------------------------------------------------------------------

    async def _read(self, incoming: AsyncIterator[wire.FromAgent]) -> None:
        async for message in incoming:
            self._heard_s = self._clock.monotonic_s()
            match message.WhichOneof("message"):
                case "heartbeat":
                    sequence = message.heartbeat.sequence
                    self.send(wire.ToAgent(heartbeat_ack=wire.HeartbeatAck(sequence=sequence)))
                    self._heard(Heartbeat(host=self.host, session=self.session, sequence=sequence))
                case "report":
                    self._intake.take(message.report)
                    self._wake_propose.set()
                case "answer":
                    waiting = self._waiting.get(message.answer.id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message.answer)
                case "hello" | None:
                    log.info("unexpected message ignored", host=self.host, message=message.WhichOneof("message"))

    async def _gather(self, looked_s: float) -> None:
        """`looked_s`: when the state was looked at last."""
        await asyncio.sleep(max(looked_s + GATHER_S - self._clock.monotonic_s(), 0.0))

    async def _push(self) -> None:
        while True:
            self._wake_push.clear()
            looked_s = self._clock.monotonic_s()
            state = self._reader.state
            host = state.hosts.get(self.host)
            if host is None or host.session != self.session:
                self.end(_why_ended(self.host, host), retry_after_ms=500)
                return
            # After a restore the host may still have a lease of the lost history, and another host what runs under one:
            # until all of them have ended, it is told nothing that it could start (docs/adr/0103).
            if host.declared and self._reader.begun:
                placed = state.microvms_on(self.host)
                clearings = encode_clearings(host)
                try:
                    messages = self._outbox.messages(state.revision, placed, host.stale, host.orders, clearings)
                except VaultError as error:
                    # Another node may have the key; to leave the microVM out would say that it is not placed here.
                    log.warning("secrets cannot be opened", host=self.host, reason=str(error))
                    self.end("this node cannot open the secrets of what is placed here", retry_after_ms=1000)
                    return
                for message in messages:
                    await self._outgoing.put(wire.ToAgent(assignments=message))
            try:
                async with asyncio.timeout(RESYNC_S):
                    await self._wake_push.wait()
                await self._gather(looked_s)
            except TimeoutError:
                pass

    async def _propose(self) -> None:
        failures = 0
        last: Report | None = None
        while True:
            self._wake_propose.clear()
            looked_s = self._clock.monotonic_s()
            report = self._intake.due(self._reader.state)
            if report is None:
                failures = 0
                await self._wake_propose.wait()
                await self._gather(looked_s)
                continue
            if report == last:
                failures += 1  # accepted, and the state still differs: never spin on that
            if failures:
                await asyncio.sleep(min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2.0 ** min(failures - 1, 10)))
                report = self._intake.due(self._reader.state)
                if report is None:
                    continue
            try:
                outcome = await self._proposer.propose(report, actor=f"host:{self.host}", timeout_s=_PROPOSE_TIMEOUT_S)
            except LogError as error:
                failures += 1
                log.info("report not committed", host=self.host, error=f"{type(error).__name__}: {error}")
                continue
            if isinstance(outcome, Rejected):
                if outcome.code is Code.STALE:
                    self.end(outcome.message, retry_after_ms=500)
                    return
                failures += 1
                log.warning("report refused", host=self.host, code=outcome.code.value, message=outcome.message)
                continue
            failures, last = failures if report == last else 0, report


def _why_ended(name: str, host: Host | None) -> str:
    if host is None:
        return f"host {name} is not known any more"
    if host.session is None:
        return f"host {name} is {host.phase.value}: {host.reason}; it may dial in again"
    return f"host {name} has another session by now" + (f" at node {host.node}" if host.node is not None else "")
