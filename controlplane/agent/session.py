"""The agent's one session: dial a node, say hello, heartbeat, report, take assignments, answer questions.

A session lasts as long as its node answers: no acknowledged heartbeat for `unresponsive_s`, a goodbye, a broken stream
or too long without a grant (see `patience`) end it, and the next node is dialled. Everything that is sent is repeated
by the next session's complete report, so nothing waits for a particular session to succeed. The runner never notices
which node there is, or that there is none.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from grpc import aio

from controlplane.agent.answers import Answers
from controlplane.agent.dialling import OPTIONS, credentials
from controlplane.agent.inbox import Inbox
from controlplane.agent.inventory import InventoryError, Meter
from controlplane.agent.lease import HostLease
from controlplane.agent.observe import HostView, report_parts
from controlplane.agent.patience import Patience
from controlplane.agent.renewal import CertificateRenewal
from controlplane.agent.rotation import Endpoint, Rotation
from controlplane.agent.runner import Runner
from controlplane.agent.settings import AgentSettings
from controlplane.agent.statedir import StateDir
from controlplane.agent.translate import WireError, encode_amount, encode_driver, encode_metrics, encode_report
from controlplane.model.resources import Amount
from controlplane.ports import Clock, HostDriver, Ids
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

PROTOCOL = 1
MAX_QUESTIONS = 32
"""Questions that are answered at the same time; more wait in the stream."""
_GATHER_S = 0.05
"""Reports are this far apart: one change travels at once, those of a burst together."""

_Stream = aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]


class SessionEndedError(Exception):
    """Why, and how long the node asked to wait."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the agent says of its host when it connects."""

    boot_id: str
    drivers: Mapping[str, HostDriver]
    capacity: Amount


