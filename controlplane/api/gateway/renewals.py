"""From the heartbeats that this node's agents send to the leader's grants, and back to the sessions they belong to.

Heartbeats that come while a question to the leader is under way share the next one: a node asks at once when it is
idle, and at most every `GATHER_S` however many hosts it has. What was not answered is asked again as long as the agent
sent nothing newer, because a lease counts from when the heartbeat was sent and so loses nothing but time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from controlplane.api.gateway.link import Link
from controlplane.api.gateway.sessions import Sessions
from controlplane.api.gateway.translate import encode_grant
from controlplane.ports import Clock, Grant, Heartbeat, LeaseGrantor, LogError, NoLeaderError
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

GATHER_S = 0.05
RETRY_S = 0.2
ASK_TIMEOUT_S = 1.0
"""Agents look for another node after 2 s without a grant: that must leave time for a second attempt."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LeadersKeeper:
    """Implements `ports.LeaseGrantor` on any node: its own keeper when it leads, else the way to the leader's."""

    def __init__(self, node: str, keeper: LeaseGrantor, link: Link, leader: Callable[[], str | None]) -> None:
        self._node = node
        self._keeper = keeper
        self._link = link
        self._leader = leader

    async def grant(self, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        leader = self._leader()
        if leader is None:
            raise NoLeaderError("no leader is known")
        if leader == self._node:
            return await self._keeper.grant(asked, timeout_s=timeout_s)
        return await self._link.grant(leader, asked, timeout_s=timeout_s)


class Renewals:
    def __init__(self, grantor: LeaseGrantor, sessions: Sessions, clock: Clock) -> None:
        self._grantor = grantor
        self._sessions = sessions
        self._clock = clock
        self._waiting: dict[str, Heartbeat] = {}
        """By host, the newest one that was not granted."""
        self._work = asyncio.Event()
        self._answered = True
        """Whether the last question was."""

    def heard(self, heartbeat: Heartbeat) -> None:
        self._waiting[heartbeat.host] = heartbeat
        self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            asked_s = self._clock.monotonic_s()
            pause_s = GATHER_S
            asked = self._take()
            if asked and not await self._ask(asked):
                pause_s = RETRY_S
            await asyncio.sleep(max(asked_s + pause_s - self._clock.monotonic_s(), 0.0))

    def _take(self) -> list[Heartbeat]:
        """What to ask now, without those whose session is gone."""
        waiting, self._waiting = self._waiting, {}
        return [each for each in waiting.values() if self._sessions.holds(each.host, each.session)]

    async def _ask(self, asked: Sequence[Heartbeat]) -> bool:
        """Whether the leader answered; if not, `asked` waits for another attempt."""
        try:
            grants = await self._grantor.grant(asked, timeout_s=ASK_TIMEOUT_S)
        except LogError as error:
            if self._answered:
                log.warning("leases not renewed", hosts=len(asked), error=str(error))
            self._answered = False
            for each in asked:
                self._waiting.setdefault(each.host, each)
            self._work.set()
            return False
        if not self._answered:
            log.info("leases renewed again", hosts=len(grants))
        self._answered = True
        for grant in grants:
            session = self._sessions.get(grant.host)
            if session is not None and session.session == grant.session:
                session.send(wire.ToAgent(grant=encode_grant(grant)))
        return True
