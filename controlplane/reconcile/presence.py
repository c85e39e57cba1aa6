"""Watches that hosts are heard, on the node that leads.

Heartbeats are not logged: every node knows how long ago its own sessions were heard, and the leader asks all nodes. A
session that nobody has heard for `timeout_s` of this process's own monotonic time is proposed lost. A new leader knows
nothing, so it waits the full time again before it believes that anyone is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from controlplane.model.commands import AgentLost
from controlplane.ports import AgentLink, Clock, LogError, Proposer, StateReader

ACTOR = "presence"
PERIOD_S = 1.0

_log = structlog.get_logger(__name__)


class PresenceWatch:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        agents: AgentLink,
        clock: Clock,
        is_leader: Callable[[], bool],
        *,
        timeout_s: float,
    ) -> None:
        self._reader = reader
        self._proposer = proposer
        self._agents = agents
        self._clock = clock
        self._is_leader = is_leader
        self._timeout_s = timeout_s
        self._heard: dict[str, float] = {}
        """Session to the monotonic time at which it was last heard, or first looked for."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._is_leader():
                try:
                    await self._look()
                except LogError as error:
                    _log.warning("presence.propose_failed", error=str(error))
                except Exception:
                    # The front's other parts must not end with this one; the next look begins afresh.
                    _log.exception("presence.look_broke")
            else:
                self._heard.clear()
            await asyncio.sleep(PERIOD_S)

    async def _look(self) -> None:
        present, _ = await self._agents.presence(timeout_s=PERIOD_S)
        now = self._clock.monotonic_s()
        sessions = {host.session: name for name, host in self._reader.state.hosts.items() if host.session is not None}
        self._heard = {session: self._heard.get(session, now) for session in sessions}
        for each in present:
            if each.session in self._heard:
                heard = now - each.last_heartbeat_age_s
                self._heard[each.session] = max(self._heard[each.session], heard)
        for session, heard in sorted(self._heard.items()):
            silent_s = now - heard
            if silent_s > self._timeout_s:
                host = sessions[session]
                _log.warning("presence.host_lost", host=host, silent_s=round(silent_s, 1))
                reason = f"silent for {silent_s:.0f} s"
                await self._proposer.propose(AgentLost(host=host, session=session, reason=reason), actor=ACTOR)
