"""Watches that hosts are heard, on the node that leads.

Heartbeats are not logged: every node knows how long ago its own sessions were heard, and the leader asks all nodes. A
session that nobody has heard for `timeout_s` of this process's own monotonic time is proposed lost. What was not
watched is no evidence, so the whole wait begins again

- when this node begins to lead, in whatever term: it knows nothing of the time before;
- when this process was itself late by more than `STALLED_S`: nobody was listened to meanwhile;
- for a host whose session is at a node that does not answer: it is unknown, not lost. Only a node that the log has not
  heard for that long either does not excuse it: without a quorum it sends its agents to other nodes, and a live agent
  would have been heard there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from controlplane.model.commands import AgentLost
from controlplane.ports import AgentLink, Clock, LogError, Proposer, StateReader

ACTOR = "presence"
PERIOD_S = 1.0
STALLED_S = 1.0

_log = structlog.get_logger(__name__)


class PresenceWatch:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        agents: AgentLink,
        clock: Clock,
        *,
        leading_term: Callable[[], int | None],
        away: Callable[[], Collection[str]],
        timeout_s: float,
    ) -> None:
        """`leading_term` gives the term in which this node leads, or None; `away` the nodes that the log has not heard
        for `timeout_s`.
        """
        self._reader = reader
        self._proposer = proposer
        self._agents = agents
        self._clock = clock
        self._leading_term = leading_term
        self._away = away
        self._timeout_s = timeout_s
        self._heard: dict[str, float] = {}
        """Session to the monotonic time at which it was last heard, or first looked for."""
        self._term: int | None = None
        self._marked_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        self._marked_s = self._clock.monotonic_s()
        while True:
            term = self._leading_term()
            if term != self._term:
                self._term = term
                self._heard.clear()
            if term is not None:
                try:
                    await self._look()
                except LogError as error:
                    _log.warning("presence.propose_failed", error=str(error))
                except Exception:
                    # The front's other parts must not end with this one; the next look begins afresh.
                    _log.exception("presence.look_broke")
            self._mark(0.0)
            await asyncio.sleep(PERIOD_S)
            self._mark(PERIOD_S)

    def _mark(self, planned_s: float) -> None:
        """What was to take `planned_s` since the last mark is over; if it took much longer, begin the wait again."""
        now = self._clock.monotonic_s()
        late_s = now - self._marked_s - planned_s
        self._marked_s = now
        if late_s > STALLED_S:
            if self._heard:
                _log.warning("presence.stalled", late_s=round(late_s, 1))
            self._heard.clear()

    async def _look(self) -> None:
        present, silent_nodes = await self._agents.presence(timeout_s=PERIOD_S)
        self._mark(PERIOD_S)
        now = self._clock.monotonic_s()
        unknown = set(silent_nodes) - set(self._away())
        hosts = self._reader.state.hosts
        sessions = {host.session: name for name, host in hosts.items() if host.session is not None}
        self._heard = {
            session: now if hosts[name].node in unknown else self._heard.get(session, now)
            for session, name in sessions.items()
        }
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
