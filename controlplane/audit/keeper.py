"""On the node that leads: begins the audit chain, and drops what is held of it beyond `keep_records`.

A record that a node still has to write is kept; the machine looks at that again (`machine.audit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from controlplane.machine.audit import PATIENCE_MS
from controlplane.machine.state import State
from controlplane.model.commands import BeginAudit, DropAudit
from controlplane.ports import Clock, LogError, Proposer, StateReader

ACTOR = "audit"
PERIOD_S = 2.0
BEGINNING_S = 0.1
"""While there is no chain: what is changed before it begins is not recorded."""
_SLACK = 0.1
"""Of `keep_records`: what may be there above before it is worth a command."""

_log = structlog.get_logger(__name__)


def droppable(state: State, keep: int, *, now_ms: int) -> int | None:
    """Up to which record the chain may be dropped now; None: nothing, or too little to be worth it."""
    if len(state.audit) <= keep * (1 + _SLACK):
        return None
    waited_for = [each.through for each in state.audit_exports.values() if now_ms - each.at < PATIENCE_MS]
    through = min([state.audit_head - keep, *waited_for])
    return through if through >= state.audit_first else None


class Keeper:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        clock: Clock,
        *,
        node: str,
        is_leader: Callable[[], bool],
        keep_records: int,
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._node = node
        self._is_leader = is_leader
        self._keep = keep_records

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.round()
            except LogError as error:
                _log.info("audit.not_committed", error=str(error))
            await asyncio.sleep(PERIOD_S if self._reader.state.audit_head else BEGINNING_S)

    async def round(self) -> None:
        if not (self._is_leader() and self._reader.caught_up):
            return
        state = self._reader.state
        if not state.audit_head:
            await self._proposer.propose(BeginAudit(node=self._node), actor=ACTOR)
        elif (through := droppable(state, self._keep, now_ms=self._clock.now_ms())) is not None:
            await self._proposer.propose(DropAudit(through=through), actor=ACTOR)
