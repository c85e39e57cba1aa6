"""Pre-vote: before a node raises its term it asks whether it could win, so a node that was cut off disturbs nobody.

Pure bookkeeping; `core` sends the questions and acts on the verdict. Votes are counted by the voters of the
configuration that counts at that moment; a learner's vote is heard and weighs nothing.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from controlplane.consensus.configuration import majority


class PreVote:
    """Answers to one question at a time: would you vote for me in `term`?"""

    def __init__(self, node: str) -> None:
        self._node = node
        self._term = 0
        self._granted: set[str] = set()
        self._won = False

    def begin(self, term: int) -> None:
        self._term = term
        self._granted = {self._node}
        self._won = False

    def grant(self, peer: str, term: int, voters: AbstractSet[str]) -> bool:
        """Count a grant; True when the majority of `voters` is reached by it."""
        if term != self._term or self._won:
            return False
        self._granted.add(peer)
        self._won = len(self._granted & voters) >= majority(len(voters))
        return self._won

    def cancel(self) -> None:
        self._term = 0


class Ballot:
    """Votes received in one real election; a vote repeated by a reconnect counts once."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._term = 0
        self._granted: set[str] = set()

    def count(self, peer: str, term: int, voters: AbstractSet[str]) -> bool:
        """Count `peer`'s vote; True when it makes a majority of `voters`."""
        if term != self._term:
            self._term = term
            self._granted = {self._node}
        self._granted.add(peer)
        return len(self._granted & voters) >= majority(len(voters))
