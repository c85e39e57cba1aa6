"""Asking the leader: what a member does with a request that only the leader can carry out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from controlplane.consensus.messages import Answer, Message
from controlplane.consensus.runner import Runner
from controlplane.ports import NoLeaderError

_RETRY_S = 0.05
GRACE_S = 0.5
"""The leader keeps the deadline and says why it was missed; this much later the asker stops waiting for its words."""


class Forwarder(Runner):
    """A running member that knows how to reach the leader, whoever that is by then."""

    async def _call(self, leader: str, make: Callable[[int], Message], deadline: float) -> Answer | None:
        """The leader's answer; None when the request was certainly not sent."""
        transport = self._transport
        request, future = self._calls.begin(leader)
        try:
            if transport is None or not transport.send(leader, make(request)):
                return None
            async with asyncio.timeout_at(deadline):
                return await future
        finally:
            self._calls.end(request)

    async def _leader_news(self, seen: str | None, deadline: float) -> None:
        """Wait until another attempt may go better. Raises NoLeaderError at the deadline: nothing was appended so
        far.
        """
        loop = asyncio.get_running_loop()
        core = self._running()
        wait_until = min(deadline, loop.time() + _RETRY_S)
        if core.leader == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(wait_until):
                    await self._news.wait()
        if loop.time() >= deadline:
            raise NoLeaderError("no leader in time; nothing was appended")
