"""The newest events, in the order in which they came about: a part of the state, so that every node tells the same.

A queue in blocks that shares structure between versions: a block that is full never changes again, and a snapshot
writes it once. What is over `KEPT` goes at the other end, and the place of what went last is kept, so that an answer
can say that it is cut. Like the audit chain it is no part of the state's digest (docs/adr/0191).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from immutables import Map

from controlplane.model.event_records import EventRecord, Place
from controlplane.model.types import record

KEPT = 10_000
BLOCK = 128
WHOLE = 2**31 - 1
"""A number that no event of a revision has: the place after all of them."""


@record
class RecentEvents:
    blocks: Map[int, tuple[EventRecord, ...]] = Map()
    """By position // BLOCK; what stands in the first one before `head` is forgotten."""
    head: int = 0
    tail: int = 0
    forgotten: Place = (0, 0)
    """The newest that is not held; everything after it is."""

    def __len__(self) -> int:
        return self.tail - self.head

    def at(self, position: int) -> EventRecord:
        """`position` is from `head` to `tail` - 1."""
        return self.blocks[position // BLOCK][position % BLOCK]

    def after(self, place: Place) -> range:
        """Positions of what came about after `place`, as far as it is held."""
        positions = range(self.head, self.tail)
        return positions[bisect_right(positions, place, key=lambda position: self.at(position).place) :]

    def holds_all_after(self, place: Place) -> bool:
        return place >= self.forgotten

    def added(self, events: Sequence[EventRecord]) -> RecentEvents:
        """With `events`, which are newer than all others, and without the oldest beyond `KEPT`."""
        if not events:
            return self
        blocks, tail = self.blocks, self.tail
        left = list(events)
        while left:
            number, used = divmod(tail, BLOCK)
            new, left = left[: BLOCK - used], left[BLOCK - used :]
            blocks = blocks.set(number, (*blocks.get(number, ()), *new))
            tail += len(new)
        longer = RecentEvents(blocks=blocks, head=self.head, tail=tail, forgotten=self.forgotten)
        return longer._shortened() if len(longer) > KEPT else longer

    def _shortened(self) -> RecentEvents:
        head = self.tail - KEPT
        forgotten = self.at(head - 1).place
        blocks = self.blocks
        for number in range(self.head // BLOCK, head // BLOCK):
            blocks = blocks.delete(number)
        return RecentEvents(blocks=blocks, head=head, tail=self.tail, forgotten=forgotten)


def unknown_before(revision: int) -> RecentEvents:
    """Of a state that came without its events: nothing that led to `revision` is known."""
    return RecentEvents(forgotten=(revision, WHOLE))


def loaded(blocks: Mapping[int, Iterable[EventRecord]], ends: tuple[int, int], forgotten: Place) -> RecentEvents:
    """From a snapshot. Raises ValueError unless `blocks` are those from head to tail."""
    head, tail = ends
    held = {number: tuple(block) for number, block in blocks.items()}
    sizes = {number: min(BLOCK, tail - number * BLOCK) for number in range(head // BLOCK, -(-tail // BLOCK))}
    if not 0 <= head <= tail or {number: len(block) for number, block in held.items()} != sizes:
        raise ValueError(f"state snapshot: the blocks of events are not those from {head} to {tail}")
    return RecentEvents(blocks=Map(held), head=head, tail=tail, forgotten=forgotten)
