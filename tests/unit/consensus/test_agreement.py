"""Whose state is wrong, judged from hashes at equal indexes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.consensus.agreement import KEPT, KEPT_HEARD, STEP, UNDECIDED_S, Agreement, Verdict
from controlplane.ports import Divergence

THREE = ("a", "b", "c")


def judge(
    agreement: Agreement, *, voters: tuple[str, ...] = THREE, leader: str | None = "b", now_s: float = 0.0
) -> Verdict | None:
    return agreement.judge(voters=voters, leader=leader, now_s=now_s)


def test_equal_hashes_of_a_majority_settle_an_index() -> None:
    agreement = Agreement("a")
    agreement.note(5, "x")
    assert judge(agreement) is None
    assert agreement.checked_index == 0
    agreement.hear("b", [(5, "x")])
    assert judge(agreement) is None
    assert (agreement.checked_index, agreement.divergences, agreement.suspect) == (5, (), False)


def test_hashes_at_other_indexes_say_nothing() -> None:
    agreement = Agreement("a")
    agreement.note(5, "x")
    agreement.hear("b", [(6, "y")])
    agreement.hear("c", [(4, "z")])
    assert judge(agreement) is None
    assert (agreement.checked_index, agreement.suspect) == (0, False)


@pytest.mark.parametrize("leader", ["a", "b", None])
def test_who_is_outvoted_stops_whether_it_leads_or_not(leader: str | None) -> None:
    agreement = Agreement("a")
    agreement.note(5, "wrong")
    agreement.hear("b", [(5, "right")])
    agreement.hear("c", [(5, "right")])
    verdict = judge(agreement, leader=leader)
    assert verdict is not None
    assert verdict.evidence == (5, "wrong")
    assert verdict.reason == "at index 5 the state hash is wrong, but a majority of the voters has right"
    assert agreement.divergences == (Divergence("a", 5, "wrong", "right"),)


def test_a_majority_sees_who_differs_and_does_not_elect_it() -> None:
    agreement = Agreement("a")
    agreement.note(5, "x")
    agreement.hear("b", [(5, "x")])
    agreement.hear("c", [(5, "y")])
    assert judge(agreement, leader="c") is None
    assert agreement.divergences == (Divergence("c", 5, "y", "x"),)
    assert agreement.outvoted("c")
    assert not agreement.suspect
    # It is believed again when it was repaired and agrees.
    agreement.note(9, "z")
    for peer in "bc":
        agreement.hear(peer, [(9, "z")])
    assert judge(agreement) is None
    assert agreement.divergences == ()


def test_of_two_voters_the_follower_stops_at_once_and_the_leader_stays() -> None:
    for node, other in (("a", "b"), ("b", "a")):
        agreement = Agreement(node)
        agreement.note(5, node)
        agreement.hear(other, [(5, other)])
        verdict = judge(agreement, voters=("a", "b"), leader="b")
        assert agreement.suspect
        assert agreement.divergences == (Divergence(other, 5, other, ""),)
        if node == "b":
            assert verdict is None
        else:
            assert verdict is not None
            assert "the state hash is a, the leader b has b, and no majority" in verdict.reason


def test_a_dispute_waits_for_the_third_voter_but_not_for_ever() -> None:
    def disputed() -> Agreement:
        agreement = Agreement("a")
        agreement.note(5, "x")
        agreement.hear("b", [(5, "y")])
        assert judge(agreement, now_s=1.0) is None
        assert agreement.suspect
        return agreement

    agreement = disputed()
    assert judge(agreement, now_s=1.0 + UNDECIDED_S) is None
    assert judge(agreement, now_s=1.1 + UNDECIDED_S) is not None
    for third, stops in (("x", False), ("y", True), ("z", True)):
        agreement = disputed()
        agreement.hear("c", [(5, third)])
        assert (judge(agreement, now_s=2.0) is not None) == stops
        assert agreement.suspect == stops


def test_the_third_voter_decides_at_a_later_index_too() -> None:
    agreement = Agreement("a")
    agreement.note(5, "x")
    agreement.hear("b", [(5, "y")])
    assert judge(agreement) is None
    agreement.note(9, "xx")
    agreement.hear("c", [(9, "xx")])
    assert judge(agreement, now_s=100.0) is None
    assert not agreement.suspect


def test_a_dispute_without_a_leader_stops_nobody() -> None:
    agreement = Agreement("a")
    agreement.note(5, "x")
    agreement.hear("b", [(5, "y")])
    assert judge(agreement, leader=None) is None
    assert judge(agreement, leader=None, now_s=1000.0) is None
    assert agreement.suspect


def test_a_learner_is_judged_and_judges_nobody() -> None:
    agreement = Agreement("l")
    agreement.note(5, "x")
    agreement.hear("a", [(5, "y")])
    agreement.hear("b", [(5, "y")])
    assert judge(agreement) is not None
    voter = Agreement("a")
    voter.note(5, "y")
    voter.hear("b", [(5, "y")])
    voter.hear("l", [(5, "x")])
    assert judge(voter) is None
    assert voter.outvoted("l")
    voter.forget("l")
    assert voter.divergences == ()


def test_a_hash_told_early_waits_until_this_node_is_there() -> None:
    agreement = Agreement("a")
    agreement.hear("b", [(STEP, "right")])
    agreement.hear("c", [(STEP, "right")])
    agreement.note(STEP, "wrong")
    assert judge(agreement) is not None


def test_a_replaced_state_is_judged_anew() -> None:
    agreement = Agreement("a")
    agreement.note(5, "wrong")
    agreement.hear("b", [(5, "right")])
    judge(agreement)
    agreement.restart()
    agreement.note(7, "good")
    agreement.hear("b", [(7, "good")])
    assert judge(agreement) is None
    assert not agreement.suspect


def test_the_newest_hash_and_the_newest_at_a_step_are_told() -> None:
    agreement = Agreement("a")
    assert agreement.newest() == []
    agreement.note(STEP, "s")
    assert agreement.newest() == [(STEP, "s")]
    agreement.note(STEP + 3, "t")
    agreement.note(STEP + 5, "u")
    assert agreement.newest() == [(STEP, "s"), (STEP + 5, "u")]


def test_what_is_kept_is_bounded() -> None:
    agreement = Agreement("a")
    for index in range(1, KEPT + 2):
        agreement.note(index, "x")
    agreement.hear("b", [(1, "y")])
    assert judge(agreement) is None
    assert not agreement.suspect, "index 1 is forgotten"
    agreement.hear("b", [(2, "y")])
    assert judge(agreement) is None
    assert agreement.suspect
    early = Agreement("a")
    early.hear("b", [(index, "y") for index in range(1, KEPT_HEARD + 2)])
    early.note(1, "x")
    assert judge(early) is None
    assert not early.suspect, "what was told of index 1 is forgotten"


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=5), st.integers(0, 4))
def test_never_do_a_majority_and_a_minority_both_go_on(hashes: list[str], leading: int) -> None:
    """Everyone told everyone its hash at one index: who goes on agrees with the majority, or is the leader alone."""
    names = [f"n{i}" for i in range(len(hashes))]
    leader = names[leading % len(names)]
    going_on: dict[str, str] = {}
    for name, own in zip(names, hashes, strict=True):
        agreement = Agreement(name)
        agreement.note(5, own)
        for peer, theirs in zip(names, hashes, strict=True):
            if peer != name:
                agreement.hear(peer, [(5, theirs)])
        if agreement.judge(voters=names, leader=leader, now_s=0.0) is None:
            going_on[name] = own
    assert len(set(going_on.values())) == 1
    top = max(set(hashes), key=hashes.count)
    right = top if hashes.count(top) > len(hashes) // 2 else hashes[names.index(leader)]
    assert going_on == {name: own for name, own in zip(names, hashes, strict=True) if own == right}
