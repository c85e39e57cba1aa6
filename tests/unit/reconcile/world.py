"""One node that leads or not, over the real machine, with time and faults told by the test.

It stands for the node's clock, its replica, and the way to the log. Nothing here waits for real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from support.builders import agent_connected, declare_host

from controlplane.machine.apply import apply
from controlplane.machine.events import Event
from controlplane.machine.outcome import Applied, Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Command, seal
from controlplane.model.resources import Host
from controlplane.ports import Heartbeat, NoLeaderError, OutcomeUnknownError, Reign
from controlplane.reconcile.hostwatch import PERIOD_S, HostWatch
from controlplane.reconcile.leases import LeaseKeeper
from controlplane.reconcile.ledger import Ledger
from controlplane.settings import LeaseSettings


def session(host: str, number: int = 1) -> str:
    return f"{host}-s{number}"


class World:
    """Implements Clock, Leadership, StateReader and Proposer."""

    def __init__(self, lease: LeaseSettings | None = None) -> None:
        self.lease = lease or LeaseSettings()
        self.time_s = 1000.0
        self.term: int | None = 1
        """What the node believes; `leads_in` is what a quorum confirms."""
        self.leads_in: int | None = 1
        self.incarnation = 1
        """Of the log."""
        self.state = State(cluster_id="test")
        self.commands: list[Command] = []
        self.refuse = False
        """The log takes nothing: certainly not written."""
        self.lose = False
        """The log takes commands, and their proposers do not learn of it."""
        self.hold: list[Command] | None = None
        """Commands on their way when it is a list: they come true when the test says so, and nobody learns of it."""
        self.while_confirming: Callable[[], None] = lambda: None
        self.restart_front()

    def restart_front(self) -> None:
        self.ledger = Ledger()
        self.keeper = LeaseKeeper(self, self, self.ledger, self.lease)
        self.hostwatch = HostWatch(self, self, self, self.ledger, reign=self.reign, lease=self.lease)

    def reign(self) -> Reign | None:
        return Reign(self.term, self.incarnation) if self.term is not None else None

    # -- Clock ---------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return int(self.time_s * 1000)

    def monotonic_s(self) -> float:
        return self.time_s

    def boottime_s(self) -> float:
        return self.time_s

    # -- the replica ---------------------------------------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        return True

    @property
    def begun(self) -> bool:
        return self.incarnation <= self.state.incarnation

    async def confirm_leading(self, *, timeout_s: float) -> Reign:
        if self.leads_in is None:
            raise NoLeaderError("not leading")
        reign = Reign(self.leads_in, self.incarnation)
        self.while_confirming()
        return reign

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        return self.state

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        """Every wait lasts one turn of the loop, and time stands still."""
        await asyncio.sleep(0)
        return self.state if condition(self.state) else None

    def watch(self, after: int | None) -> AsyncIterator[Event]:
        raise NotImplementedError

    # -- the log -------------------------------------------------------------------------------------------------------

    def apply(self, command: Command, *, term: int | None = None) -> Outcome:
        """Commit it, in the present term unless told another one."""
        envelope = seal(command, id=f"c{len(self.commands)}", at=self.now_ms(), actor="test", key=None)
        self.commands.append(command)
        term = term or self.leads_in or self.term or 1
        self.state, outcome, _ = apply(self.state, envelope, index=len(self.commands), term=term)
        return outcome

    def accept(self, command: Command) -> None:
        outcome = self.apply(command)
        assert isinstance(outcome, Applied), outcome

    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        if self.refuse:
            raise NoLeaderError("no leader")
        if self.hold is not None:
            self.hold.append(command)
            raise OutcomeUnknownError("not committed in time")
        outcome = self.apply(command)
        if self.lose:
            raise OutcomeUnknownError("not committed in time")
        return outcome

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        return [await self.propose(command, actor=actor) for command in commands]

    # -- what happens --------------------------------------------------------------------------------------------------

    def host(self, name: str = "h1") -> Host:
        return self.state.hosts[name]

    def connect(self, name: str = "h1", number: int = 1, *, lease_ttl_ms: int = 10_000) -> None:
        self.accept(agent_connected(name, session=session(name, number), lease_ttl_ms=lease_ttl_ms))

    def add_host(self, name: str = "h1", *, lease_ttl_ms: int = 10_000) -> None:
        self.accept(declare_host(name))
        self.connect(name, lease_ttl_ms=lease_ttl_ms)

    async def heartbeat(self, name: str = "h1", number: int = 1, sequence: int = 1) -> float | None:
        """The time to live that it was granted, or None."""
        grants = await self.keeper.grant([Heartbeat(name, session(name, number), sequence)], timeout_s=1.0)
        return grants[0].ttl_s if grants else None

    async def tick(self) -> list[Command]:
        """One tick, and the end of what it proposed."""
        findings = self.hostwatch.tick()
        for finding in findings:
            await self.hostwatch.propose(finding)
        return list(findings)

    async def pass_time(self, seconds: float, *heard: str) -> list[Command]:
        """Ticks, with heartbeats of the first sessions of `heard` every second."""
        found: list[Command] = []
        for step in range(round(seconds / PERIOD_S)):
            self.time_s += PERIOD_S
            if step % 2 == 1:
                for name in heard:
                    await self.heartbeat(name)
            found += await self.tick()
        return found
