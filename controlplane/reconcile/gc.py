"""Garbage collection: ends what the policy keeps no longer, on the node that leads.

Level-based: every round makes the plan anew from the whole state (`decide.gc`) and proposes what is due, so many at a
time; the rest is in the next plan. A command that comes too late, or twice, is refused by the machine. Nothing is
urgent, so rounds go by the clock alone.

Logs say every collection with its reason. The tallies by trigger are in the state (`State.tallies`), so that they
outlive a leader; `gc.round` says how many wait for what, whenever that has changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from controlplane.decide.gc import GCPlan, plan
from controlplane.machine.outcome import Outcome, Rejected
from controlplane.model.gc import Trigger
from controlplane.ports import Clock, Proposer, StateReader
from controlplane.reconcile.rounds import survived
from controlplane.settings import GCSettings

ACTOR = "gc"

_log = structlog.get_logger(__name__)


class GCRunner:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        clock: Clock,
        *,
        is_leader: Callable[[], bool],
        settings: GCSettings,
        refused: Counter[Trigger],
    ) -> None:
        """refused: counts the collections that had become impossible since they were decided."""
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._is_leader = is_leader
        self._settings = settings
        self._refused = refused
        self._waiting: dict[str, int] = {}
        """What was said last of what waits."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with survived(ACTOR):
                await self._round()
            await asyncio.sleep(self._settings.every_s)

    async def _round(self) -> None:
        # A replica that has just been loaded may be of long ago; and after a restore nobody knows yet what is left.
        if not (self._is_leader() and self._reader.caught_up and self._reader.begun):
            self._waiting = {}
            return
        made = plan(
            self._reader.state, self._settings.policy, now_ms=self._clock.now_ms(), limit=self._settings.per_round
        )
        self._tell_waiting(made)
        if made.collect:
            commands = [each.command for each in made.collect]
            outcomes = await self._proposer.propose_each(commands, actor=ACTOR)
            self._refused.update(_tell(made, outcomes, actor=ACTOR))

    def _tell_waiting(self, made: GCPlan) -> None:
        waiting = dict(sorted(Counter(f"{each.trigger}:{each.waits_for}" for each in made.waiting).items()))
        if waiting != self._waiting:
            _log.info("gc.round", due=len(made.collect), waiting=waiting)
        self._waiting = waiting


def _tell(made: GCPlan, outcomes: Sequence[Outcome], *, actor: str) -> list[Trigger]:
    """Log what became of each collection of a plan. Gives the triggers of those that were refused."""
    refused: list[Trigger] = []
    for each, outcome in zip(made.collect, outcomes, strict=True):
        command = each.command
        said = {"trigger": command.trigger.value, "subject": str(command.subject), "host": command.subject.host}
        if isinstance(outcome, Rejected):
            refused.append(command.trigger)
            _log.info("gc.conflict", **said, reason=outcome.message)
        else:
            _log.warning("gc.collected", **said, reason=command.reason, since=command.since, actor=actor)
    return refused
