"""Requests a follower forwards to the leader, matched to their answers by this node's own numbers.

An answer may never come. A call whose peer disconnects ends at once, and one whose peer does not lead any more soon
after: a leader that lives says what became of its calls when it is deposed. For a proposal the outcome is then unknown.
"""

from __future__ import annotations

import asyncio
import random

from controlplane.consensus.messages import Answer


class PeerLostError(Exception):
    """The peer disconnected, or was deposed, before it answered."""


class Calls:
    def __init__(self) -> None:
        # Random start: an answer to a call of this node's previous life matches nothing.
        self._next = random.getrandbits(60)
        self._open: dict[int, tuple[str, asyncio.Future[Answer]]] = {}

    def begin(self, peer: str) -> tuple[int, asyncio.Future[Answer]]:
        self._next += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[self._next] = (peer, future)
        return self._next, future

    def end(self, request: int) -> None:
        self._open.pop(request, None)

    def answer(self, peer: str, message: Answer) -> None:
        found = self._open.get(message.request)
        if found is not None and found[0] == peer and not found[1].done():
            found[1].set_result(message)

    @property
    def newest(self) -> int:
        """The number of the last call that was begun."""
        return self._next

    def peer_lost(self, peer: str, *, up_to: int | None = None) -> None:
        """End the calls to `peer`, or those of them up to the number `up_to`."""
        for request, (asked, future) in self._open.items():
            if asked == peer and not future.done() and (up_to is None or request <= up_to):
                future.set_exception(PeerLostError(f"{peer} disconnected or was deposed before it answered"))

    def fail_all(self) -> None:
        for peer in {peer for peer, _ in self._open.values()}:
            self.peer_lost(peer)
