"""Brings groups to what they declare, on the node that leads.

Level-based: whatever woke it, a round decides for every group from the whole state (`decide.groups`) and proposes one
step for each that needs one. A step says for which generation it was decided, so one that comes too late is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from controlplane.decide.groups import next_steps
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.ports import Clock, Ids, Proposer, StateReader
from controlplane.reconcile.rounds import survived

ACTOR = "groups"
PERIOD_S = 1.0
GATHER_S = 0.1
"""Rounds are no closer than this."""

_log = structlog.get_logger(__name__)


class GroupRunner:
    def __init__(
        self, reader: StateReader, proposer: Proposer, clock: Clock, ids: Ids, *, is_leader: Callable[[], bool]
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._ids = ids
        self._is_leader = is_leader

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._reader.state
            if self._is_leader() and self._reader.caught_up and self._reader.begun:
                with survived(ACTOR):
                    await self._round(seen)
            await asyncio.sleep(GATHER_S)
            await self._reader.until(lambda now, seen=seen: _changed(seen, now), timeout_s=PERIOD_S)

    async def _round(self, state: State) -> None:
        steps = next_steps(state, self._clock.now_ms(), self._ids.new)
        if not steps:
            return
        outcomes = await self._proposer.propose_each(steps, actor=ACTOR)
        for step, outcome in zip(steps, outcomes, strict=True):
            named = {"namespace": step.namespace, "group": step.name, "generation": step.generation}
            if isinstance(outcome, Rejected):
                _log.info("groups.conflict", **named, reason=outcome.message)
            else:
                stall = step.stall.message if step.stall is not None else ""
                counts = {"ended": len(step.end), "renewed": len(step.renew), "added": len(step.add)}
                _log.info("groups.step", **named, **counts, stall=stall)


def _changed(before: State, now: State) -> bool:
    return (
        now.microvm_groups is not before.microvm_groups
        or now.microvms is not before.microvms
        or now.hosts is not before.hosts
    )
