"""Empties the hosts that are to be drained or maintained, on the node that leads.

Level-based: whatever woke it, a round reads the whole state, asks the hosts that could take the next microVMs for bids,
and proposes what `decide.evacuation` makes of the answers. The machine verifies each step again by its epoch, so one
that comes too late or twice is refused.

Moving a microVM while both copies run would begin here as well: instead of an `Evict`, once a host has offered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from controlplane.bidding import ask
from controlplane.decide.evacuation import Step, landed, to_ask_about, to_empty, with_bids, without_asking
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.model.commands import Evict, HostEvacuated, MarkStaying
from controlplane.model.resources import Host, MicroVM
from controlplane.ports import AgentLink, Proposer, StateReader
from controlplane.reconcile.rounds import survived

ACTOR = "evacuation"
PERIOD_S = 1.0
GATHER_S = 0.1
"""Rounds are no closer than this."""

_log = structlog.get_logger(__name__)


class EvacuationRunner:
    def __init__(
        self, reader: StateReader, proposer: Proposer, agents: AgentLink, is_leader: Callable[[], bool]
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._agents = agents
        self._is_leader = is_leader
        self._asked_about: dict[str, str] = {}
        """Host to the uid at which its last round ended."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._reader.state
            if self._is_leader() and self._reader.caught_up and self._reader.begun:
                with survived(ACTOR):
                    # One host after the other: the next one sees what the one before has begun.
                    hosts = to_empty(seen)
                    self._asked_about = {host.meta.name: self._asked_about.get(host.meta.name, "") for host in hosts}
                    for host in hosts:
                        await self._round(host.meta.name)
            await asyncio.sleep(GATHER_S)
            await self._reader.until(lambda now, seen=seen: _changed(seen, now), timeout_s=PERIOD_S)

    async def _round(self, name: str) -> None:
        state = self._reader.state
        host = state.hosts.get(name)
        if host is None or host.evacuating is None:
            return
        steps = without_asking(state, host)
        vms = to_ask_about(state, host, self._asked_about.get(name, "")) if not steps else []
        if vms:
            self._asked_about[name] = vms[-1].meta.uid
        # With nothing to ask about, what stays may still have to be shut down.
        if not steps and (vms or _all_stay(state, host)):
            steps = await self._asked(state, host, vms)
        await self._propose(steps)

    async def _asked(self, state: State, host: Host, vms: Sequence[MicroVM]) -> list[Step]:
        # What is on its way has its room: whoever is full once that has landed need not be asked.
        answers = await ask(self._agents, landed(state), vms)
        now = self._reader.state
        current = now.hosts.get(host.meta.name)
        if current is None or current.evacuating is None:
            return []
        still = [vm for each in vms if (vm := now.microvms.get(each.meta.uid)) is not None and vm.epoch == each.epoch]
        return with_bids(now, current, still, answers)

    async def _propose(self, steps: Sequence[Step]) -> None:
        if not steps:
            return
        outcomes = await self._proposer.propose_each(steps, actor=ACTOR)
        for step, outcome in zip(steps, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                _log.info("evacuation.conflict", host=step.host, reason=outcome.message)
                continue
            match step:
                case Evict():
                    _log.info("evacuation.moves", host=step.host, uid=step.uid, epoch=step.epoch)
                case MarkStaying():
                    _log.info("evacuation.stays", host=step.host, uid=step.uid, reason=step.reason, halt=step.halt)
                case HostEvacuated():
                    _log.info("evacuation.done", host=step.host)


def _all_stay(state: State, host: Host) -> bool:
    return all(vm.stay is not None for vm in state.microvms_on(host.meta.name))


def _changed(before: State, now: State) -> bool:
    return now.hosts is not before.hosts or now.microvms is not before.microvms
