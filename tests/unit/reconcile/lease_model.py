"""A cluster of fronts, a log and a host's agent, in one event loop and in time that the schedule passes.

Real are the keeper, the watch and the machine. Modelled is what they stand on: elections, with leaders that do not know
that they were deposed; the proof of leadership, exactly as `Log.confirm_leadership` promises it and no better; replicas
that lag, commands that come late, fronts that stall or start again; and an agent whose clock is as wrong as it may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from support.builders import agent_connected, confirm_off, declare_host

from controlplane.machine.apply import apply
from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import AgentConnected, Command, Report, seal
from controlplane.model.resources import HostPhase
from controlplane.ports import Grant, Heartbeat, NoLeaderError, OutcomeUnknownError, Reign
from controlplane.reconcile.hostwatch import PERIOD_S, HostWatch
from controlplane.reconcile.leases import LeaseKeeper
from controlplane.reconcile.ledger import Ledger
from controlplane.settings import LeaseSettings

HOST = "h1"


class Violation(AssertionError):  # noqa: N818 - the word for it
    """A host may still run what may be placed anew."""


@dataclass
class Parts:
    """What a test may replace by something broken."""

    lease: Callable[..., LeaseSettings] = LeaseSettings
    ledger: Callable[[], Ledger] = Ledger
    proof: bool = True
    """Whether a confirmation asks anybody."""
    word: Callable[[str], Command] = confirm_off
    """What an operator's word is proposed as."""


@dataclass
class Shared:
    """The log, and who leads it."""

    term: int = 0
    leader: str = ""
    states: list[State] = field(default_factory=lambda: [State(cluster_id="test")])
    """After so many entries."""
    time_s: float = 0.0
    held: bool = False
    """Whether commands wait on their way."""
    waiting: list[Command] = field(default_factory=list[Command])

    @property
    def state(self) -> State:
        return self.states[-1]

    def send(self, command: Command) -> None:
        self.waiting.append(command)
        if not self.held:
            self.commit()

    def commit(self) -> None:
        """What waits is appended by whoever leads now, in its term."""
        waiting, self.waiting = self.waiting, []
        for command in waiting:
            at = len(self.states)
            envelope = seal(command, id=f"c{at}", at=round(self.time_s * 1000), actor="test", key=None)
            self.states.append(apply(self.state, envelope, index=at, term=self.term)[0])


class Front:
    """One node's. Implements Clock, Leadership, StateReader and Proposer."""

    def __init__(self, name: str, shared: Shared, parts: Parts, ttl_s: float, offset_s: float) -> None:
        self.name = name
        self.shared = shared
        self.parts = parts
        self.offset_s = offset_s
        self.lease = parts.lease(ttl_s=ttl_s)
        self.led = 0
        """The newest term in which this node was elected."""
        self.believed: int | None = None
        """The term in which it believes to lead, rightly or not."""
        self.applied = 0
        self.lags = False
        self.stalled = False
        self.gate: asyncio.Event = asyncio.Event()
        """Closed while confirmations are under way."""
        self.gate.set()
        self.restart()

    def restart(self) -> None:
        self.ledger = self.parts.ledger()
        self.keeper = LeaseKeeper(self, self, self.ledger, self.lease)
        self.hostwatch = HostWatch(self, self, self, self.ledger, reign=self.reign, lease=self.lease)

    def reign(self) -> Reign | None:
        return Reign(self.believed, 1) if self.believed is not None else None

    def now_ms(self) -> int:
        return round(self.shared.time_s * 1000)

    def monotonic_s(self) -> float:
        return self.shared.time_s + self.offset_s

    def boottime_s(self) -> float:
        return self.monotonic_s()

    @property
    def state(self) -> State:
        if not self.lags:
            self.applied = len(self.shared.states) - 1
        return self.shared.states[self.applied]

    @property
    def caught_up(self) -> bool:
        return True

    @property
    def begun(self) -> bool:
        return True

    async def confirm_leading(self, *, timeout_s: float) -> Reign:
        keeper = self.keeper
        term, committed = self.shared.term, len(self.shared.states) - 1
        leads = self.shared.leader == self.name
        await self.gate.wait()
        if keeper is not self.keeper:
            raise NoLeaderError("the front that asked is gone")
        if not self.parts.proof and self.believed is not None:
            return Reign(self.believed, 1)
        if not leads:
            raise NoLeaderError("another node leads")
        # Whoever was elected since the question does not matter: the round may have been answered before.
        self.applied = max(self.applied, committed)
        return Reign(term, 1)

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        raise NotImplementedError

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        raise NotImplementedError

    def watch(self, after: int | None) -> AsyncIterator[Event]:
        raise NotImplementedError

    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Nobody ever learns an outcome: what follows from one must not matter."""
        self.shared.send(command)
        raise OutcomeUnknownError("not committed in time")

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        raise NotImplementedError

    async def tick(self) -> None:
        for finding in self.hostwatch.tick():
            await self.hostwatch.propose(finding)


@dataclass
class Agent:
    """A lease counts from when the heartbeat was sent, by this clock. It believes whatever node answers its session."""

    rate: float
    """Of its clock, against the nodes'."""
    at: str = "n1"
    number: int = 0
    lease_ends_s: float = -1e9
    ttl_s: float = 0.0
    sequence: int = 0
    sent_s: dict[int, float] = field(default_factory=dict[int, float])
    cut: bool = False

    @property
    def session(self) -> str:
        return f"s{self.number}"

    def hello(self, now_s: float, own_ttl_s: float) -> AgentConnected:
        """From now on nothing that an earlier session was granted counts."""
        self.number += 1
        self.sent_s.clear()
        held_ms = round(self.ttl_s * 1000) if self.lease_ends_s > now_s else 0
        return agent_connected(HOST, session=self.session, lease_ttl_ms=max(round(own_ttl_s * 1000), held_ms))

    def heartbeat(self, now_s: float) -> Heartbeat:
        self.sequence += 1
        self.sent_s[self.sequence] = now_s
        return Heartbeat(HOST, self.session, self.sequence)

    def granted(self, grant: Grant) -> None:
        sent_s = self.sent_s.get(grant.sequence)
        if grant.session == self.session and sent_s is not None and sent_s + grant.ttl_s > self.lease_ends_s:
            self.lease_ends_s = sent_s + grant.ttl_s
            self.ttl_s = grant.ttl_s


