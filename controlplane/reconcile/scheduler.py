"""The scheduler: places what is pending, on the node that leads.

Level-based: whatever woke it, a round reads all pending microVMs from the state, asks hosts that fit for bids, and
proposes what `decide_round` makes of them. A microVM that found no host stays pending with its reasons and is tried
again when a host or a microVM changes, and every few seconds in any case, because measured load changes silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from controlplane.bidding import ask
from controlplane.decide.rounds import decide_round
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.model.commands import MarkUnplaced, Place
from controlplane.model.resources import MicroVM
from controlplane.ports import AgentLink, Proposer, StateReader
from controlplane.reconcile.rounds import survived

ACTOR = "scheduler"
RETRY_PERIOD_S = 1.0
MAX_PER_ROUND = 256

_log = structlog.get_logger(__name__)


class Scheduler:
    def __init__(
        self, reader: StateReader, proposer: Proposer, agents: AgentLink, is_leader: Callable[[], bool]
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._agents = agents
        self._is_leader = is_leader
        self._retried = ""
        """The uid at which the last round ended its retries."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            placed = 0
            seen = self._reader.state
            may_place = self._is_leader() and self._reader.caught_up and self._reader.begun
            if may_place and len(seen.pending):
                with survived(ACTOR):
                    placed = await self._round(seen)
            if not placed:
                await self._reader.until(lambda now, seen=seen: _may_help(seen, now), timeout_s=RETRY_PERIOD_S)

    async def _round(self, state: State) -> int:
        """One round; gives how many microVMs were placed."""
        vms = self._next(state)
        answers = await ask(self._agents, state, vms)
        decided = decide_round(self._reader.state, _still_pending(self._reader.state, vms), answers)
        commands = [each for each in decided if isinstance(each, Place) or _is_news(state, each)]
        outcomes = await self._proposer.propose_each(commands, actor=ACTOR)
        placed = 0
        for command, outcome in zip(commands, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                _log.info("scheduler.conflict", uid=command.uid, reason=outcome.message)
            elif isinstance(command, Place):
                placed += 1
        return placed

    def _next(self, state: State) -> list[MicroVM]:
        """Whose turn it is: those that were never tried, then the others from where the last round ended.

        So any number of microVMs that fit nowhere keeps no other one waiting for ever.
        """
        waiting = [state.microvms[uid] for uid in state.pending]
        waiting.sort(key=lambda vm: (vm.unplaced is not None, vm.meta.uid <= self._retried, vm.meta.uid))
        turn = waiting[:MAX_PER_ROUND]
        self._retried = next((vm.meta.uid for vm in reversed(turn) if vm.unplaced is not None), self._retried)
        return turn


def _still_pending(state: State, vms: Sequence[MicroVM]) -> list[MicroVM]:
    """The same microVMs as they are now, without those that somebody changed while the bids were collected."""
    return [
        now
        for vm in vms
        if (now := state.microvms.get(vm.meta.uid)) is not None
        and now.meta.generation == vm.meta.generation
        and vm.meta.uid in state.pending
    ]


def _is_news(state: State, command: MarkUnplaced) -> bool:
    """Whether the reason differs from the recorded one: a round that changes nothing writes nothing."""
    vm = state.microvms.get(command.uid)
    return vm is None or vm.unplaced is None or vm.unplaced.message != command.message


def _may_help(before: State, now: State) -> bool:
    """Whether something changed that could place what could not be placed."""
    return now.hosts is not before.hosts or now.policies is not before.policies or _has_new_pending(before, now)


def _has_new_pending(before: State, now: State) -> bool:
    return now.pending is not before.pending and any(uid not in before.pending for uid in now.pending)
