"""Who is let in, by the configuration, the disk and the incarnation; as values, without a socket."""

from __future__ import annotations

import msgspec
import pytest

from controlplane.consensus.configuration import Configuration, alone, founding, promoted, removed, with_member
from controlplane.consensus.errors import ConsensusError, LostDiskError, RemovedError
from controlplane.consensus.messages import Hello, HelloReply
from controlplane.consensus.roster import Roster
from controlplane.model.commands.versions import MACHINE_VERSION
from controlplane.ports import Member

ABC = founding("a", "h:1", {"b": "h:2", "c": "h:3"})
ABCD = promoted(with_member(ABC, Member("d", "h:4", "learner")), "d")


class Party:
    """A roster with what it made durable and what ended it."""

    def __init__(self, node: str, configuration: Configuration | None = ABC, index: int = 1, **known: str) -> None:
        self.belongs = 0
        self.remembered: dict[str, str] = {}
        self.ends: list[ConsensusError] = []
        contacts = {name: f"h:{port}" for port, name in enumerate("abc", 1) if name != node}
        self.roster = Roster(
            node=node,
            cluster_id="k",
            contacts=contacts,
            address=f"h:{ord(node)}",
            store=f"disk-{node}",
            stores=known,
            remember=self.remembered.__setitem__,
            belong=lambda incarnation: setattr(self, "belongs", incarnation),
            expelled=self.ends.append,
        )
        self.roster.update(configuration, index, configuration)

    def answer(self, other: Party, **changes: object) -> HelloReply:
        """What `other` says to this one's hello, and what this one makes of it."""
        hello: Hello = msgspec.structs.replace(self.roster.hello(other.roster._node), **changes)
        reply = other.roster.judge(hello)
        if reply.refusal:
            self.roster.refused(other.roster._node, reply)
        return reply


def test_members_meet_once_and_remember_each_other_s_disk() -> None:
    a, b = Party("a"), Party("b")
    reply = a.answer(b)
    assert reply == HelloReply("", "", "disk-b", 1, MACHINE_VERSION)
    assert b.remembered == {"a": "disk-a"}
    assert a.roster.examine("b", reply) == ""
    assert a.remembered == {"b": "disk-b"}
    b.remembered.clear()
    assert a.answer(b).refusal == ""
    assert b.remembered == {}


def test_each_knows_what_the_other_s_build_knew_last() -> None:
    a, b = Party("a"), Party("b")
    assert (a.roster.machine_version("b"), b.roster.machine_version("a")) == (0, 0)
    assert a.roster.examine("b", a.answer(b, machine_version=7)) == ""
    assert (a.roster.machine_version("b"), b.roster.machine_version("a")) == (MACHINE_VERSION, 7)
    a.answer(b, machine_version=0)  # as a build from before there were versions says nothing of it
    assert b.roster.machine_version("a") == 0


def test_another_disk_is_refused_in_both_directions() -> None:
    a, b = Party("a"), Party("b", a="the one before")
    reply = a.answer(b)
    assert reply.verdict == "disk"
    assert reply.refusal == "node a came back with an empty or another disk: remove it and add it under a new id"
    (end,) = a.ends
    assert isinstance(end, LostDiskError)
    assert b.roster.examine("a", HelloReply("", "", "disk-a", 1)) == reply.refusal
    assert b.remembered == {}


def test_the_configuration_knows_disks_that_were_never_met() -> None:
    known = Configuration(1, tuple(Member(m.node, m.address, m.role, store="first") for m in ABC.members))
    a, b = Party("a"), Party("b", known, 9)
    assert a.answer(b).verdict == "disk"
    assert a.answer(b, store="first").refusal == ""


def test_a_removed_member_is_told_once_that_is_certain() -> None:
    without = removed(ABC, "a")
    a, b = Party("a"), Party("b")
    b.roster.update(without, 7, ABC)
    assert a.answer(b).refusal == "", "the removal is not committed"
    assert "a" in b.roster.addresses()
    b.roster.update(without, 7, without)
    assert a.answer(b).verdict == "removed"
    assert isinstance(a.ends[0], RemovedError)
    assert "a" not in b.roster.addresses()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"introduces": True},
        {"introduces": True, "configuration_index": 99, "address": "nowhere"},
        {"introduces": True, "configuration_index": 99, "address": "0.0.0.0:1"},
        {"introduces": True, "configuration_index": 99, "address": "h" * 300 + ":1"},
        {"configuration_index": 99},
    ],
)
def test_a_stranger_is_refused(changes: dict[str, object]) -> None:
    z, b = Party("z", founding("z", "h:9", {})), Party("b")
    assert "not a member of this cluster" in z.answer(b, **changes).refusal
    assert b.remembered == {}
    assert z.ends == []


