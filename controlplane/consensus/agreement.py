"""Whether this node's state is the one that the others have, judged by state hashes at equal indexes.

Every node notes its hash at every multiple of `STEP` and wherever a round of applying ended, keeps the last of them in
a bounded ring, and tells the newest to its peers. Two different hashes at one index mean that one of the two applied
wrongly (a broken memory, another program, a fault of determinism), and from then on its answers are wrong too.

- A hash that a majority of the voters has is the right one; who has another one has diverged and stops for good.
- Without a majority either way nobody can tell who is right. The leader's state is the one that was used, so whoever
  differs from the leader stops: at once when every voter was heard, else when nobody else decided for `UNDECIDED_S`.
- While a node differs from anyone and it is not decided, it does not stand for election and takes no snapshot.

Pure bookkeeping: it knows no clock and sends nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controlplane.ports import Divergence

STEP = 64
KEPT = 512
"""Hashes of one's own: at one entry per round, as many entries back are comparable, and `KEPT * STEP` under load."""
KEPT_HEARD = 32
"""Of each peer: it tells a few a second, and those that this node has not reached yet must wait here."""
UNDECIDED_S = 10.0
"""Longer than a restart of the member whose hash would decide."""


@dataclass(frozen=True, slots=True)
class _Conflict:
    """A peer's hash differs from this node's, and no majority says who is right."""

    seen: Divergence
    own: str
    since_s: float
    all_heard: bool
    """Every voter told its hash at that index: waiting will not decide it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """This node has to stop."""

    evidence: tuple[int, str]
    """Where its hash is not the expected one, and which it has there: the others are to know."""
    reason: str


class Agreement:
    """What one node knows of the hashes of all."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._own: dict[int, str] = {}
        self._heard: dict[str, dict[int, str]] = {}
        self._open: set[int] = set()
        self._diverged: dict[str, Divergence] = {}
        self._conflicts: dict[str, _Conflict] = {}
        self.checked_index = 0
        """The highest index at which a majority is known to have this node's hash."""

    def note(self, index: int, state_hash: str) -> None:
        """This node's state at `index`. Indexes go up; `restart` when they do not."""
        self._own[index] = state_hash
        if len(self._own) > KEPT:
            del self._own[next(iter(self._own))]
        if any(index in heard for heard in self._heard.values()):
            self._open.add(index)

    def restart(self) -> None:
        """The state was replaced by another one: what was noted of the old one says nothing about it."""
        self._own.clear()
        self._open.clear()
        self._conflicts.clear()
        self._diverged.pop(self._node, None)

    def hear(self, peer: str, points: Iterable[tuple[int, str]]) -> None:
        """`peer` told its hashes at some indexes."""
        heard = self._heard.setdefault(peer, {})
        for index, state_hash in points:
            heard[index] = state_hash
            if len(heard) > KEPT_HEARD:
                del heard[next(iter(heard))]
            if index in self._own:
                self._open.add(index)

    def newest(self) -> list[tuple[int, str]]:
        """What to tell the others: the newest hash, and the newest at a multiple of `STEP`."""
        points: list[tuple[int, str]] = []
        for index in reversed(self._own):
            if not points or index % STEP == 0:
                points.append((index, self._own[index]))
            if index % STEP == 0:
                break
        return points[::-1]

    def judge(self, *, voters: Collection[str], leader: str | None, now_s: float) -> Verdict | None:
        """That this node has to stop, or None."""
        for index in sorted(self._open):
            self._tally(index, frozenset(voters), now_s)
        self._open.clear()
        own = self._diverged.get(self._node)
        if own is not None:
            return Verdict(
                (own.index, own.state_hash),
                f"at index {own.index} the state hash is {own.state_hash}, but a majority of the voters has "
                f"{own.expected}",
            )
        conflict = self._conflicts.get(leader or "")
        if conflict is not None and (conflict.all_heard or now_s - conflict.since_s > UNDECIDED_S):
            return Verdict(
                (conflict.seen.index, conflict.own),
                f"at index {conflict.seen.index} the state hash is {conflict.own}, the leader {leader} has "
                f"{conflict.seen.state_hash}, and no majority of the voters says which is right",
            )
        return None

    def forget(self, peer: str) -> None:
        """`peer` is no member any more."""
        for known in (self._heard, self._diverged, self._conflicts):
            known.pop(peer, None)

    @property
    def suspect(self) -> bool:
        """Whether this node's own state may be the wrong one."""
        return bool(self._conflicts) or self._node in self._diverged

    def outvoted(self, peer: str) -> bool:
        """Whether a majority contradicts `peer`: it must not lead."""
        return peer in self._diverged

    @property
    def divergences(self) -> tuple[Divergence, ...]:
        """What is known to differ, by node; of the undecided ones the peers' side."""
        undecided = {peer: conflict.seen for peer, conflict in self._conflicts.items()}
        return tuple(finding for _, finding in sorted({**undecided, **self._diverged}.items()))

    def _tally(self, index: int, voters: frozenset[str], now_s: float) -> None:
        own = self._own.get(index)
        if own is None:
            return
        told = {peer: heard[index] for peer, heard in self._heard.items() if index in heard}
        told[self._node] = own
        counts: dict[str, int] = {}
        for node, state_hash in told.items():
            if node in voters:
                counts[state_hash] = counts.get(state_hash, 0) + 1
        expected = next((each for each, count in counts.items() if count > len(voters) // 2), None)
        for node, state_hash in told.items():
            if expected is None:
                if state_hash != own:
                    earlier = self._conflicts.get(node)
                    self._conflicts[node] = _Conflict(
                        Divergence(node, index, state_hash, ""),
                        own,
                        now_s if earlier is None else earlier.since_s,
                        all_heard=voters <= told.keys(),
                    )
                else:
                    self._settle(node, index)
            elif state_hash == expected:
                self._settle(node, index)
            else:
                self._conflicts.pop(node, None)
                self._diverged[node] = Divergence(node, index, state_hash, expected)
        if own == expected:
            self.checked_index = max(self.checked_index, index)
            # A majority stands by this node, so an older dispute is not about its own state.
            for peer in [peer for peer, conflict in self._conflicts.items() if conflict.seen.index <= index]:
                del self._conflicts[peer]

    def _settle(self, node: str, index: int) -> None:
        """`node` is right at `index`, whatever was found of it before."""
        found = self._diverged.get(node)
        if found is not None and found.index < index:
            del self._diverged[node]
        conflict = self._conflicts.get(node)
        if conflict is not None and conflict.seen.index <= index:
            del self._conflicts[node]
