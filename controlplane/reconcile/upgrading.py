"""Raises the cluster's machine version once every member knows the next one, on the node that leads.

Members say at every introduction what their build knows. One that is not connected counts as one that knows nothing:
it may come back with an older build. Nothing is urgent, so rounds go by the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from controlplane.machine.outcome import Rejected
from controlplane.model.commands import RaiseMachineVersion
from controlplane.ports import LogStatus, Proposer, StateReader
from controlplane.reconcile.rounds import survived

ACTOR = "upgrade"
PERIOD_S = 2.0

_log = structlog.get_logger(__name__)


class VersionRaiser:
    """`status`: the log's, a moment ago."""

    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        *,
        is_leader: Callable[[], bool],
        status: Callable[[], LogStatus | None],
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._is_leader = is_leader
        self._status = status

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._is_leader() and self._reader.caught_up:
                with survived(ACTOR):
                    await self._round()
            await asyncio.sleep(PERIOD_S)

    async def _round(self) -> None:
        status = self._status()
        known = min(status.machine_versions.values(), default=0) if status is not None else 0
        if known <= self._reader.state.machine_version:
            return
        outcome = await self._proposer.propose(RaiseMachineVersion(version=known), actor=ACTOR)
        if isinstance(outcome, Rejected):
            _log.info("upgrade.conflict", version=known, reason=outcome.message)
        else:
            _log.info("upgrade.machine_version", version=known)
