"""Handing leadership over: nothing is lost on the way, and a failed attempt changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.consensus.rig import Rig

from controlplane.consensus import engine
from controlplane.consensus.messages import StateHash, TimeoutNow, VoteReply, VoteRequest


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def handed(rig: Rig, target: str | None = None) -> list[str]:
    """Begin a handover; the list gets its outcome."""
    outcomes: list[str] = []
    rig.core.transfer(target, outcomes.append)
    rig.core.tick()
    return outcomes


def test_the_successor_is_told_once_its_log_is_level_and_everything_is_answered(rig: Rig) -> None:
    rig.lead()
    answered: list[int] = []
    rig.core.propose(b"x", lambda _, reason: answered.append(reason))
    rig.core.tick()
    rig.clear()
    outcomes = handed(rig, "b")
    assert rig.sent(TimeoutNow) == []
    rig.acknowledge("b")
    assert answered == [engine.SUCCESS]
    assert rig.sent(TimeoutNow, "b") == [TimeoutNow(rig.core.term)]
    assert rig.sent(TimeoutNow, "c") == []
    rig.core.tick()
    assert len(rig.sent(TimeoutNow)) == 1
    assert outcomes == []
    term = rig.core.term
    assert rig.ask_handed_vote("b", term + 1).granted
    assert (rig.core.role, rig.core.term, outcomes) == ("follower", term + 1, [""])


def test_what_is_proposed_during_a_handover_is_certainly_not_appended(rig: Rig) -> None:
    rig.lead()
    last = rig.data.journal.last_index
    handed(rig, "b")
    reasons: list[int] = []
    rig.core.propose(b"x", lambda _, reason: reasons.append(reason))
    rig.core.tick()
    assert reasons == [engine.NOT_LEADER]
    assert rig.data.journal.last_index == last


def test_without_a_name_the_most_up_to_date_voter_that_answers_is_chosen(tmp_path: Path) -> None:
    rig = Rig(tmp_path, peers="bcde")
    rig.lead()
    rig.core.propose(b"x", lambda _, __: None)
    rig.core.tick()
    for peer in "de":
        rig.acknowledge(peer)
    rig.core.disconnected("d")
    rig.clear()
    handed(rig)
    assert [peer for peer, message in rig.pairs() if isinstance(message, TimeoutNow)] == ["e"]


def test_a_successor_that_does_not_win_is_given_up_after_an_election_timeout(tmp_path: Path) -> None:
    rig = Rig(tmp_path, election_min_s=0.4, election_max_s=0.5)
    rig.lead()
    rig.acknowledge("b")
    outcomes = handed(rig, "b")
    assert outcomes == []
    rig.wait_until(lambda: bool(outcomes), answering="bc")
    assert "b did not take over within 0.5 s: it was not elected" in outcomes[0]
    assert rig.core.is_leader
    reasons: list[int] = []
    rig.core.propose(b"x", lambda _, reason: reasons.append(reason))
    rig.core.tick()
    rig.acknowledge("b")
    assert reasons == [engine.SUCCESS]


def test_an_attempt_that_cannot_work_says_why_and_changes_nothing(rig: Rig) -> None:
    assert handed(rig) == ["this node does not lead"]
    rig.lead()
    assert handed(rig, "x") == ["x is not another voter of this cluster (those are b, c)"]
    assert handed(rig, "a") == ["a is not another voter of this cluster (those are b, c)"]
    rig.core.disconnected("c")
    assert handed(rig, "c") == ["c is out of reach now, and only one that answers can lead"]
    outcomes = handed(rig, "b")
    assert handed(rig, "b") == ["the leadership is being handed to b already"]
    assert outcomes == []


def test_nobody_to_hand_over_to(tmp_path: Path) -> None:
    alone = Rig(tmp_path, peers="")
    alone.lead()
    assert handed(alone) == ["every other voter is out of reach now, and only one that answers can lead"]


def test_the_told_one_stands_at_once_and_says_that_it_was_asked(rig: Rig) -> None:
    rig.heartbeat("b", term=4)
    rig.clear()
    rig.hear("b", TimeoutNow(4))
    requests = rig.sent(VoteRequest)
    assert {request.pre for request in requests} == {False}
    assert {(request.term, request.handed_over) for request in requests} == {(5, True)}
    assert len(requests) == 2
    rig.hear("b", VoteReply(5, granted=True, pre=False))
    assert rig.core.is_leader


@pytest.mark.parametrize(("sender", "term"), [("c", 4), ("b", 3), ("b", 5)])
def test_only_the_leader_of_this_very_term_can_hand_over(rig: Rig, sender: str, term: int) -> None:
    rig.heartbeat("b", term=4)
    rig.clear()
    rig.hear(sender, TimeoutNow(term))
    assert rig.sent(VoteRequest) == []
    assert (rig.core.role, rig.core.term) == ("follower", 4)


def test_a_later_election_of_its_own_is_an_ordinary_one(rig: Rig) -> None:
    rig.heartbeat("b", term=4)
    rig.hear("b", TimeoutNow(4))
    rig.heartbeat("c", term=6)
    rig.clear()
    rig.core.campaign()
    rig.core.tick()
    assert {(request.term, request.handed_over) for request in rig.sent(VoteRequest)} == {(7, False)}


def test_voters_stick_to_a_leader_unless_it_asked_for_the_election_itself(rig: Rig) -> None:
    rig.heartbeat("b", term=4)
    assert not rig.ask_vote("c", 5).granted
    assert rig.core.term == 4
    assert rig.ask_handed_vote("c", 5).granted
    assert rig.core.term == 5


def test_a_handed_over_candidate_with_a_shorter_log_gets_no_vote(rig: Rig) -> None:
    rig.heartbeat("b", term=4, entries=[(4, b"\x00x")], commit_index=1)
    assert not rig.ask_handed_vote("c", 5, last=(3, 9)).granted


# -- what a dispute over the state means for leading -------------------------------------------------------------------


def test_nobody_votes_for_a_node_whose_state_a_majority_contradicts(rig: Rig) -> None:
    rig.heartbeat("b", entries=[(1, b"\x00x")], commit_index=2)
    state_hash = rig.state.digest()
    rig.hear("b", StateHash(1, [(2, state_hash)]))
    rig.hear("c", StateHash(1, [(2, "other")]))
    assert [finding.node for finding in rig.core.divergences] == ["c"]
    assert not rig.ask_handed_vote("c", 5).granted
    assert not rig.ask_handed_vote("c", 6).granted
    assert rig.ask_handed_vote("b", 7).granted


def test_a_node_whose_state_is_in_doubt_does_not_stand_for_election(tmp_path: Path) -> None:
    rig = Rig(tmp_path, election_min_s=0.4, election_max_s=0.5)
    rig.heartbeat("b", entries=[(1, b"\x00x")], commit_index=2)
    rig.hear("c", StateHash(1, [(2, "other")]))
    rig.clear()
    rig.hear("b", TimeoutNow(1))
    rig.wait_until(lambda: rig.core.leader is None)
    assert rig.sent(VoteRequest) == []
    rig.core.request_snapshot()
    assert rig.snapshots_due == 0
