"""Requests a follower forwards to the leader, matched to their answers by this node's own numbers.

An answer may never come. A call whose peer disconnects or is no longer the leader ends at once: for a proposal the
outcome is then unknown.
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

    def peer_lost(self, peer: str) -> None:
        for asked, future in self._open.values():
            if asked == peer and not future.done():
                future.set_exception(PeerLostError(f"{peer} disconnected or was deposed before it answered"))

    def fail_all(self) -> None:
        for peer in {peer for peer, _ in self._open.values()}:
            self.peer_lost(peer)
