"""Read-index: a linearizable read needs proof that this node still led after the read arrived.

Reads wait for a heartbeat round begun after them to be echoed by a majority, and for the state to have applied what was
committed when the round began. Pure bookkeeping; no clock is trusted. Whoever needs that proof for its own sake (a
lease may be granted by the leader alone) rides on the same rounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

ReadCallback = Callable[["int | None"], None]
"""Gets the read index, or None when this node no longer leads."""
LeadershipCallback = Callable[["tuple[int, int] | None"], None]
"""Gets the read index and the term of the leadership that was confirmed, or None when this node no longer leads."""


class ReadRounds:
    def __init__(self) -> None:
        self._arrived: list[ReadCallback] = []
        self._waiting: deque[tuple[int, int, list[ReadCallback]]] = deque()
        self._echoed: dict[str, int] = {}

    def add(self, callback: ReadCallback) -> None:
        self._arrived.append(callback)

    @property
    def arrived(self) -> bool:
        """Whether reads wait for a round to begin."""
        return bool(self._arrived)

    @property
    def waiting(self) -> bool:
        """Whether reads wait for the echoes of a round."""
        return bool(self._waiting)

    def begin(self, round_number: int, commit_index: int) -> None:
        """The reads that arrived so far ride on `round_number`."""
        self._waiting.append((round_number, commit_index, self._arrived))
        self._arrived = []

    def echo(self, peer: str, round_number: int) -> None:
        if round_number > self._echoed.get(peer, 0):
            self._echoed[peer] = round_number

    def resolve(self, applied_index: int, read_index: int, others: Collection[str]) -> None:
        """Answer every read whose round a majority echoed and whose commit index is applied.

        `others` are the voters besides this node, which is one too.
        """
        if not self._waiting:
            return
        # This node counts for itself: `needed` others complete the majority.
        needed = (len(others) + 1) // 2
        ranked = sorted((self._echoed.get(other, 0) for other in others), reverse=True)
        confirmed = ranked[needed - 1] if needed else 0
        while self._waiting:
            round_number, commit_index, callbacks = self._waiting[0]
            if (needed and round_number > confirmed) or commit_index > applied_index:
                return
            self._waiting.popleft()
            for callback in callbacks:
                callback(read_index)

    def fail(self) -> None:
        """This node does not lead: nothing that waits can be answered here."""
        callbacks = self._arrived
        for _, _, more in self._waiting:
            callbacks = callbacks + more
        self._arrived = []
        self._waiting.clear()
        self._echoed.clear()
        for callback in callbacks:
            callback(None)
