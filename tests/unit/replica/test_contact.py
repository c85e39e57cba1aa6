"""Whom a node hears and how old what it knows may be, from looks at the log's status."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from controlplane.model.types import replace
from controlplane.ports import LogStatus, Member, PeerStatus
from controlplane.replica.contact import HEARD_S, SILENT_S, ContactKeeper

FOLLOWER = LogStatus(
    node="n3",
    role="follower",
    leader="n1",
    term=4,
    last_index=10,
    commit_index=10,
    applied_index=10,
    entry_index=10,
    has_quorum=True,
    fsync="always",
    state_hash="",
    state_hash_index=10,
    snapshot_index=0,
    log_bytes=0,
    peers=(),
    members=tuple(Member(node, f"{node}:7101", "voter") for node in ("n1", "n2", "n3")),
)


def status(heard_ms: Mapping[str, int | None], **changes: object) -> LogStatus:
    """n3's, which heard the others so many milliseconds ago; not connected to those that it does not name."""
    peers = tuple(
        PeerStatus(
            node=node,
            address="",
            connected=node in heard_ms,
            match_index=None,
            last_contact_ms=heard_ms.get(node),
        )
        for node in ("n1", "n2")
    )
    return replace(FOLLOWER, peers=peers, **changes)


LOST = {"role": "candidate", "leader": None, "has_quorum": False}
LEADS = {"role": "leader", "leader": "n3"}


def test_a_follower_knows_what_its_leader_knew_when_it_was_heard() -> None:
    keeper = ContactKeeper(100.0)
    keeper.look(status({"n1": 50, "n2": None}), 101.0)
    contact = keeper.read(10, 101.0)
    assert (contact.leader, contact.hears, contact.misses, contact.cut_off) == ("n1", ("n1", "n2"), (), False)
    assert contact.age_s == pytest.approx(0.05)
    assert keeper.read(10, 103.0).age_s == pytest.approx(2.05), "it grows by itself"


def test_a_leader_knows_what_there_was_when_a_majority_answered() -> None:
    keeper = ContactKeeper(100.0)
    keeper.look(status({"n1": 70, "n2": 4000}, **LEADS), 101.0)
    contact = keeper.read(10, 101.0)
    assert (contact.hears, contact.misses, contact.cut_off) == (("n1",), ("n2",), False)
    assert contact.age_s == pytest.approx(0.07)


def test_what_the_replica_has_not_applied_is_not_known() -> None:
    keeper = ContactKeeper(100.0)
    keeper.look(status({"n1": 0}, entry_index=10), 101.0)
    keeper.look(status({"n1": 0}, entry_index=20), 105.0)
    assert keeper.read(10, 105.0).age_s == pytest.approx(4.0)
    assert keeper.read(20, 105.0).age_s == pytest.approx(0.0)


def test_without_a_leader_the_others_silence_counts_once_they_had_reason_to_speak() -> None:
    keeper = ContactKeeper(100.0)
    keeper.look(status({"n1": 50, "n2": None}), 101.0)
    keeper.look(status({"n1": 1050, "n2": None}, **LOST), 102.0)
    assert keeper.lost_s(102.5) == pytest.approx(0.5)
    early = keeper.read(10, 102.5)
    assert (early.leader, early.cut_off, early.since_s) == (None, False, pytest.approx(0.5))
    keeper.look(status({"n1": 3050, "n2": None}, **LOST), 104.1)
    late = keeper.read(10, 104.1)
    assert (late.hears, late.misses, late.cut_off) == ((), ("n1", "n2"), True)
    assert late.since_s == pytest.approx(2.1)
    assert late.since_s > HEARD_S
    assert late.age_s == pytest.approx(3.15)
    keeper.look(status({"n1": 5000, "n2": 300}, **LOST), 106.0)
    assert keeper.read(10, 106.0).cut_off is False


def test_a_log_that_does_not_answer_has_no_leader() -> None:
    keeper = ContactKeeper(100.0)
    keeper.look(status({"n1": 0, "n2": 0}), 101.0)
    assert keeper.leads_or_follows(101.0 + SILENT_S - 0.1)
    frozen = keeper.read(10, 101.0 + SILENT_S + 1)
    assert (frozen.role, frozen.leader, frozen.node) == ("silent", None, "n3")
    assert keeper.lost_s(105.0) == 0.0, "it may have one: a read that it answers is as good as any"
    keeper.look(None, 105.5)
    assert not keeper.leads_or_follows(105.5)
    keeper.look(status({"n1": 0, "n2": 0}), 106.0)
    assert keeper.read(10, 107.0).since_s == pytest.approx(1.0)


def test_before_the_first_look_nothing_is_known() -> None:
    contact = ContactKeeper(100.0).read(0, 107.0)
    assert (contact.role, contact.leader, contact.since_s, contact.age_s) == ("silent", None, 7.0, 7.0)


def test_a_node_alone_needs_nobody() -> None:
    keeper = ContactKeeper(100.0)
    alone = replace(FOLLOWER, node="n1", role="leader", members=FOLLOWER.members[:1])
    keeper.look(alone, 101.0)
    contact = keeper.read(10, 101.0)
    assert (contact.majority, contact.cut_off, contact.age_s) == (1, False, 0.0)


def test_learners_are_no_majority() -> None:
    keeper = ContactKeeper(100.0)
    members = (*FOLLOWER.members[:2], Member("n3", "n3:7101", "learner"))
    keeper.look(replace(status({"n1": 50, "n2": None}), members=members), 101.0)
    contact = keeper.read(10, 101.0)
    assert (contact.majority, contact.votes) == (2, False)
