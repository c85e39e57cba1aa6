"""Who leads next: handing the leadership over, asked for on any member or by a planned stop."""

from __future__ import annotations

import asyncio
import logging

from controlplane.consensus.calls import PeerLostError
from controlplane.consensus.core import RaftCore
from controlplane.consensus.forwarding import GRACE_S, Forwarder
from controlplane.consensus.messages import ChangeMember
from controlplane.ports import LogError, NoLeaderError, OutcomeUnknownError, RefusedError

_HANDOVER_S = 1.0
"""About an election timeout: waiting longer than that for a handover saves nobody anything."""

_log = logging.getLogger(__name__)


class Succession(Forwarder):
    """A running member; implements the transfer of `ports.LogAdmin`."""

    async def transfer_leadership(self, target: str | None, *, timeout_s: float) -> str:
        """See `ports.LogAdmin.transfer_leadership`. What is proposed meanwhile waits and goes to the new leader."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            core = self._running()
            leader = core.leader
            if leader is None:
                await self._leader_news(leader, deadline)
            elif leader == target:
                return leader
            elif leader == self.settings.node:
                refusal = await self._transfer_here(core, target, deadline)
                if refusal:
                    raise RefusedError(refusal)
                return await self._successor_of(leader, deadline)
            else:
                found = await self._transfer_through(leader, target, deadline)
                if found:
                    return found
                await self._leader_news(leader, deadline)

    async def _transfer_through(self, leader: str, target: str | None, deadline: float) -> str:
        """Ask `leader` to hand over. The node that leads then; empty when `leader` did not lead."""
        left_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        try:
            answer = await self._call(
                leader, lambda request: ChangeMember(request, "transfer", target or "", left_s), deadline + GRACE_S
            )
        except TimeoutError:
            raise OutcomeUnknownError(f"the leader {leader} did not answer in time") from None
        except PeerLostError:
            # It was deposed while it was asked, as it should be.
            return await self._successor_of(leader, deadline)
        if answer is None or (answer.refused and not answer.text):
            return ""
        if answer.unknown:
            raise OutcomeUnknownError(answer.text)
        if answer.refused:
            raise RefusedError(answer.text)
        return answer.text

    async def _transfer_here(self, core: RaftCore, target: str | None, deadline: float) -> str:
        """Why this node leads on or did not lead; empty once another one may."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        core.transfer(target, lambda refusal: None if future.done() else future.set_result(refusal))
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        except TimeoutError:
            raise OutcomeUnknownError("the handover had begun, and was not over in time") from None

    async def _successor_of(self, leader: str, deadline: float) -> str:
        """The next node that leads, once this node hears it."""
        while True:
            now_leads = self._running().leader
            if now_leads not in (None, leader):
                assert now_leads is not None
                return now_leads
            try:
                await self._leader_news(now_leads, deadline)
            except NoLeaderError:
                raise OutcomeUnknownError(f"{leader} gave up the leadership, and nobody leads yet") from None

    async def hand_over(self) -> None:
        """Before a planned stop: if this node leads, let another voter lead. Best effort, at most `_HANDOVER_S`."""
        if self._core is None or not self._core.is_leader:
            return
        try:
            leader = await self.transfer_leadership(None, timeout_s=_HANDOVER_S)
        except LogError as error:
            _log.info("%s: stops while it leads: %s", self.settings.node, error)
        else:
            _log.info("%s: %s leads now; this node can stop", self.settings.node, leader)
