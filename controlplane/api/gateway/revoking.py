"""Whose certificates count no more, and the end of the sessions that began with one.

A certificate is revoked by its serial, or with the authority that issued it: once that is retired, nobody can tell what
else its key has signed. A session outlives the certificate that it began with, and after a rotation every session
began with one of the old authority. So it may go on if its agent has renewed by it: by serials, each shown for the next
one, that the state knows as issued by an authority that is trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from controlplane.api.gateway.peer import Caller
from controlplane.api.gateway.session import AgentSession
from controlplane.identity.check import issuer_retired
from controlplane.machine import authorities
from controlplane.machine.certificates import revocation
from controlplane.machine.state import State
from controlplane.model.credentials import MemberKind, holder_key
from controlplane.ports import StateReader

PERIOD_S = 0.2
"""A session that counts no more may go on for so long after this node knows of it."""
IDLE_S = 60.0
"""Between looks for news that does not come; that it comes is told."""


def withdrawn(state: State, shown: Caller) -> str | None:
    """Why the certificate that a caller showed counts no more; None while it does."""
    party = shown.party
    return revocation(state, party.kind, party.name, shown.serial) or _of_retired(state, shown)


class SessionCutter:
    """For the sessions of one node."""

    def __init__(self, reader: StateReader, sessions: Iterable[AgentSession]) -> None:
        self._reader = reader
        self._sessions = sessions

    async def run(self) -> None:
        """Until cancelled. Agents that have another certificate come back by that."""
        seen: State | None = None
        while True:
            state = await self._reader.until(lambda now, seen=seen: _is_news(seen, now), timeout_s=IDLE_S)
            if state is not None:
                self.look(state)
                seen = state
            await asyncio.sleep(PERIOD_S)

    def look(self, state: State) -> None:
        for session in self._sessions:
            if (reason := _ended(state, session)) is not None:
                session.end(reason)


def _is_news(seen: State | None, now: State) -> bool:
    """A table is the same object until something in it changes; who comes later is judged when it comes."""
    return seen is None or now.holders is not seen.holders or now.authorities is not seen.authorities


def _ended(state: State, session: AgentSession) -> str | None:
    for serial in session.serials:
        if (reason := revocation(state, MemberKind.HOST, session.host, serial)) is not None:
            return reason
    return None if _has_renewed(state, session) else _of_retired(state, session.shown)


def _has_renewed(state: State, session: AgentSession) -> bool:
    """Whether one of its later certificates was issued by an authority that is trusted."""
    trusted = {each.fingerprint for each in authorities.trusted(state)}
    holder = state.holders.get(holder_key(MemberKind.HOST, session.host))
    later = session.serials - {session.shown.serial}
    return holder is not None and any(
        each.serial in later and each.authority in trusted for each in holder.certificates
    )


def _of_retired(state: State, shown: Caller) -> str | None:
    return issuer_retired(shown.certificate, [each.certificate for each in authorities.retired(state)])
