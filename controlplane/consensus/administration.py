"""Changes of the membership as an operator asks for them, on any member.

The leader carries them out: it waits until the log allows a change, appends the new configuration and answers once it
is committed. A new voter is a learner first, and is promoted when it caught up in rounds (thesis, 4.2.1): each round
copies what the log held when the round began, and one that is shorter than an election timeout shows that the new voter
would not hold up commits. Every request can be repeated, so one whose leader was lost is simply asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Literal

from controlplane.consensus import engine
from controlplane.consensus.calls import PeerLostError
from controlplane.consensus.configuration import Configuration, promoted, removed, with_member, with_stores
from controlplane.consensus.core import RaftCore
from controlplane.consensus.errors import RemovedError
from controlplane.consensus.forwarding import GRACE_S
from controlplane.consensus.messages import Answer, ChangeMember, Message
from controlplane.consensus.runner import Outcome
from controlplane.consensus.succession import Succession
from controlplane.ports import LogError, Member, OutcomeUnknownError, RefusedError

_POLL_S = 0.02
_MAX_OPEN_CHANGES = 16

What = Literal["add", "promote", "remove"]


class Administrator(Succession):
    """A running member; implements `ports.LogAdmin`."""

    async def add_member(self, member: Member, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.add_member`."""
        await self._change("add", member.node, member, timeout_s)

    async def promote_member(self, node: str, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.promote_member`."""
        await self._change("promote", node, None, timeout_s)

    async def remove_member(self, node: str, *, timeout_s: float) -> None:
        """See `ports.LogAdmin.remove_member`."""
        await self._change("remove", node, None, timeout_s)

    async def _change(self, what: What, node: str, member: Member | None, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            if what == "remove" and node == self.settings.node and isinstance(self._failure, RemovedError):
                # It took effect, and this node heard of that before it heard its answer.
                return
            core = self._running()
            leader = core.leader
            if leader == self.settings.node:
                done = await self._change_here(core, what, node, member, deadline)
            elif leader is not None:
                done = await self._change_through(leader, what, node, member, deadline)
            else:
                done = False
            if done:
                return
            await self._leader_news(leader, deadline)

    # -- through another node ------------------------------------------------------------------------------------------

    async def _change_through(self, leader: str, what: What, node: str, member: Member | None, deadline: float) -> bool:
        """Ask `leader`. False when it does not lead, or was lost: asking again does no harm."""
        left_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        try:
            answer = await self._call(
                leader, lambda request: ChangeMember(request, what, node, left_s, member), deadline + GRACE_S
            )
        except TimeoutError:
            raise OutcomeUnknownError(f"the leader {leader} did not answer in time; look at the members") from None
        except PeerLostError:
            return False
        if answer is None or (answer.refused and not answer.text):
            return False
        if answer.unknown:
            raise OutcomeUnknownError(answer.text)
        if answer.refused:
            raise RefusedError(answer.text)
        return True

    def on_message(self, peer: str, message: Message) -> None:
        if not isinstance(message, ChangeMember):
            super().on_message(peer, message)
        elif len(self._changes) >= _MAX_OPEN_CHANGES:
            self._answer(peer, Answer(message.request, 0, 0, refused=True, text="too many changes are asked for"))
        else:
            task = asyncio.create_task(self._change_for(peer, message), name=f"raft {self.settings.node} change")
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    async def _change_for(self, peer: str, message: ChangeMember) -> None:
        """Carry out what `peer` asks for, and answer it."""
        deadline = asyncio.get_running_loop().time() + message.timeout_s
        refused, unknown, text = True, False, ""
        try:
            core = self._running()
            if core.is_leader and message.what == "transfer":
                text = await self.transfer_leadership(message.node or None, timeout_s=message.timeout_s)
                refused = False
            elif core.is_leader and message.what != "transfer":
                done = await self._change_here(core, message.what, message.node, message.member, deadline)
                refused = not done
        except OutcomeUnknownError as error:
            refused, unknown, text = False, True, str(error)
        except RefusedError as error:
            text = str(error)
        except LogError:
            # No leader, or this node stops: whoever asked looks for the leader again.
            pass
        self._answer(peer, Answer(message.request, 0, 0, refused, unknown, text[:2000]))

    # -- on the leader -------------------------------------------------------------------------------------------------

    async def _change_here(self, core: RaftCore, what: What, node: str, member: Member | None, deadline: float) -> bool:
        """Carry it out; False when this node does not lead any more and nothing may be left of it but a repetition."""
        if what == "promote":
            return await self._promote(core, node, deadline)
        if what == "remove":
            return await self._remove(core, node, deadline)
        if member is None:
            raise RefusedError("add: the member's addresses are missing")
        if not await self._commit(core, lambda now: with_member(now, member), deadline):
            return False
        return member.role == "learner" or await self._promote(core, node, deadline)

    async def _remove(self, core: RaftCore, node: str, deadline: float) -> bool:
        if node != self.settings.node or core.configuration is None:
            return await self._commit(core, lambda now: removed(now, node), deadline)
        removed(core.configuration, node)
        # The next leader removes this one: whoever asked is told to ask it.
        left_s = max(deadline - asyncio.get_running_loop().time(), 0.001)
        with suppress(OutcomeUnknownError):
            await self.transfer_leadership(None, timeout_s=left_s)
        return False

    async def _promote(self, core: RaftCore, node: str, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for round_number in count(1):
            began, target = loop.time(), core.last_index
            while (core.match_index(node) or 0) < target or not core.answered_lately(node):
                configuration = core.configuration
                if self._core is not core or not core.is_leader or configuration is None:
                    return False
                # Nothing to wait for when it is no member, or is a voter.
                if promoted(configuration, node) == configuration:
                    break
                if loop.time() >= deadline:
                    raise RefusedError(_not_caught_up(core, node, round_number, loop.time() - started))
                await asyncio.sleep(_POLL_S)
            if loop.time() - began <= self.settings.election_min_s:
                break
        return await self._commit(core, lambda now: promoted(now, node), deadline)

    async def _commit(self, core: RaftCore, make: Callable[[Configuration], Configuration], deadline: float) -> bool:
        """Append what `make` turns the configuration into, and wait until it is committed."""
        loop = asyncio.get_running_loop()
        while True:
            current = core.configuration
            if self._core is not core or not core.is_leader or current is None:
                return False
            new = make(current)
            blocked = core.change_blocked()
            if not blocked:
                break
            if loop.time() >= deadline:
                raise RefusedError(f"{blocked}; nothing was changed")
            await asyncio.sleep(_POLL_S)
        if new == current:
            return True
        stores = self._roster.stores if self._roster is not None else dict[str, str]()
        return await self._committed(core, with_stores(new, stores), deadline)

    async def _committed(self, core: RaftCore, new: Configuration, deadline: float) -> bool:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def resolved(position: tuple[int, int] | None, reason: int) -> None:
            if not future.done():
                future.set_result((position, reason))

        core.change_configuration(new, resolved)
        self._proposed.add(future)
        try:
            async with asyncio.timeout_at(deadline):
                position, reason = await future
        except TimeoutError:
            raise OutcomeUnknownError(
                "the change is in the leader's log, but a majority did not confirm it in time; it may still take "
                "effect: look at the members"
            ) from None
        finally:
            self._proposed.discard(future)
        if position is None and reason == engine.UNKNOWN_OUTCOME:
            raise OutcomeUnknownError("this node stopped before it knew whether the change is committed")
        return position is not None


def _not_caught_up(core: RaftCore, node: str, round_number: int, seconds: float) -> str:
    at = core.match_index(node) or 0
    how = "is still behind" if core.answered_lately(node) else "does not answer"
    return (
        f"{node} {how} after {seconds:.0f} s (round {round_number}): it has {at} of {core.last_index} entries. It "
        f"stays a learner. See that it runs with raft.join and can be reached, then promote it, or remove it"
    )
