"""Pre-vote: before a node raises its term it asks whether it could win, so a node that was cut off disturbs nobody.

Pure bookkeeping; `core` sends the questions and acts on the verdict.
"""

from __future__ import annotations


class PreVote:
    """Answers to one question at a time: would you vote for me in `term`?"""

    def __init__(self, node: str, cluster_size: int) -> None:
        self._node = node
        self._cluster_size = cluster_size
        self._term = 0
        self._granted: set[str] = set()

    def begin(self, term: int) -> None:
        self._term = term
        self._granted = {self._node}

    def grant(self, peer: str, term: int) -> bool:
        """Count a grant; True when the majority is reached by it."""
        if term != self._term or peer in self._granted:
            return False
        self._granted.add(peer)
        return len(self._granted) == self._cluster_size // 2 + 1

    def cancel(self) -> None:
        self._term = 0


class Ballot:
    """Votes received in one real election; a vote repeated by a reconnect counts once."""

    def __init__(self, node: str, cluster_size: int) -> None:
        self._node = node
        self._cluster_size = cluster_size
        self._term = 0
        self._voters: set[str] = set()

    def count(self, peer: str, term: int) -> bool:
        """Count `peer`'s vote; True when it makes a majority."""
        if term != self._term:
            self._term = term
            self._voters = {self._node}
        self._voters.add(peer)
        return len(self._voters) > self._cluster_size // 2
