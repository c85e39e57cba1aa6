"""Membership changes on cores over a wire the test controls: what counts when, and what a crash leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.consensus.net import Net
from unit.consensus.rig import Rig

from controlplane.consensus import engine
from controlplane.consensus.configuration import Configuration, encode, promoted, removed, with_member
from controlplane.consensus.errors import RemovedError, SafetyViolationError
from controlplane.consensus.messages import AppendEntries, VoteReply
from controlplane.ports import Member, RefusedError


def learner(node: str) -> Member:
    return Member(node, "127.0.0.1:9", "learner")


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    net = Net(tmp_path)
    net.lead("a")
    yield net
    net.close()


def with_learner(net: Net, node: str = "d") -> None:
    net.join(node)
    net.committed("a", with_member(net.configuration("a"), learner(node)))


# -- learners ----------------------------------------------------------------------------------------------------------


def test_a_joining_node_is_nobody_until_the_log_says_otherwise(net: Net) -> None:
    rig = net.join("d")
    rig.core.campaign()
    net.run()
    assert (rig.core.role, rig.core.term, rig.core.configuration) == ("learner", 0, None)
    with_learner(net, "e")
    net.committed("a", with_member(net.configuration("a"), Member("d", "127.0.0.1:8", "learner")))
    assert net.configuration("d") == net.configuration("a")
    assert rig.core.commit_index == net.rigs["a"].core.commit_index


def test_a_learner_gets_the_log_and_counts_for_nothing(net: Net) -> None:
    with_learner(net)
    assert net.propose("a", b"x")
    assert net.rigs["d"].state.entries == [b"x"]
    net.down |= {"b", "c"}
    assert net.propose("a", b"y") == []
    assert net.rigs["d"].data.journal.last_index == net.rigs["a"].data.journal.last_index
    net.rigs["a"].core.read(lambda index: pytest.fail(f"read at {index} on the word of a learner"))
    net.run()


def test_a_learner_never_campaigns_and_its_vote_weighs_nothing(net: Net) -> None:
    with_learner(net)
    term = net.rigs["a"].core.term
    net.down.add("a")
    net.rigs["d"].core.campaign()
    net.run()
    assert net.rigs["d"].core.term == term
    net.down |= {"c"}
    net.rigs["b"].core.campaign()
    net.run()
    assert not net.rigs["b"].core.is_leader
    net.down.remove("c")
    net.lead("b")


def test_a_promoted_learner_counts(net: Net) -> None:
    with_learner(net)
    net.committed("a", promoted(net.configuration("a"), "d"))
    assert net.rigs["d"].core.role == "follower"
    net.down.add("c")
    assert net.propose("a", b"x")
    net.down.add("b")
    assert net.propose("a", b"two of four") == []
    net.down = {"a"}
    net.lead("d")


def test_a_voter_that_has_not_heard_of_a_promotion_votes_for_the_promoted(net: Net) -> None:
    with_learner(net)
    net.down.add("b")
    net.committed("a", promoted(net.configuration("a"), "d"))
    assert net.configuration("b").voters == {"a", "b", "c"}
    net.down = {"a"}
    net.lead("d")
    assert net.configuration("b").voters == {"a", "b", "c", "d"}


# -- one at a time -----------------------------------------------------------------------------------------------------


def test_two_uncommitted_removals_are_refused(net: Net) -> None:
    """As shipped, the engine accepts both and its leader then commits alone."""
    net.down |= {"b", "c"}
    first = net.change("a", removed(net.configuration("a"), "c"))
    with pytest.raises(RefusedError, match=r"another change .* is not committed yet"):
        net.change("a", removed(net.configuration("a"), "b"))
    assert net.propose("a", b"x") == []
    assert first == []


def test_no_change_before_an_entry_of_the_term_is_committed(net: Net) -> None:
    net.down = {"a"}
    rig = net.rigs["b"]
    rig.core.campaign()
    rig.core.tick()
    rig.core.receive("c", VoteReply(rig.core.term, granted=True, pre=False))
    assert rig.core.is_leader
    with pytest.raises(RefusedError, match="this leader is new and has committed nothing yet"):
        net.change("b", removed(net.configuration("b"), "a"))
    net.run()
    net.committed("b", removed(net.configuration("b"), "a"))


def test_more_than_one_step_is_refused_whoever_asks(net: Net) -> None:
    before = net.rigs["a"].data.journal.last_index
    with pytest.raises(RefusedError, match="more than one voter"):
        net.change("a", removed(removed(net.configuration("a"), "b"), "c"))
    assert net.rigs["a"].data.journal.last_index == before


def test_a_leader_does_not_remove_itself(net: Net) -> None:
    with pytest.raises(RefusedError, match="it hands over before it is removed"):
        net.change("a", removed(net.configuration("a"), "a"))


def test_a_follower_appends_no_configuration(net: Net) -> None:
    assert net.change("b", removed(net.configuration("b"), "c")) == [(None, engine.NOT_LEADER)]


def test_a_removal_that_leaves_no_reachable_majority_is_refused(tmp_path: Path) -> None:
    net = Net(tmp_path, election_max_s=0.2)
    net.lead("a")
    rig = net.rigs["a"]
    rig.core._SyncObj__lastResponseTime[rig.core._node("c")] = 0.0
    with pytest.raises(RefusedError, match="voters a, c that this would leave, c cannot be reached"):
        net.change("a", removed(net.configuration("a"), "b"))
    net.committed("a", removed(net.configuration("a"), "c"))
    net.close()


def test_a_new_leader_takes_nobody_for_reachable_who_has_not_answered(tmp_path: Path) -> None:
    net = Net(tmp_path)
    net.down.add("c")
    net.lead("a")
    rig = net.rigs["a"]
    rig.core._leads_since_s = math.inf
    with pytest.raises(RefusedError, match="this leader is new and has not heard c yet"):
        net.change("a", removed(net.configuration("a"), "b"))
    rig.core._leads_since_s = -math.inf
    with pytest.raises(RefusedError, match="voters a, c that this would leave, c cannot be reached"):
        net.change("a", removed(net.configuration("a"), "b"))
    net.committed("a", removed(net.configuration("a"), "c"))
    net.close()


def test_a_joining_node_that_waits_for_a_commit_does_not_tick_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, node="d", join=True)
    rig.heartbeat("b", entries=[(1, b"\x00x")], commit_index=1)
    woken: list[bool] = []
    monkeypatch.setattr(rig, "wake", lambda: woken.append(True))
    rig.core.tick()
    assert woken == []


# -- removal -----------------------------------------------------------------------------------------------------------


def test_down_to_one_and_up_again(net: Net) -> None:
    net.committed("a", removed(net.configuration("a"), "c"))
    net.down.add("c")
    assert net.propose("a", b"two")
    net.committed("a", removed(net.configuration("a"), "b"))
    net.down.add("b")
    assert net.propose("a", b"one")
    assert net.rigs["a"].core.has_quorum
    answers: list[int | None] = []
    net.rigs["a"].core.read(answers.append)
    net.run()
    assert answers == [net.rigs["a"].core.entry_index]
    rig = net.restart("a")
    rig.core.campaign()
    net.run()
    assert rig.core.is_leader
    with_learner(net)
    net.committed("a", promoted(net.configuration("a"), "d"))
    assert net.rigs["d"].state.entries == [b"two", b"one"]
    assert net.configuration("d").retired == ("c", "b")


def test_a_removed_node_is_sent_nothing_more(net: Net) -> None:
    net.committed("a", removed(net.configuration("a"), "c"))
    last = net.rigs["c"].data.journal.last_index
    net.propose("a", b"x")
    assert net.rigs["c"].data.journal.last_index == last
    assert net.rigs["a"].core.match_index("c") is None


def test_a_node_that_reads_its_own_removal_stops(net: Net) -> None:
    rig = net.rigs["c"]
    last, term = rig.data.journal.last_index, net.rigs["a"].core.term
    gone = b"\x02" + encode(removed(net.configuration("a"), "c"))
    rig.core.receive("a", AppendEntries(term, last, term, last + 1, 99, [(term, gone)]))
    with pytest.raises(RemovedError, match="c was removed from the cluster"):
        rig.core.tick()
    with pytest.raises(RemovedError):
        net.restart("c").core.tick()


# -- crashes in the middle ---------------------------------------------------------------------------------------------


def test_a_change_that_only_the_leader_had_is_rolled_back(net: Net) -> None:
    net.down |= {"b", "c"}
    outcomes = net.change("a", removed(net.configuration("a"), "c"))
    net.run()
    assert net.configuration("a").voters == {"a", "b"}
    net.down = {"a"}
    net.lead("b")
    net.propose("b", b"x")
    net.down = set()
    net.run()
    assert net.configuration("a").voters == {"a", "b", "c"}
    assert net.configuration("a").retired == ()
    assert outcomes == [(None, engine.DISCARDED)]
    net.lead("a")
    net.committed("a", removed(net.configuration("a"), "b"))


def test_a_change_that_a_minority_had_is_rolled_back_on_a_follower(tmp_path: Path) -> None:
    net = Net(tmp_path, "abcde")
    net.lead("a")
    net.down |= {"c", "d", "e"}
    net.change("a", removed(net.configuration("a"), "e"))
    net.run()
    assert net.configuration("b").voters == {"a", "b", "c", "d"}
    net.restart("b")
    assert net.configuration("b").voters == {"a", "b", "c", "d"}
    net.down = {"a", "b"}
    net.lead("c")
    net.propose("c", b"x")
    net.down = {"a"}
    net.run()
    assert net.configuration("b").voters == {"a", "b", "c", "d", "e"}
    net.restart("b")
    assert net.configuration("b").voters == {"a", "b", "c", "d", "e"}
    net.close()


def test_a_change_that_a_majority_had_survives_its_leader(net: Net) -> None:
    with_learner(net)
    net.change("a", promoted(net.configuration("a"), "d"))
    net.run(2)
    net.down = {"a"}
    net.lead("b")
    assert net.configuration("c").voters == {"a", "b", "c", "d"}
    net.down = set()
    net.run()
    assert net.configuration("a") == net.configuration("b")


@pytest.mark.parametrize("state", ["joining", "learner", "voter", "leader"])
def test_a_restart_in_every_state_keeps_it(net: Net, state: str) -> None:
    rig = net.join("d")
    if state != "joining":
        net.committed("a", with_member(net.configuration("a"), learner("d")))
    if state in ("voter", "leader"):
        net.committed("a", promoted(net.configuration("a"), "d"))
    if state == "leader":
        net.lead("d")
    before = rig.core.configuration
    net.restart("d")
    assert rig.core.configuration == before
    assert rig.core.role == ("follower" if state in ("voter", "leader") else "learner")
    net.lead("a" if state != "leader" else "d")
    assert net.propose("a" if state != "leader" else "d", b"after")


# -- snapshots ---------------------------------------------------------------------------------------------------------


def compact(net: Net, name: str) -> None:
    net.rigs[name].snapshot()


def test_the_configuration_travels_in_a_snapshot_and_survives_compaction(tmp_path: Path) -> None:
    net = Net(tmp_path, retain_entries=0)
    net.lead("a")
    with_learner(net)
    net.committed("a", removed(net.configuration("a"), "c"))
    net.down.add("c")
    for i in range(10):
        net.propose("a", b"%d" % i)
    compact(net, "a")
    index = net.rigs["a"].core.configuration_index
    assert net.rigs["a"].data.journal.base_index > index
    net.restart("a")
    assert net.configuration("a").voters == {"a", "b"}
    assert net.rigs["a"].core.configuration_index == index
    net.lead("a")
    rig = net.join("e")
    net.committed("a", with_member(net.configuration("a"), Member("e", "127.0.0.1:7", "learner")))
    assert rig.core.snapshot_index > 0
    assert net.configuration("e") == net.configuration("a")
    net.restart("e")
    assert net.configuration("e") == net.configuration("a")
    net.close()


def test_bytes_that_are_no_configuration_stop_the_node(net: Net) -> None:
    rig = net.rigs["c"]
    last, term = rig.data.journal.last_index, net.rigs["a"].core.term
    for bad in (b"", b"junk", encode(Configuration(1, ()))):
        with pytest.raises(SafetyViolationError, match=r"kind 2 .*not a configuration"):
            rig.core.receive("a", AppendEntries(term, last, term, last, 99, [(term, b"\x02" + bad)]))
    assert rig.data.journal.last_index == last