def test_who_belongs_by_a_newer_configuration_is_a_guest_until_the_log_says_so() -> None:
    d, b = Party("d", ABCD, 9), Party("b")
    assert d.answer(b).refusal == ""
    assert b.roster.addresses()["d"] == f"h:{ord('d')}"
    b.roster.update(ABC, 8, ABC)
    assert "d" in b.roster.addresses()
    b.roster.update(ABCD, 9, ABC)
    assert b.roster.addresses()["d"] == "h:4"
    b.roster.update(ABC, 10, ABC)
    assert "d" not in b.roster.addresses()


def test_incarnations_refuse_each_other_and_end_nobody() -> None:
    survivor = alone(ABC, "a", "h:1")
    a, b = Party("a", survivor, 50), Party("b")
    for one, other in ((a, b), (b, a)):
        reply = one.answer(other)
        assert "belongs to incarnation" in reply.refusal
        assert reply.verdict == ""
    assert a.ends == b.ends == []
    assert "belongs to incarnation 2" in b.roster.examine("a", HelloReply("", "", "disk-a", 2))


def test_a_learner_in_the_history_of_a_recovered_cluster_is_nobody_yet() -> None:
    grown = with_member(alone(ABC, "a", "h:1"), Member("d", "h:4", "learner"))
    a, d = Party("a", grown, 60), Party("d", ABC, 5)
    assert d.roster.incarnation == 0
    assert d.answer(a).refusal == ""
    assert d.belongs == 0, "nobody sends it entries yet"
    assert a.answer(d).refusal == ""
    assert d.belongs == d.roster.hello("a").incarnation == 2
    assert d.roster.examine("a", HelloReply("", "", "disk-a", 2)) == ""
    # What it got from the one cluster does not go with the log of another one, although no configuration names it.
    again = Party("a", with_member(alone(grown, "a", "h:1"), Member("e", "h:4", "learner")), 70)
    for answer in (again.answer(d), d.answer(again)):
        assert "belongs to incarnation" in answer.refusal


def test_a_member_belongs_to_the_incarnation_of_its_log() -> None:
    a = Party("a")
    assert a.belongs == a.roster.incarnation == 1
    survivor = alone(ABC, "a", "h:1")
    a.roster.update(survivor, 50, survivor)
    assert a.belongs == 2


def test_one_that_joins_turns_to_its_contacts() -> None:
    d = Party("d", None, 0)
    assert d.roster.addresses() == {"a": "h:1", "b": "h:2", "c": "h:3"}
    assert Party("a").answer(d).refusal == ""
    assert "not a member" in d.answer(Party("a")).refusal
    # And takes in whoever counts it among the members, its contacts or not.
    assert (
        Party("e", with_member(with_member(ABC, Member("d", "h:4", "learner")), Member("e", "h:5", "learner")), 7)
        .answer(d)
        .refusal
        == ""
    )


def test_founders_use_their_own_settings_and_later_the_log() -> None:
    elsewhere = founding("a", "h:1", {"b": "x:2", "c": "x:3"})
    a = Party("a", elsewhere)
    assert a.roster.addresses() == {"b": "h:2", "c": "h:3"}
    a.roster.update(elsewhere, 5, elsewhere)
    assert a.roster.addresses() == {"b": "x:2", "c": "x:3"}
    assert a.roster.candidates("b") == ("x:2", "h:2")
    Party("b").answer(a)
    assert a.roster.candidates("b") == ("x:2", "h:2", f"h:{ord('b')}")
    listening = founding("a", "h:1", {"b": "0.0.0.0:2", "c": "x:3"})
    a.roster.update(listening, 6, listening)
    assert a.roster.addresses()["b"] == "h:2"
