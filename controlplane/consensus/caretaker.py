"""A leader that removes members which are gone for good, when `dead_server_cleanup_s` says after how long.

`cleanup` decides, once a second; the removal is an ordinary one with all its checks, and the next look waits for it.
"""

from __future__ import annotations

import asyncio
import logging

from controlplane.consensus import engine
from controlplane.consensus.administration import Administrator
from controlplane.consensus.cleanup import Silence, to_remove
from controlplane.consensus.core import RaftCore
from controlplane.ports import LogError

_PERIOD_S = 1.0
_REMOVAL_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class Caretaker(Administrator):
    """A running member; as leader it looks after the membership."""

    _cleaning: asyncio.Task[None] | None = None
    _removed_dead: tuple[str, ...] = ()

    async def start(self) -> None:
        """See `Runner.start`."""
        await super().start()
        if self.settings.dead_server_cleanup_s:
            self._cleaning = asyncio.create_task(self._clean_up(), name=f"raft {self.settings.node} cleanup")

    async def stop(self) -> None:
        """See `Runner.stop`."""
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.wait([self._cleaning])
            self._cleaning = None
        await super().stop()

    async def _clean_up(self) -> None:
        after_s = self.settings.dead_server_cleanup_s
        term, silence, looked_s = 0, Silence(), 0.0
        while True:
            await asyncio.sleep(min(_PERIOD_S, after_s / 10))
            core = self._core
            configuration = core.configuration if core is not None else None
            if core is None or configuration is None or not core.is_leader:
                continue
            if core.term != term:
                # What another leader heard is not known here.
                term, silence = core.term, Silence()
            now_s = engine.monotonic_s()
            others = [member.node for member in configuration.members if member.node != self.settings.node]
            silent_s = silence.look(now_s, {node: core.answered_since(node, looked_s) for node in others})
            looked_s = now_s
            recent_s = min(self.settings.election_max_s + 2 * _PERIOD_S, after_s / 2)
            dead = to_remove(configuration, self.settings.node, silent_s, after_s=after_s, recent_s=recent_s)
            if dead is not None:
                await self._remove_dead(core, dead, silent_s[dead])
                # What was heard while the removal was under way was not looked at.
                silence = Silence()

    async def _remove_dead(self, core: RaftCore, node: str, silent_s: float) -> None:
        _log.warning("%s: removing %s, which has not answered for %.0f s", self.settings.node, node, silent_s)
        try:
            await self.remove_member(node, timeout_s=_REMOVAL_TIMEOUT_S)
        except LogError as error:
            _log.warning("%s: %s is not removed: %s", self.settings.node, node, error)
            return
        if self._core is core and core.is_leader:
            self._removed_dead = (*self._removed_dead, node)
