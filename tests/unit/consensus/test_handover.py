"""Handing leadership over: nothing is lost on the way, and a failed attempt changes nothing."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from unit.consensus.rig import Rig
from unit.consensus.support import Authority, ListState, ProcessCluster, peer_settings, until

from controlplane.consensus import RaftNode, engine
from controlplane.consensus.messages import StateHash, TimeoutNow, VoteReply, VoteRequest
from controlplane.machine.draft import DIGEST_FORMAT
from controlplane.ports import LogError, RefusedError


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
    rig.hear("b", StateHash(DIGEST_FORMAT, [(2, state_hash)]))
    rig.hear("c", StateHash(DIGEST_FORMAT, [(2, "other")]))
    assert [finding.node for finding in rig.core.divergences] == ["c"]
    assert not rig.ask_handed_vote("c", 5).granted
    assert not rig.ask_handed_vote("c", 6).granted
    assert rig.ask_handed_vote("b", 7).granted


def test_a_node_whose_state_is_in_doubt_does_not_stand_for_election(tmp_path: Path) -> None:
    rig = Rig(tmp_path, election_min_s=0.4, election_max_s=0.5)
    rig.heartbeat("b", entries=[(1, b"\x00x")], commit_index=2)
    rig.hear("c", StateHash(DIGEST_FORMAT, [(2, "other")]))
    rig.clear()
    rig.hear("b", TimeoutNow(1))
    rig.wait_until(lambda: rig.core.leader is None)
    assert rig.sent(VoteRequest) == []
    rig.core.request_snapshot()
    assert rig.snapshots_due == 0


# -- whole members -----------------------------------------------------------------------------------------------------


async def elected(nodes: dict[str, RaftNode]) -> str:
    """The leader that all of them follow."""

    async def found() -> str | None:
        leaders = {(await node.status()).leader for node in nodes.values()}
        return leaders.pop() if len(leaders) == 1 else None

    return str(await until(found, "a leader", timeout_s=30))


async def test_leadership_goes_where_it_is_asked_to_and_back(tmp_path: Path) -> None:
    settings = peer_settings(tmp_path, None, ["n1", "n2", "n3"])
    nodes = {name: RaftNode(each, ListState()) for name, each in settings.items()}
    for node in nodes.values():
        await node.start()
    first = await elected(nodes)
    second = next(name for name in nodes if name != first)
    term = (await nodes[first].status()).term
    assert await nodes[first].transfer_leadership(second, timeout_s=5) == second
    assert await nodes[second].transfer_leadership(second, timeout_s=5) == second
    assert await nodes[second].transfer_leadership(None, timeout_s=5) != second
    leader = await elected(nodes)
    with pytest.raises(RefusedError, match="n9 is not another voter of this cluster"):
        await nodes[leader].transfer_leadership("n9", timeout_s=5)
    assert (await nodes[leader].status()).term == term + 2, "two handovers and no other election"
    for node in nodes.values():
        await node.stop()


async def test_a_rolling_restart_has_no_election_timeout_in_it(tmp_path: Path) -> None:
    """With timeouts of 3 to 6 s, no write waits for even a second while every member is stopped and started again."""
    names = ["n1", "n2", "n3"]
    limits = {"election_min_s": 3.0, "election_max_s": 6.0}
    cluster = ProcessCluster(peer_settings(tmp_path, Authority(tmp_path / "ca"), names, **limits), tmp_path)
    await cluster.start()
    try:
        leader = await cluster.leader(timeout_s=40)
        status = await cluster.status(leader)
        assert status is not None
        writer = _Writer(cluster)
        writing = asyncio.create_task(writer.run())
        led = 0
        for name in [leader, *(each for each in names if each != leader)]:
            leads = await cluster.leader() == name
            led += leads
            # Its own front is stopped before it, as the parent of a node does.
            writer.through = next(each for each in names if each != name)
            await until(writer.beyond(writer.acknowledged + 1), "the writer has moved")
            before = writer.acknowledged
            await cluster.kill(name, how=signal.SIGTERM)
            assert ("leads now; this node can stop" in cluster.log_file(name).read_text()) >= leads
            await cluster.start(name)
            await cluster.leader()
            await until(writer.beyond(before + 20), "writes go on")
        writing.cancel()
        await asyncio.wait([writing])
        assert writer.failed == []
        assert writer.longest_s < 1.0
        after = await cluster.status(leader)
        assert after is not None
        assert led >= 1
        assert after.term == status.term + led, "every election was a handover"
    finally:
        await cluster.close()


class _Writer:
    """Writes one entry after the other through a member that is not being stopped."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self.through = "n1"
        self.acknowledged = 0
        self.longest_s = 0.0
        self.failed: list[Exception] = []

    def beyond(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def written() -> bool:
            return self.acknowledged > count or bool(self.failed)

        return written

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._cluster.clients[self.through].append(b"x", timeout_s=20)
            except LogError as error:
                self.failed.append(error)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.acknowledged += 1
