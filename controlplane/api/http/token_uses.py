"""When API tokens were used last: noted here for nothing, told to the log seldom.

A use is told only when the one that the state knows is older than an interval, all of them in one command, and the
machine takes none that is not. So a token costs one write in that time at most, however often and at however many nodes
it is used, and `last_used_at` is true to that interval.
"""

from __future__ import annotations

import asyncio

import structlog

from controlplane.machine.api_tokens import USES_EVERY_MS
from controlplane.model.api_tokens import ApiToken
from controlplane.model.commands import NoteApiTokenUses
from controlplane.ports import LogError, Proposer

ACTOR = "api-tokens"
TELL_EVERY_S = 15.0
_log = structlog.get_logger("api.http")


class TokenUses:
    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self._used: dict[str, int] = {}

    def note(self, token: ApiToken, now_ms: int) -> None:
        if token.last_used_at is None or now_ms >= token.last_used_at + USES_EVERY_MS:
            self._used[token.name] = now_ms

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            await self.tell()

    async def tell(self) -> None:
        """What was not told is told with the next."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await self._proposer.propose(NoteApiTokenUses(used=used), actor=ACTOR)
        except LogError as error:
            self._used = used | self._used
            _log.info("token_uses_not_told", error=str(error))
