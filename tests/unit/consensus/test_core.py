"""Regressions for the faults PySyncObj has as shipped, each against one core and a scripted outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.consensus.rig import Rig

from controlplane.consensus import engine
from controlplane.consensus.engine import check_engine, monotonic_s, upstream_engine
from controlplane.consensus.errors import DiskError, DiskFullError, EngineMismatchError, SafetyViolationError
from controlplane.consensus.messages import (
    AppendEntries,
    AppendReply,
    VoteReply,
    VoteRequest,
)

X, Y, Z = b"\x00x", b"\x00y", b"\x00z"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# -- log matching ------------------------------------------------------------------------------------------------------


def test_an_old_append_that_does_not_conflict_removes_nothing(rig: Rig) -> None:
    rig.heartbeat(entries=[(1, X), (1, Y), (1, Z)], commit_index=4)
    rig.clear()
    rig.heartbeat(entries=[(1, X)], commit_index=1)
    assert rig.commands() == [b"x", b"y", b"z"]
    # It vouches for what the message covered, not for whatever else lies here.
    assert rig.sent(AppendReply)[-1] == AppendReply(1, True, 2, 1)


def test_a_conflicting_uncommitted_entry_is_replaced_with_all_that_follow(rig: Rig) -> None:
    rig.heartbeat(entries=[(1, X), (1, Y), (1, Z)], commit_index=2)
    rig.heartbeat("c", term=2, prev_index=2, prev_term=1, entries=[(2, b"\x00new")], commit_index=2, round=1)
    assert rig.commands() == [b"x", b"new"]
    rig.restart()
    assert rig.commands() == [b"x", b"new"]


def test_a_committed_entry_is_never_replaced(rig: Rig) -> None:
    rig.heartbeat(entries=[(1, X), (1, Y)], commit_index=3)
    with pytest.raises(SafetyViolationError, match="entry 3 of term 1 is committed"):
        rig.heartbeat("c", term=2, prev_index=2, prev_term=1, entries=[(2, Z)], commit_index=2)
    assert rig.commands() == [b"x", b"y"]


def test_a_gap_is_refused_with_where_to_go_on(rig: Rig) -> None:
    rig.heartbeat(entries=[(1, X)], prev_index=9, prev_term=1)
    assert rig.sent(AppendReply)[-1] == AppendReply(1, False, 2, 1)
    assert rig.commands() == []


def test_progress_known_of_a_follower_never_goes_back(rig: Rig) -> None:
    rig.lead()
    for _ in range(5):
        rig.core.propose(b"x", lambda *_: None)
    rig.core.tick()
    last = rig.data.journal.last_index
    rig.acknowledge("b", last)
    rig.clear()
    rig.acknowledge("b", 3)
    rig.hear("b", AppendReply(rig.core.term, False, 2, 0))
    assert rig.core.match_index("b") == last
    assert not [m for m in rig.sent(AppendEntries, "b") if m.entries]


# -- acknowledgements --------------------------------------------------------------------------------------------------


def test_an_acknowledgement_of_another_term_commits_nothing(rig: Rig) -> None:
    rig.lead()
    outcomes: list[object] = []
    rig.core.propose(b"x", lambda *outcome: outcomes.append(outcome))
    rig.core.tick()
    index = rig.data.journal.last_index
    rig.hear("b", AppendReply(rig.core.term - 1, True, index, 0))
    assert outcomes == []
    assert rig.core.commit_index < index
    rig.acknowledge("b")
    assert outcomes == [((index, rig.core.term), engine.SUCCESS)]


def test_an_acknowledgement_of_what_was_never_sent_stops_the_node(rig: Rig) -> None:
    rig.lead()
    with pytest.raises(SafetyViolationError, match="does not exist"):
        rig.acknowledge("b", 1000)


def test_a_follower_acknowledges_only_after_its_sync(rig: Rig) -> None:
    rig.heartbeat()
    rig.clear()
    rig.core.receive("b", AppendEntries(1, 1, 0, 1, 2, [(1, X)]))
    rig.core.receive("b", AppendEntries(1, 2, 1, 1, 2, [(1, Y)]))
    assert rig.events == []
    rig.core.tick()
    assert rig.events == ["sync", ("b", AppendReply(1, True, 3, 2))]


def test_a_heartbeat_from_which_nothing_follows_is_answered_without_a_tick(rig: Rig) -> None:
    rig.heartbeat()
    rig.clear()
    rig.wakes = 0
    rig.core.receive("b", AppendEntries(1, 1, 0, 1, 2, []))
    assert (rig.events, rig.wakes) == ([("b", AppendReply(1, True, 1, 2))], 0)


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        ("b", AppendEntries(1, 1, 0, 1, 2, [(1, X)])),
        ("b", AppendEntries(1, 2, 1, 2, 2, [])),
        ("b", AppendEntries(2, 2, 1, 1, 2, [])),
        ("c", AppendEntries(2, 2, 1, 1, 2, [])),
    ],
    ids=["an entry", "news of a commit", "another term", "another leader"],
)
def test_what_follows_from_a_heartbeat_is_left_to_a_tick(rig: Rig, sender: str, message: AppendEntries) -> None:
    rig.heartbeat(entries=[(1, X)] if message.prev_index == 2 else [], commit_index=1)
    rig.clear()
    rig.wakes = 0
    rig.core.receive(sender, message)
    assert (rig.sent(AppendReply), rig.wakes) == ([], 1)
    rig.core.tick()
    assert rig.sent(AppendReply) == [AppendReply(message.term, True, 2, 2)]
    assert rig.core.leader == sender


def test_an_answer_makes_a_tick_only_where_something_follows_from_it(rig: Rig) -> None:
    rig.lead()
    rig.core.propose(b"x", lambda *_: None)
    rig.core.tick()
    last, term = rig.data.journal.last_index, rig.core.term

    def wakes(peer: str, message: AppendReply) -> int:
        rig.wakes = 0
        rig.core.receive(peer, message)
        return rig.wakes

    assert wakes("b", AppendReply(term, True, last, 0)) == 1, "it may be committed"
    rig.core.tick()
    assert rig.core.commit_index == last
    assert wakes("c", AppendReply(term, True, last, 0)) == 0, "it is committed"
    assert wakes("c", AppendReply(term, False, 2, 0)) == 0, "c is known to hold all"
    found: list[object] = []
    rig.core.read(found.append)
    rig.core.tick()
    asked = rig.sent(AppendEntries, "c")[-1].round
    assert wakes("c", AppendReply(term, True, last, asked)) == 1, "a read waits"
    rig.core.tick()
    assert found == [last]
    assert wakes("b", AppendReply(term, True, last, asked)) == 0, "it is answered"
    assert wakes("b", AppendReply(term + 1, False, 2, 0)) == 1, "another term ends the leadership"


def test_when_the_disk_fails_nothing_is_acknowledged(rig: Rig) -> None:
    rig.heartbeat()
    rig.clear()
    rig.disk.failure = OSError(5, "Input/output error")
    with pytest.raises(DiskError, match="Input/output error"):
        rig.heartbeat(entries=[(1, X)])
    assert rig.sent(AppendReply) == []


def test_proposals_share_a_sync_and_a_message(rig: Rig) -> None:
    rig.lead()
    rig.clear()
    for _ in range(50):
        rig.core.propose(b"x", lambda *_: None)
    rig.core.tick()
    assert rig.events.count("sync") == 1
    assert [len(m.entries) for m in rig.sent(AppendEntries, "b")] == [50]


def test_alone_a_node_commits_only_what_it_synced(tmp_path: Path) -> None:
    rig = Rig(tmp_path, peers="")
    rig.core.campaign()
    rig.core.tick()
    outcomes: list[object] = []
    rig.core.propose(b"x", lambda *outcome: outcomes.append(outcome))
    rig.disk.failure = OSError(28, "No space left on device")
    with pytest.raises(DiskFullError, match="No space"):
        rig.core.tick()
    assert outcomes == []
    assert rig.state.entries == []


def test_what_a_deposed_leader_proposed_is_discarded_once_another_entry_takes_its_place(rig: Rig) -> None:
    rig.lead()
    outcomes: list[object] = []
    rig.core.propose(b"x", lambda *outcome: outcomes.append(outcome))
    rig.core.tick()
    index, term = rig.data.journal.last_index, rig.core.term
    rig.core.receive("c", AppendEntries(term + 1, index - 1, term, index - 1, 1, [(term + 1, Y)]))
    rig.core.tick()
    assert outcomes == []
    rig.heartbeat("c", term=term + 1, prev_index=index, prev_term=term + 1, commit_index=index)
    assert outcomes == [(None, engine.DISCARDED)]


def test_a_proposal_to_a_follower_is_refused(rig: Rig) -> None:
    rig.heartbeat()
    outcomes: list[object] = []
    rig.core.propose(b"x", lambda *outcome: outcomes.append(outcome))
    rig.core.tick()
    assert outcomes == [(None, engine.NOT_LEADER)]
    assert rig.commands() == []


# -- elections ---------------------------------------------------------------------------------------------------------


def test_one_vote_per_term_also_across_a_restart(rig: Rig) -> None:
    assert rig.ask_vote("b", 5).granted
    assert rig.events[0] == "sync", "the vote is durable before it is answered"
    assert rig.ask_vote("b", 5).granted, "the same candidate may ask again"
    assert not rig.ask_vote("c", 5).granted
    rig.restart()
    assert not rig.ask_vote("c", 5).granted
    assert rig.core.term == 5


def test_no_vote_for_a_candidate_that_lacks_entries(rig: Rig) -> None:
    rig.core.receive("b", AppendEntries(3, 1, 0, 1, 1, [(3, X), (3, Y)]))
    rig.core.tick()
    rig.restart()
    assert not rig.ask_vote("c", 9, last=(3, 2)).granted
    assert not rig.ask_vote("c", 10, last=(2, 50)).granted
    assert rig.ask_vote("c", 11, last=(3, 3)).granted


def test_a_node_that_is_cut_off_asks_first_and_keeps_its_term(tmp_path: Path) -> None:
    rig = Rig(tmp_path, heartbeat_s=1e-6, election_min_s=4e-6, election_max_s=5e-6)
    for _ in range(50):
        rig.core.tick()
    assert rig.core.term == 0
    asked = rig.sent(VoteRequest)
    assert asked
    assert all(m.pre for m in asked)


def test_a_majority_of_pre_votes_starts_the_election(tmp_path: Path) -> None:
    rig = Rig(tmp_path, heartbeat_s=1e-6, election_min_s=4e-6, election_max_s=5e-6)
    while not rig.sent(VoteRequest):
        rig.core.tick()
    rig.clear()
    rig.hear("b", VoteReply(1, granted=True, pre=True))
    assert rig.core.term == 1
    assert [m.term for m in rig.sent(VoteRequest) if not m.pre] == [1, 1]


def test_whoever_hears_a_leader_neither_votes_nor_changes_its_term(rig: Rig) -> None:
    rig.heartbeat()
    assert not rig.ask_vote("c", 9, pre=True).granted
    assert not rig.ask_vote("c", 9).granted
    assert rig.core.term == 1
    assert rig.core.leader == "b"


def test_a_leader_is_not_deposed_by_a_vote_request(rig: Rig) -> None:
    rig.lead()
    assert not rig.ask_vote("c", 9).granted
    assert rig.core.is_leader


def test_a_leader_that_hangs_up_is_not_waited_for(rig: Rig) -> None:
    rig.heartbeat()
    assert not rig.ask_vote("c", 2, pre=True).granted
    rig.core.disconnected("b")
    assert rig.ask_vote("c", 2, pre=True).granted
    assert rig.core.next_deadline_s() - monotonic_s() < 2 * rig.settings.heartbeat_s
    rig.clear()
    while not rig.sent(VoteRequest):
        rig.core.tick()
    assert all(question.pre for question in rig.sent(VoteRequest))
    assert rig.core.term == 1


def test_a_leader_that_is_heard_again_takes_the_hang_up_back(rig: Rig) -> None:
    rig.heartbeat()
    rig.core.disconnected("b")
    rig.core.connected("b")
    rig.heartbeat()
    assert not rig.ask_vote("c", 2, pre=True).granted
    assert rig.core.next_deadline_s() - monotonic_s() > rig.settings.election_min_s / 2


def test_a_follower_that_hangs_up_changes_nothing(rig: Rig) -> None:
    rig.heartbeat()
    rig.core.disconnected("c")
    assert not rig.ask_vote("c", 2, pre=True).granted
    assert rig.core.next_deadline_s() - monotonic_s() > rig.settings.election_min_s / 2


def test_those_who_lost_their_leader_take_turns(tmp_path: Path) -> None:
    due: list[float] = []
    for node, peers in (("b", "acd"), ("c", "abd"), ("d", "abc")):
        rig = Rig(tmp_path / node, node=node, peers=peers)
        rig.heartbeat("a")
        rig.core.disconnected("a")
        due.append(rig.core.next_deadline_s() - monotonic_s())
    assert due[0] + rig.settings.heartbeat_s < due[1]
    assert due[1] + rig.settings.heartbeat_s < due[2]


def test_a_stale_leader_is_told_and_steps_down(rig: Rig) -> None:
    rig.heartbeat(term=5)
    rig.clear()
    rig.heartbeat("c", term=4)
    assert rig.sent(AppendReply, "c") == [AppendReply(5, False, 2, 1)]
    assert rig.core.leader == "b"


def test_a_higher_term_in_a_reply_ends_the_leadership(rig: Rig) -> None:
    rig.lead()
    rig.hear("b", AppendReply(rig.core.term + 3, False, 0, 1))
    assert not rig.core.is_leader
    assert rig.core.leader is None


def test_a_leader_without_answers_steps_down(tmp_path: Path) -> None:
    rig = Rig(tmp_path, heartbeat_s=1e-6, election_min_s=4e-6, election_max_s=1e-3)
    rig.core.campaign()
    rig.core.tick()
    rig.core.receive("b", VoteReply(rig.core.term, granted=True, pre=False))
    assert rig.core.is_leader
    for _ in range(100_000):
        rig.core.tick()
        if not rig.core.is_leader:
            return
    pytest.fail("it still believes that it leads")


def test_a_vote_that_comes_twice_counts_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, peers="bcde")
    rig.core.campaign()
    rig.core.tick()
    for _ in range(3):
        rig.hear("b", VoteReply(1, granted=True, pre=False))
    assert not rig.core.is_leader
    rig.hear("c", VoteReply(1, granted=True, pre=False))
    assert rig.core.is_leader


def test_two_leaders_in_one_term_stop_the_node(rig: Rig) -> None:
    rig.lead()
    with pytest.raises(SafetyViolationError, match="both lead in term 1"):
        rig.heartbeat("b", term=1)


# -- applying ----------------------------------------------------------------------------------------------------------


def test_an_apply_that_raises_is_not_retried_in_silence(rig: Rig) -> None:
    def broken(index: int, term: int, entry: bytes) -> None:
        raise RuntimeError("a bug")

    rig.state.apply = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        rig.heartbeat(entries=[(1, X)], commit_index=2)


@pytest.mark.parametrize("command", [b"", b"\x02membership", b"\x03version", b"\x80\x04pickle"])
def test_an_unknown_kind_of_entry_stops_the_node(rig: Rig, command: bytes) -> None:
    with pytest.raises(SafetyViolationError, match="kind"):
        rig.heartbeat(entries=[(1, command)], commit_index=2)
    assert rig.state.entries == []


def test_no_ops_are_not_delivered_and_each_entry_is_applied_once(rig: Rig) -> None:
    rig.heartbeat(entries=[(1, b"\x01"), (1, X), (1, b"\x01"), (1, Y)], commit_index=5)
    rig.heartbeat(entries=[(1, b"\x01"), (1, X), (1, b"\x01"), (1, Y)], commit_index=5)
    assert rig.state.entries == [b"x", b"y"]
    assert rig.state.indexes == [3, 5]


# -- reads -------------------------------------------------------------------------------------------------------------


def test_a_read_waits_for_a_round_begun_after_it(rig: Rig) -> None:
    rig.lead()
    answers: list[int | None] = []
    rig.core.tick()
    before = max(m.round for m in rig.sent(AppendEntries))
    rig.core.read(answers.append)
    rig.core.tick()
    rig.acknowledge("b", round_number=before)
    assert answers == []
    now = max(m.round for m in rig.sent(AppendEntries))
    assert now > before
    rig.acknowledge("c", round_number=now)
    assert answers == [rig.core.entry_index]


def test_a_new_leader_reads_only_after_its_first_entry_is_committed(rig: Rig) -> None:
    rig.core.campaign()
    rig.core.tick()
    rig.hear("b", VoteReply(1, granted=True, pre=False))
    answers: list[int | None] = []
    rig.core.read(answers.append)
    rig.core.tick()
    for peer in "bc":
        rig.acknowledge(peer, 1, round_number=50)
    assert answers == []
    rig.acknowledge("b")
    rig.core.tick()
    rig.acknowledge("b", round_number=max(m.round for m in rig.sent(AppendEntries)))
    assert answers == [0]


def test_a_deposed_leader_answers_no_read(rig: Rig) -> None:
    rig.lead()
    answers: list[int | None] = []
    rig.core.read(answers.append)
    rig.core.tick()
    rig.heartbeat("c", term=9)
    assert answers == [None]
    rig.core.read(answers.append)
    assert answers == [None, None]


def test_leadership_is_confirmed_by_a_round_begun_after_the_question(rig: Rig) -> None:
    rig.lead()
    led: list[tuple[int, int] | None] = []
    rig.core.tick()
    before = max(m.round for m in rig.sent(AppendEntries))
    for _ in range(3):
        rig.core.confirm(led.append)
    rig.core.tick()
    rig.acknowledge("b", round_number=before)
    assert led == []
    now = max(m.round for m in rig.sent(AppendEntries))
    assert now == before + 1, "one round for all who ask"
    rig.acknowledge("c", round_number=now)
    assert led == [(rig.core.entry_index, rig.core.term)] * 3


def test_a_new_leader_is_confirmed_only_after_its_first_entry_is_applied(rig: Rig) -> None:
    rig.core.campaign()
    rig.core.tick()
    rig.hear("b", VoteReply(1, granted=True, pre=False))
    led: list[tuple[int, int] | None] = []
    rig.core.confirm(led.append)
    rig.core.tick()
    for peer in "bc":
        rig.acknowledge(peer, 1, round_number=50)
    assert led == []
    rig.acknowledge("b")
    rig.core.tick()
    rig.acknowledge("b", round_number=max(m.round for m in rig.sent(AppendEntries)))
    assert led == [(0, 1)]


def test_a_leadership_that_ended_is_not_confirmed_by_the_next_one(rig: Rig) -> None:
    rig.lead()
    led: list[tuple[int, int] | None] = []
    rig.core.confirm(led.append)
    rig.core.tick()
    asked_in = max(m.round for m in rig.sent(AppendEntries))
    rig.heartbeat("c", term=9)
    assert led == [None]
    rig.lead()
    assert rig.core.term == 10
    rig.acknowledge("b", round_number=asked_in)
    assert led == [None]


def test_a_follower_is_not_confirmed(rig: Rig) -> None:
    rig.heartbeat()
    led: list[tuple[int, int] | None] = []
    rig.core.confirm(led.append)
    assert led == [None]


def test_a_congested_follower_is_sent_nothing_new(rig: Rig) -> None:
    rig.lead()
    rig.clear()
    rig.blocked.add("b")
    rig.core.propose(b"x", lambda *_: None)
    rig.core.tick()
    assert rig.sent(AppendEntries, "b") == []
    rig.blocked.clear()
    rig.core.tick()
    assert [len(m.entries) for m in rig.sent(AppendEntries, "b")] == [1]


# -- the engine --------------------------------------------------------------------------------------------------------


def test_another_pysyncobj_is_refused() -> None:
    with pytest.raises(EngineMismatchError, match=r"exactly 0\.3\.17"):
        check_engine("0.3.18", upstream_engine())

    class Renamed:
        def _onTick(self) -> None: ...

    with pytest.raises(EngineMismatchError, match="takes"):
        check_engine("0.3.17", Renamed)
