"""Tells agents whom to trust, and during a rotation of the cluster's authority to renew.

By level, not by event: each session is told what the state says as often as that changes, and a host that a rotation
waits for is asked again until the state says that it has shown its new certificate. As long as the authority never was
rotated nothing is told, and agents trust what they joined with.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from controlplane.api.gateway.session import AgentSession
from controlplane.api.gateway.sessions import Sessions
from controlplane.machine import authorities
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.credentials import ClusterAuthority, MemberKind
from controlplane.ports import Clock, StateReader
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

LOOK_S = 0.2
IDLE_S = 60.0
"""As long as there is one authority, there is nothing to look at."""
AGAIN_S = 5.0
"""A host that was asked to renew and did not is asked again."""
PER_LOOK = 10
"""Hosts that are told at once: each of them signs a request, and each answer is an entry of the log."""


@dataclass(frozen=True, slots=True)
class _Told:
    session: str
    authorities: Table[ClusterAuthority]
    renew: bool
    at_s: float


class TrustTeller:
    """For the sessions of one node."""

    def __init__(self, reader: StateReader, sessions: Sessions, clock: Clock) -> None:
        self._reader = reader
        self._sessions = sessions
        self._clock = clock
        self._told: dict[str, _Told] = {}
        """By host."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._reader.until(lambda state: len(state.authorities) > 1, timeout_s=IDLE_S)
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        state = self._reader.state
        if len(state.authorities) < 2:
            return
        now_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
        here = {session.host: session for session in self._sessions}
        self._told = {host: told for host, told in self._told.items() if host in here}
        left = PER_LOOK
        for host, session in here.items():
            renew = authorities.waits_for(state, MemberKind.HOST, host, now_ms)
            if left and self._is_news(session, state, renew=renew, now_s=now_s):
                left -= 1
                session.send(wire.ToAgent(trust=_message(state, renew=renew)))
                self._told[host] = _Told(session.session, state.authorities, renew, now_s)

    def _is_news(self, session: AgentSession, state: State, *, renew: bool, now_s: float) -> bool:
        told = self._told.get(session.host)
        if told is None or told.session != session.session or told.authorities is not state.authorities:
            return True
        return renew and (not told.renew or now_s - told.at_s >= AGAIN_S)


def _message(state: State, *, renew: bool) -> wire.Trust:
    return wire.Trust(
        authorities="".join(each.certificate for each in authorities.trusted(state)),
        retired=authorities.retired_fingerprints(state),
        renew=renew,
    )
