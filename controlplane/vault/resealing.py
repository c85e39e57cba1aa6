"""Ends a rotation: seals anew what earlier data keys encrypt, then drops them, on the node that leads.

Level-based: a round reads the whole state, does a bounded step of what is left, and proposes it. What another leader
has done is done, and a step that comes too late or twice changes nothing. Every node, whether it leads or not, forgets
what was dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import structlog

from controlplane.machine.outcome import Rejected
from controlplane.machine.secrets import active_key, sealed_with
from controlplane.machine.state import State
from controlplane.model.commands import DropDataKey, Reseal, Resealed
from controlplane.ports import LogError, Proposer, StateReader
from controlplane.ports.secrets import VaultError
from controlplane.vault.vault import ClusterVault

ACTOR = "secrets"
PERIOD_S = 1.0
PER_STEP = 50
"""MicroVMs: a command of them is far below what an entry of the log may hold."""
_log = structlog.get_logger(__name__)


class Resealer:
    def __init__(
        self, reader: StateReader, proposer: Proposer, vault: ClusterVault, is_leader: Callable[[], bool]
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._vault = vault
        self._is_leader = is_leader

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._vault.forget_dropped()
            try:
                while self._is_leader() and self._reader.caught_up and await self._step(self._reader.state):
                    pass
            except (LogError, VaultError) as error:
                _log.warning("secrets.not_resealed", error=str(error))
            except Exception:
                # What cannot be sealed anew must not take the whole front down with it, again and again.
                _log.exception("secrets.round_broke")
            await asyncio.sleep(PERIOD_S)

    async def _step(self, state: State) -> bool:
        """Whether there may be another one at once. Raises LogError, VaultError."""
        active = active_key(state)
        if active is None or len(state.data_keys) == 1:
            return False
        old = sorted(state.data_keys.keys() - {active.id})
        vms = list(islice(sealed_with(state, *old), PER_STEP))
        if not vms:
            return await self._drop(old)
        values = {vm.meta.uid: self._vault.reseal(vm) for vm in vms}
        command = Reseal(
            values={
                uid: {name: Resealed(digest=each.digest, sealed=each.sealed) for name, each in sealed.items()}
                for uid, sealed in values.items()
            }
        )
        outcome = await self._proposer.propose(command, actor=ACTOR)
        _log.info("secrets.resealed", microvms=len(vms), data_key=active.id)
        return not isinstance(outcome, Rejected)

    async def _drop(self, old: list[str]) -> bool:
        outcomes = await self._proposer.propose_each([DropDataKey(id=each) for each in old], actor=ACTOR)
        _log.info("secrets.data_keys_dropped", data_keys=old)
        return not any(isinstance(outcome, Rejected) for outcome in outcomes)
