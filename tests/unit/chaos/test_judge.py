"""The judge of the chaos checks bites on histories that are wrong, and lets right ones pass."""

from __future__ import annotations

import random

from chaos.history import Sighting, copies
from chaos.judge import Return, not_back, second_copies, wrong_end
from hypothesis import given
from hypothesis import strategies as st


def life(nonce: str, first_s: float, last_s: float, host: str | None = "h1", uid: str = "vm") -> list[Sighting]:
    """Four counts a second."""
    steps = int((last_s - first_s) * 4)
    return [Sighting(uid, nonce, count, first_s + count / 4, host) for count in range(steps + 1)]


def test_one_copy_after_another_passes() -> None:
    assert second_copies(life("a", 0, 10) + life("b", 14.3, 20, "h2") + life("c", 30, 40)) == []


def test_two_copies_at_once_are_found() -> None:
    (found,) = second_copies(life("a", 0, 16) + life("b", 14, 20, "h2"))
    assert found.startswith("vm had two copies: a on h1")
    assert "2.00 s into the life of b on h2" in found


def test_a_halted_copy_that_goes_on_later_is_found() -> None:
    """It was never seen at the same moment as the other one."""
    halted = [*life("a", 0, 5), Sighting("vm", "a", 500, 60.0, "h1")]
    assert len(second_copies(halted + life("b", 14, 30, "h2"))) == 1


def test_an_early_copy_that_outlives_several_is_found_in_each() -> None:
    assert len(second_copies(life("a", 0, 30) + life("b", 10, 12) + life("c", 20, 22))) == 2


def test_copies_of_different_microvms_are_no_pair() -> None:
    assert second_copies(life("a", 0, 10) + life("b", 5, 20, uid="other")) == []


def test_the_earlier_of_two_sightings_of_one_count_is_its_time() -> None:
    """A console that was read late does not make a copy live longer."""
    late = [Sighting("vm", "a", count, at_s + 30, "h1") for _, _, count, at_s, _ in life("a", 0, 10)]
    (copy,) = copies(life("a", 0, 10, None) + late)["vm"]
    assert (copy.first_s, copy.last_s, copy.host) == (0, 10, "h1")


def test_who_is_late_or_stays_away_is_named() -> None:
    seen = life("a", 0, 10) + life("b", 30, 40)
    assert not_back(seen, [Return("vm", 12, 31)]) == []
    assert not_back(seen, [Return("vm", 12, 25)]) == ["vm came back at 30.00 s, which is later than 25.00 s"]
    assert not_back(seen, [Return("vm", 12, 60, frozenset({"b"}))]) == ["vm never came back after 12.00 s"]
    assert not_back(seen, [Return("gone", 0, 60)]) == ["gone never came back after 0.00 s"]


def test_the_end_is_compared_with_the_api() -> None:
    seen = life("a", 0, 10) + life("b", 14, 20, "h2")
    assert wrong_end(seen, 18, {"vm": "h2"}) == []
    assert "should run on h1" in wrong_end(seen, 18, {"vm": "h1"})[0]
    assert "the API does not say so" in wrong_end(seen, 18, {})[0]
    assert "nothing was heard" in wrong_end(seen, 25, {"vm": "h2"})[0]
    assert "runs 2 times" in wrong_end(seen + life("c", 18, 20), 18.5, {"vm": "h2"})[0]


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.1, 20)), min_size=2, max_size=6),
    st.integers(0, 10),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_lives_in_a_row_pass_until_one_is_prolonged(
    lengths: list[tuple[float, float]], which: int, into: float, chance: random.Random
) -> None:
    """Whatever the order in which sightings arrive; `into` is how far into the next life the earlier one goes on."""
    lives: list[tuple[float, float]] = []
    now_s = 0.0
    for gap_s, length_s in lengths:
        lives.append((now_s + gap_s, now_s + gap_s + length_s))
        now_s = lives[-1][1]
    seen = [
        Sighting("vm", str(number), count, at_s, None)
        for number, ends in enumerate(lives)
        for count, at_s in enumerate(ends)
    ]
    chance.shuffle(seen)
    assert second_copies(seen) == []
    victim = which % (len(lives) - 1)
    first_s, last_s = lives[victim + 1]
    seen.append(Sighting("vm", str(victim), 99, first_s + into * (last_s - first_s), None))
    assert second_copies(seen) != []
