"""Whether the agents of a node without a leader are better off at another one.

If another node has a leader, or may have one that nobody here can know of, they are: they could be granted to there. If
this node and those that it can ask are a majority and none of them has a leader, there is none anywhere, since a leader
needs a majority too and every two of them share a node. Then agents stay. To change node would gain them nothing, and
each change is an entry in the log, all of them at the moment when a leader is there again.

So a node that has just lost the leader asks the others, and tells its agents as long as the answer is to stay. It sends
them away only when that was not so for `CUT_OFF_S`: others notice a little later than this node that a leader is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum

from controlplane.ports import Clock, Contact, NodeLink, NodeView, StateReader

PERIOD_S = 0.25
TELL_S = 1.0
"""Agents are told to stay no more often: as often as they ask for a lease."""
ASK_S = 0.4
"""Who does not answer by then is not counted on."""
CUT_OFF_S = 1.0
"""Longer than an election's timeouts of two nodes may be apart."""
BEHIND_S = 3.0
"""A replica that does not follow its leader for so long cannot serve agents either."""


class Advice(Enum):
    SERVE = "serve"
    STAY = "stay"
    """No grant is due anywhere."""
    LEAVE = "leave"


def is_led_nowhere(own: Contact, others: Mapping[str, NodeView | str]) -> bool:
    """Whether no node at all has a leader, as far as a majority can tell."""
    views = [view.contact for view in others.values() if isinstance(view, NodeView)]
    if own.role == "silent" or any(contact.leader is not None for contact in views):
        return False
    return own.votes + sum(contact.votes for contact in views) >= own.majority


class Adviser:
    """Looks every `PERIOD_S`, while there is no leader, at what the other nodes believe."""

    def __init__(
        self, node: str, reader: StateReader, link: NodeLink, clock: Clock, say: Callable[[Advice], None]
    ) -> None:
        """`say` is told what follows from a look; that agents are to stay, every `TELL_S`."""
        self._node = node
        self._reader = reader
        self._link = link
        self._clock = clock
        self._say = say
        self._served_s = clock.monotonic_s()
        """When agents were served last, or had nothing to gain elsewhere."""
        self._told_s = -math.inf

    async def look(self) -> None:
        advice, now_s = await self._advice(), self._clock.monotonic_s()
        if advice is Advice.STAY:
            if now_s - self._told_s < TELL_S:
                return
            self._told_s = now_s
        self._say(advice)

    async def _advice(self) -> Advice:
        if self._reader.caught_up:
            self._served_s = self._clock.monotonic_s()
            return Advice.SERVE
        contact = self._reader.contact
        if contact.leader is not None:
            return Advice.LEAVE if self._waited_s() > BEHIND_S else Advice.SERVE
        views = await self._link.views(timeout_s=ASK_S)
        if is_led_nowhere(contact, {node: view for node, view in views.items() if node != self._node}):
            self._served_s = self._clock.monotonic_s()
            return Advice.STAY
        return Advice.LEAVE if self._waited_s() > CUT_OFF_S else Advice.SERVE

    def _waited_s(self) -> float:
        return self._clock.monotonic_s() - self._served_s