class SessionClient:
    def __init__(
        self,
        *,
        settings: AgentSettings,
        facts: HostFacts,
        state_dir: StateDir,
        runner: Runner,
        lease: HostLease,
        answers: Answers,
        meter: Meter,
        clock: Clock,
        ids: Ids,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._state_dir = state_dir
        self._runner = runner
        self._lease = lease
        self._patience = Patience(settings.grantless_s)
        self._answers = answers
        self._meter = meter
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._rotation = Rotation(
            settings.endpoints, base_s=settings.reconnect_base_s, cap_s=settings.reconnect_cap_s, rng=rng
        )
        self._told = state_dir.nodes
        self._rotation.learn(self._told)
        self._renewal = CertificateRenewal(settings.tls, clock)
        self._node: str | None = None

    @property
    def node(self) -> str | None:
        """The node that the present session is at."""
        return self._node

    async def run(self) -> None:
        """Until cancelled. Raises StateDirError when the cluster cannot be remembered."""
        while True:
            endpoint = self._rotation.next()
            ended = await self._dial(endpoint)
            self._node = None
            delay_s = self._rotation.failed(ended.retry_after_s)
            log.warning(
                "session ended", node=endpoint.node, address=endpoint.address, reason=str(ended), next_s=delay_s
            )
            await asyncio.sleep(delay_s)

    def _learn(self, nodes: Iterable[wire.Endpoint]) -> None:
        told = {each.node: each.address for each in nodes}
        self._rotation.learn(told)
        if told != self._told:
            self._told = told
            self._state_dir.remember_nodes(told)

    async def _dial(self, endpoint: Endpoint) -> SessionEndedError:
        """One session; gives why it ended."""
        try:
            shown = credentials(self._settings.tls)
        except OSError as error:
            return SessionEndedError(f"tls: {error}")
        async with aio.secure_channel(endpoint.address, shown, options=OPTIONS) as channel:
            stream = rpc.AgentGatewayStub(channel).Session()
            try:
                session_id = self._ids.new()
                welcome, unfenced = await self._greet(stream, endpoint, session_id)
                self._rotation.succeeded()
                self._learn(welcome.endpoints)
                self._node = welcome.node
                log.info("session opened", node=welcome.node, admitted=welcome.admitted)
                session = _Session(
                    stream=stream,
                    session_id=session_id,
                    welcome=welcome,
                    settings=self._settings,
                    runner=self._runner,
                    lease=self._lease,
                    patience=self._patience,
                    answers=self._answers,
                    meter=self._meter,
                    clock=self._clock,
                    rng=self._rng,
                    unfenced=unfenced,
                    trust=self._renewal.trust,
                    learn=self._learn,
                )
                renewing = asyncio.create_task(self._renewal.keep(endpoint.address))
                try:
                    await session.run()
                finally:
                    renewing.cancel()
                    await asyncio.wait([renewing])
            except SessionEndedError as ended:
                return ended
            except aio.AioRpcError as error:
                return SessionEndedError(f"{error.code().name}: {error.details()}")
            except (WireError, aio.UsageError, asyncio.InvalidStateError) as error:
                return SessionEndedError(str(error))
            finally:
                stream.cancel()
            return SessionEndedError("the session ended")

    async def _greet(self, stream: _Stream, endpoint: Endpoint, session_id: str) -> tuple[wire.Welcome, frozenset[str]]:
        """The node's welcome, and the drivers that were said to end nothing by themselves."""
        known = self._settings.cluster_id or self._state_dir.cluster_id
        # First: a driver that cannot tell what it holds is not relied on.
        held_ttl_s = await self._lease.held_ttl_s()
        problems = self._lease.problems()
        hello = wire.Hello(
            host=self._settings.host,
            cluster_id=known or "",
            session=session_id,
            agent_version=self._settings.version,
            boot_id=self._facts.boot_id,
            drivers=[
                encode_driver(driver.info, problems.get(name, "")) for name, driver in self._facts.drivers.items()
            ],
            capacity=encode_amount(self._facts.capacity),
            protocol=PROTOCOL,
            held_ttl_ms=math.ceil(held_ttl_s * 1000),
        )
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await stream.write(wire.FromAgent(hello=hello))
                first = await stream.read()
        except TimeoutError:
            raise SessionEndedError(f"no welcome within {self._settings.connect_timeout_s:g} s") from None
        if not isinstance(first, wire.ToAgent):
            raise await _closed(stream)
        if first.HasField("goodbye"):
            raise _goodbye(first.goodbye)
        if not first.HasField("welcome"):
            raise SessionEndedError(f"the node began with {first.WhichOneof('message')}, not with a welcome")
        offered = first.welcome.cluster_id
        if known is not None and offered != known:
            raise SessionEndedError(
                f"node {endpoint.node} is of cluster {offered!r}; this host belongs to {known!r}", retry_after_s=5.0
            )
        if self._state_dir.cluster_id is None:
            self._state_dir.remember_cluster(offered)
        return first.welcome, frozenset(problems)


class _Session:
    """A welcomed session: some loops over one stream; the first one that fails ends it."""

    def __init__(
        self,
        *,
        stream: _Stream,
        session_id: str,
        welcome: wire.Welcome,
        settings: AgentSettings,
        runner: Runner,
        lease: HostLease,
        patience: Patience,
        answers: Answers,
        meter: Meter,
        clock: Clock,
        rng: random.Random,
        unfenced: frozenset[str],
        trust: Callable[[wire.Trust], None],
        learn: Callable[[Iterable[wire.Endpoint]], None],
    ) -> None:
        self._stream = stream
        self._trust = trust
        self._learn = learn
        self._unfenced = unfenced
        self._session_id = session_id
        self._settings = settings
        self._runner = runner
        self._lease = lease
        self._patience = patience
        self._answers = answers
        self._meter = meter
        self._clock = clock
        self._rng = rng
        self._inbox = Inbox(welcome.cluster_id)
        self._writing = asyncio.Lock()
        self._assigned = asyncio.Event()
        self._acknowledged_s = clock.monotonic_s()
        self._acknowledged = 0
        self._admitted = welcome.admitted
        self._tells_leaderless = welcome.tells_leaderless
        self._questions: set[asyncio.Task[None]] = set()
        self._question_slots = asyncio.Semaphore(MAX_QUESTIONS)

    async def run(self) -> None:
        self._lease.begin(self._session_id)
        self._patience.begin(
            self._acknowledged_s, admitted=self._admitted, tells=self._tells_leaderless, chance=self._rng.random()
        )
        loops = (
            self._read(),
            self._heartbeat(),
            self._watch(),
            self._watch_grants(),
            self._report(),
            self._watch_drivers(),
        )
        tasks = [_task(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            pending = [*tasks, *self._questions]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _send(self, message: wire.FromAgent) -> None:
        async with self._writing:
            await self._stream.write(message)

    async def _read(self) -> None:
        while True:
            message = await self._stream.read()
            if not isinstance(message, wire.ToAgent):
                raise SessionEndedError(
                    f"the node closed the stream: {await self._stream.details() or 'no reason given'}"
                )
            match message.WhichOneof("message"):
                case "heartbeat_ack":
                    self._hear(message.heartbeat_ack)
                case "grant":
                    self._take(message.grant)
                case "assignments":
                    if (assignments := self._inbox.take(message.assignments)) is not None:
                        self._runner.assign(assignments)
                        self._assigned.set()
                case "question":
                    await self._question_slots.acquire()
                    task = _task(self._answer(message.question))
                    self._questions.add(task)
                    task.add_done_callback(self._answered)
                case "trust":
                    self._trust(message.trust)
                case "nodes":
                    self._learn(message.nodes.endpoints)
                case "goodbye":
                    raise _goodbye(message.goodbye)
                case "welcome":
                    raise SessionEndedError("the node welcomed twice")
                case None:
                    log.info("message of a newer protocol ignored")

    def _hear(self, ack: wire.HeartbeatAck) -> None:
        if ack.leaderless:
            self._patience.excused(self._clock.monotonic_s())
        if ack.sequence > self._acknowledged:
            self._acknowledged = ack.sequence
            self._acknowledged_s = self._clock.monotonic_s()

    def _take(self, grant: wire.Grant) -> None:
        ttl_s, grace_s = grant.ttl_ms / 1000, grant.grace_ms / 1000
        if self._lease.granted(self._session_id, grant.sequence, ttl_s=ttl_s, grace_s=grace_s):
            self._patience.granted(self._clock.monotonic_s())

    async def _answer(self, question: wire.Question) -> None:
        await self._send(wire.FromAgent(answer=await self._answers.answer(question)))

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._questions.discard(task)
        self._question_slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("answer not sent", error=str(error))  # the stream is gone; its reader says so too

    async def _heartbeat(self) -> None:
        sequence = 0
        while True:
            sequence += 1
            try:
                metrics = self._meter.read()
            except InventoryError as error:
                log.warning("metrics are not readable", error=str(error))
                metrics = self._meter.latest
            self._lease.sending(self._session_id, sequence)
            await self._send(
                wire.FromAgent(heartbeat=wire.Heartbeat(sequence=sequence, metrics=encode_metrics(metrics)))
            )
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _watch(self) -> None:
        """Apart from sending, which may itself be what hangs."""
        limit_s = self._settings.unresponsive_s
        while True:
            silent_s = self._clock.monotonic_s() - self._acknowledged_s
            if silent_s >= limit_s:
                raise SessionEndedError(f"no heartbeat was acknowledged for {silent_s:.1f} s")
            await asyncio.sleep(max(limit_s - silent_s, 0.01))

    async def _watch_grants(self) -> None:
        """A node may answer and still have no way to the leader. One that does not answer is `_watch`'s."""
        while True:
            left_s = self._patience.left_s(self._clock.monotonic_s())
            answers = self._clock.monotonic_s() - self._acknowledged_s < self._settings.grantless_s
            if left_s is not None and left_s <= 0 and answers:
                self._patience.gave_up()
                raise SessionEndedError("heartbeats are acknowledged, and none was granted for too long")
            await asyncio.sleep(max(min(left_s if left_s is not None else 1.0, 1.0), 0.05))

    async def _watch_drivers(self) -> None:
        """What the node was told of them when the session began has to be so: another session says it anew."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            problems = self._lease.problems()
            if problems.keys() == self._unfenced:
                continue
            said = [f"driver {name} takes no lease: {why}" for name, why in problems.items()]
            raise SessionEndedError("; ".join(said) or "every driver takes leases again")

    async def _report(self) -> None:
        """Complete at first and from time to time, what changed in between."""
        await self._assigned.wait()
        # A view of older assignments, even of another history of the cluster, does not know who is a stranger now.
        await self._runner.caught_up()
        sent: HostView | None = None
        seen: HostView | None = None
        complete_s = sent_s = 0.0
        while True:
            try:
                wait_s = max(complete_s - self._clock.monotonic_s(), 0.01) if seen is not None else None
                async with asyncio.timeout(wait_s):
                    view = await self._runner.next_view(seen)
                await asyncio.sleep(max(sent_s + _GATHER_S - self._clock.monotonic_s(), 0.0))
                view = self._runner.view or view
            except TimeoutError:
                assert seen is not None
                view = self._runner.view or seen
            if self._clock.monotonic_s() >= complete_s:
                sent = None
            for part in report_parts(view, sent):
                sent_s = self._clock.monotonic_s()
                await self._send(wire.FromAgent(report=encode_report(part)))
            if sent is None:
                complete_s = self._clock.monotonic_s() + self._settings.complete_report_s
            sent = seen = view


async def _closed(stream: _Stream) -> SessionEndedError:
    return SessionEndedError(f"the node closed the stream: {await stream.details() or 'no reason given'}")


def _goodbye(goodbye: wire.Goodbye) -> SessionEndedError:
    return SessionEndedError(f"goodbye: {goodbye.reason}", retry_after_s=goodbye.retry_after_ms / 1000)


def _task(loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(loop)