class Cluster:
    def __init__(self, *, rate: float, ttls_s: Sequence[float], parts: Parts) -> None:
        self.shared = Shared()
        self.lease = LeaseSettings()
        self.fronts = {
            f"n{i}": Front(f"n{i}", self.shared, parts, ttl_s, 1000.0 * i) for i, ttl_s in enumerate(ttls_s, 1)
        }
        self.parts = parts
        self.agent = Agent(rate)
        self.asking: set[asyncio.Task[None]] = set()
        self.fences = 0
        """How often the host was fenced."""
        self.elect("n1", noticed=True)
        self.shared.send(declare_host(HOST))
        self.reconnect("n1")

    @property
    def host_s(self) -> float:
        """The host's own clock."""
        return self.shared.time_s * self.agent.rate

    # -- what may happen -----------------------------------------------------------------------------------------------

    def elect(self, name: str, *, noticed: bool) -> None:
        """With `noticed`, all know; else the last leader goes on believing that it leads, and learns nothing more."""
        old = self.fronts.get(self.shared.leader)
        self.shared.term += 1
        self.shared.leader = name
        if old is not None and old.name != name:
            if noticed:
                old.believed = None
            else:
                _ = old.state
                old.lags = True
        new = self.fronts[name]
        new.led, new.believed, new.lags = self.shared.term, self.shared.term, False

    def notice(self, name: str) -> None:
        """The node learns what is so."""
        front = self.fronts[name]
        front.lags = False
        front.believed = self.shared.term if self.shared.leader == name else None

    def restart(self, name: str) -> None:
        """Its front process ends, and another one begins."""
        self.fronts[name].restart()

    def stall(self, name: str) -> None:
        self.fronts[name].stalled = True

    def go_on(self, name: str) -> None:
        self.fronts[name].stalled = False

    def hold_proofs(self, name: str) -> None:
        self.fronts[name].gate.clear()

    def release_proofs(self, name: str) -> None:
        self.fronts[name].gate.set()

    def hold_log(self, _: str) -> None:
        self.shared.held = True

    def release_log(self, _: str) -> None:
        self.shared.held = False
        self.shared.commit()

    def cut(self, _: str) -> None:
        self.agent.cut = True

    def reconnect(self, name: str) -> None:
        self.agent.cut, self.agent.at = False, name
        self.shared.send(self.agent.hello(self.host_s, self.fronts[name].lease.ttl_s))

    def confirm(self, _: str) -> None:
        """An operator says, wrongly, that the suspect host is off; where no lease is left, it is their word alone."""
        if self.shared.state.hosts[HOST].phase is HostPhase.SUSPECT and not self.shared.held:
            self.shared.send(self.parts.word(HOST))

    async def pass_time(self, seconds: float) -> None:
        for step in range(round(seconds / PERIOD_S)):
            self.shared.time_s += PERIOD_S
            if step % 2 == 0 and not self.agent.cut:
                self._heartbeat()
            await asyncio.sleep(0)
            for front in self.fronts.values():
                if not front.stalled:
                    await front.tick()
            await asyncio.sleep(0)
            self.check()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        state = self.shared.state
        host = state.hosts.get(HOST)
        if host is not None and host.session == self.agent.session and host.phase is HostPhase.REJOINING:
            self.shared.send(Report(host=HOST, session=self.agent.session, rejoined=True))
        at = self.fronts[self.agent.at]
        # Whom this node takes for the leader: itself, rightly or not, else the one that is.
        leader = at if at.believed is not None or at.lags else self.fronts[self.shared.leader]
        heartbeat = self.agent.heartbeat(self.host_s)
        if not at.stalled and not leader.stalled:
            asking = asyncio.create_task(self._ask(leader, heartbeat))
            self.asking.add(asking)
            asking.add_done_callback(self.asking.discard)

    async def _ask(self, leader: Front, heartbeat: Heartbeat) -> None:
        try:
            grants = await leader.keeper.grant([heartbeat], timeout_s=1.0)
        except NoLeaderError:
            return
        for grant in grants:
            self.agent.granted(grant)

    def check(self) -> None:
        """While the host is fenced, its lease has ended by its own clock, and it has had the time to act on that."""
        host = self.shared.state.hosts[HOST]
        if host.phase is not HostPhase.FENCED:
            return
        self.fences += 1
        done_s = self.agent.lease_ends_s + self.lease.fence_s
        if self.host_s < done_s:
            raise Violation(f"fenced at {self.host_s:.1f} s of the host's clock, it may run until {done_s:.1f} s")

    async def end(self) -> None:
        for asking in tuple(self.asking):
            asking.cancel()
        await asyncio.gather(*self.asking, return_exceptions=True)
