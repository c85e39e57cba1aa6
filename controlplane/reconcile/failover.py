"""Failover: gives up the microVMs of fenced hosts, on the node that leads, so that they are placed anew.

Level-based: whatever woke it, a round decides from the whole state (`decide.failover`) and proposes. The commands carry
the term and the epochs they were decided from, so one that comes too late, or twice, is refused by the machine.

When the breaker closes because hosts come back, the others are probably on their way: they get `CALM_S` before anything
is given up on the word of the leases alone. An operator who overrides it waits for nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

import structlog

from controlplane.decide.breaker import Breaker, FailoverLimits
from controlplane.decide.failover import failover
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.ports import Clock, Proposer, StateReader
from controlplane.reconcile.rounds import survived

ACTOR = "failover"
PERIOD_S = 1.0
GATHER_S = 0.1
"""Rounds are no closer than this: hosts change with every microVM that comes and goes."""
CALM_S = 15.0
NAMED = 5
"""MicroVMs that a message about many names."""

_log = structlog.get_logger(__name__)

_CLOSED = Breaker(open=False, lost=0, of=0, message="")


class FailoverRunner:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        clock: Clock,
        *,
        leading_term: Callable[[], int | None],
        limits: FailoverLimits,
    ) -> None:
        """`leading_term` gives the term in which this node leads, or None."""
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._leading_term = leading_term
        self._limits = limits
        self._held: Mapping[str, str] = {}
        """What was said last of each microVM that stays where it is."""
        self._cut = _CLOSED
        """The breaker as it was looked at last."""
        self._opened_s = -math.inf
        """When it was seen open last."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._reader.state
            with survived(ACTOR):
                await self._round(seen)
            await asyncio.sleep(GATHER_S)
            await self._reader.until(lambda now, seen=seen: _is_news(seen, now), timeout_s=PERIOD_S)

    async def _round(self, state: State) -> None:
        term = self._leading_term()
        if term is None or not self._reader.begun:
            # Whoever leads next, be it this node, says all of it once more.
            self._held, self._cut = {}, _CLOSED
            return
        now_ms = self._clock.now_ms()
        decided = failover(state, term=term, limits=self._limits, now_ms=now_ms)
        cut = decided.cut
        self._tell_breaker(cut)
        self._tell_held(decided.held)
        calm = cut.override is not None or self._clock.monotonic_s() - self._opened_s >= CALM_S
        due = [each for each in decided.resurrect if calm or state.hosts[each.host].confirmed_by is not None]
        if not due:
            return
        outcomes = await self._proposer.propose_each(due, actor=ACTOR)
        for command, outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                _log.info("failover.conflict", uid=command.uid, host=command.host, reason=outcome.message)
            else:
                _log.warning("failover.resurrected", uid=command.uid, host=command.host, reason=command.reason)

    def _tell_breaker(self, now: Breaker) -> None:
        before, self._cut = self._cut, now
        if now.open:
            self._opened_s = self._clock.monotonic_s()
        if now.open and not before.open:
            _log.critical("failover.breaker_opened", lost=now.lost, of=now.of, message=now.message)
        elif before.open and not now.open:
            _log.critical("failover.breaker_closed", lost=now.lost, of=now.of)
        if now.override != before.override:
            if now.override is not None:
                _log.critical("failover.overridden", actor=now.override.actor, reason=now.override.reason)
            else:
                _log.critical("failover.override_ended", breaker_open=now.open)

    def _tell_held(self, held: Mapping[str, str]) -> None:
        news: dict[str, list[str]] = {}
        for uid, reason in sorted(held.items()):
            if self._held.get(uid) != reason:
                news.setdefault(reason, []).append(uid)
        for reason, uids in news.items():
            _log.warning("failover.held", reason=reason, microvms=len(uids), some=uids[:NAMED])
        self._held = held


def _is_news(before: State, now: State) -> bool:
    return now.hosts is not before.hosts or now.overrides is not before.overrides
