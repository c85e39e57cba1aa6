"""The ring of recent events: what it holds, what it has forgotten, and that it says so."""

from __future__ import annotations

import random

import pytest

from controlplane.machine import recent_events
from controlplane.machine.recent_events import BLOCK, KEPT, WHOLE, RecentEvents, loaded, unknown_before
from controlplane.model.event_records import EventRecord, Reason
from controlplane.model.types import Kind


def event(revision: int, number: int = 0) -> EventRecord:
    return EventRecord(
        revision=revision,
        number=number,
        at=revision,
        kind=Kind.HOST,
        name="h1",
        uid="u1",
        reason=Reason.READY,
        message="",
        actor="agent",
    )


def held(recent: RecentEvents) -> list[EventRecord]:
    return [recent.at(position) for position in range(recent.head, recent.tail)]


@pytest.mark.parametrize("seed", range(3))
def test_it_holds_the_newest_and_knows_what_it_forgot(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "KEPT", 3 * BLOCK + 7)
    kept, source = 3 * BLOCK + 7, random.Random(seed)
    recent, every = RecentEvents(), list[EventRecord]()
    for revision in range(1, 400):
        new = [event(revision, number) for number in range(source.choice((0, 1, 1, 2, BLOCK + 3)))]
        every += new
        recent = recent.added(new)
        assert held(recent) == every[-kept:]
        assert recent.forgotten == (every[-kept - 1].place if len(every) > kept else (0, 0))
        assert len(recent.blocks) <= kept // BLOCK + 2, "what is forgotten takes no room"
        place = source.choice(every).place if every else (0, 0)
        after = [recent.at(position) for position in recent.after(place)]
        assert after == [each for each in every[-kept:] if each.place > place]
        assert recent.holds_all_after(place) == (len(after) == sum(each.place > place for each in every))
        again = loaded(dict(recent.blocks), (recent.head, recent.tail), recent.forgotten)
        assert again == recent


def test_a_version_stays_as_it_was_whatever_becomes_of_the_next() -> None:
    first = RecentEvents().added([event(1)])
    second = first.added([event(number) for number in range(2, KEPT + 2)])
    assert held(first) == [event(1)]
    assert (len(second), second.forgotten) == (KEPT, (1, 0))


def test_a_state_without_its_events_says_that_it_knows_none_of_before() -> None:
    recent = unknown_before(7)
    assert not recent.holds_all_after((6, WHOLE))
    assert recent.holds_all_after((7, WHOLE))


def test_blocks_that_are_not_those_of_the_header_are_refused() -> None:
    recent = RecentEvents().added([event(number) for number in range(1, BLOCK + 3)])
    blocks = dict(recent.blocks)
    with pytest.raises(ValueError, match="the blocks of events"):
        loaded({0: blocks[0]}, (recent.head, recent.tail), recent.forgotten)
    with pytest.raises(ValueError, match="the blocks of events"):
        loaded(blocks, (recent.head, recent.tail + 1), recent.forgotten)
