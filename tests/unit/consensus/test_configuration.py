"""The rules of membership as values: what may follow what, and what is refused with which words."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.consensus.configuration import (
    MAX_MEMBERS,
    Configuration,
    alone,
    check_step,
    decode,
    encode,
    founding,
    majority,
    promoted,
    removed,
    with_member,
    with_stores,
)
from controlplane.ports import Member, RefusedError

ABC = founding("a", "h:1", {"c": "h:3", "b": "h:2"})


def learner(node: str, port: int = 9) -> Member:
    return Member(node, f"h:{port}", "learner")


def test_the_founders_are_voters_in_the_order_of_their_ids() -> None:
    assert [m.node for m in ABC.members] == ["a", "b", "c"]
    assert ABC.voters == {"a", "b", "c"}
    assert ABC.incarnation == 1
    assert ABC.addresses("a") == {"b": "h:2", "c": "h:3"}


def test_a_new_member_is_a_learner_until_promoted() -> None:
    asked = Member("d", "h:4", "voter", api="h:5", gateway="h:6")
    grown = with_member(ABC, asked)
    assert grown.find("d") == Member("d", "h:4", "learner", "h:5", "h:6")
    assert (grown.voters, grown.learners) == ({"a", "b", "c"}, {"d"})
    assert promoted(grown, "d").voters == {"a", "b", "c", "d"}


def test_what_is_so_already_changes_nothing() -> None:
    assert with_member(ABC, Member("b", "h:2", "voter")) == ABC
    assert promoted(ABC, "b") == ABC
    without = removed(ABC, "b")
    assert removed(without, "b") == without


def test_a_member_that_moved_keeps_its_role_and_what_was_not_given() -> None:
    grown = with_member(ABC, Member("b", "h:22", "learner", api="h:5"))
    assert grown.find("b") == Member("b", "h:22", "voter", "h:5")
    assert with_member(grown, Member("b", "", "voter", gateway="h:6")).find("b") == Member(
        "b", "h:22", "voter", "h:5", "h:6"
    )


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (Member("D", "h:4", "voter"), "'D' is not a node id"),
        (Member("d", "nowhere", "voter"), "address: 'nowhere' is not host:port"),
        (Member("d", "", "voter"), "address: '' is not host:port"),
        (Member("d", "0.0.0.0:4", "voter"), "address: 0.0.0.0:4 is where a server listens"),
        (Member("d", "h:2", "voter"), "address: h:2 is b's already"),
        (Member("d", "h" * 300 + ":1", "voter"), "address: longer than 255"),
        (Member("d", "h:4", "voter", api="x"), "api: 'x' is not host:port"),
        (Member("gone", "h:4", "voter"), "gone was removed .* never accepted again"),
    ],
)
def test_a_member_that_cannot_be_added_is_refused_with_the_reason(member: Member, words: str) -> None:
    before = removed(with_member(ABC, learner("gone")), "gone")
    with pytest.raises(RefusedError, match=words):
        with_member(before, member)


def test_there_is_a_limit() -> None:
    full = ABC
    for i in range(MAX_MEMBERS - 3):
        full = with_member(full, learner(f"l{i}", 100 + i))
    with pytest.raises(RefusedError, match="15 members already"):
        with_member(full, learner("more"))


def test_who_is_no_member_can_be_neither_promoted_nor_removed() -> None:
    for change in (promoted, removed):
        with pytest.raises(RefusedError, match="z is not a member of this cluster; the members are a, b, c"):
            change(ABC, "z")
    with pytest.raises(RefusedError, match="b is not a member of this cluster any more"):
        promoted(removed(ABC, "b"), "b")


def test_the_last_voter_stays() -> None:
    last = with_member(removed(removed(ABC, "b"), "c"), learner("d"))
    with pytest.raises(RefusedError, match="a is the only voter"):
        removed(last, "a")


def test_recovery_leaves_one_voter_in_the_next_incarnation_and_retires_the_others() -> None:
    after = alone(removed(with_member(ABC, learner("d")), "c"), "d", "h:44")
    assert after == Configuration(2, (Member("d", "h:44", "voter"),), ("c", "a", "b"))


def test_disks_are_filled_in_once() -> None:
    known = with_stores(ABC, {"a": "x", "b": "y"})
    assert [m.store for m in known.members] == ["x", "y", ""]
    assert [m.store for m in with_stores(known, {"a": "other", "c": "z"}).members] == ["x", "y", "z"]


@pytest.mark.parametrize(
    "bad",
    [
        Configuration(0, ABC.members),
        Configuration(1, ()),
        Configuration(1, (learner("a"),)),
        Configuration(1, ABC.members[::-1]),
        Configuration(1, (*ABC.members, ABC.members[-1])),
        Configuration(1, ABC.members, ("b",)),
    ],
)
def test_bytes_that_no_configuration_gives_are_refused(bad: Configuration) -> None:
    with pytest.raises(ValueError, match="not a configuration"):
        decode(encode(bad))
    for junk in (b"", b"\xff", b"\x93\x01\x02\x03", b"junk"):
        with pytest.raises(ValueError, match="not a configuration"):
            decode(junk)


NAMES = [f"n{i}" for i in range(6)]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "promote", "remove"]), st.sampled_from([*NAMES, *(f"x{i}" for i in range(4))])),
    max_size=30,
)


def change(configuration: Configuration, what: str, node: str) -> Configuration:
    try:
        if what == "add":
            return with_member(configuration, learner(node, 1 + hash_port(node)))
        return promoted(configuration, node) if what == "promote" else removed(configuration, node)
    except RefusedError:
        return configuration


def hash_port(node: str) -> int:
    return 10 * ord(node[0]) + int(node[1:])


@given(CHANGES)
def test_whatever_is_asked_for_majorities_overlap_and_no_retired_id_returns(changes: list[tuple[str, str]]) -> None:
    configuration = founding("n0", "h:1", {"n1": "h:2", "n2": "h:3"})
    retired: set[str] = set()
    for what, node in changes:
        new = change(configuration, what, node)
        check_step(configuration, new)
        assert majorities_overlap(configuration.voters, new.voters)
        retired |= {m.node for m in configuration.members} - {m.node for m in new.members}
        assert retired == set(new.retired)
        assert not retired & {m.node for m in new.members}
        assert decode(encode(new)) == new
        configuration = new


@given(CHANGES, CHANGES)
def test_a_step_that_is_not_one_is_found(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    """`check_step` allows exactly what keeps majorities overlapping, whatever two configurations are compared."""
    one = two = founding("n0", "h:1", {"n1": "h:2", "n2": "h:3"})
    for what, node in first:
        one = change(one, what, node)
    for what, node in second:
        two = change(two, what, node)
    try:
        check_step(one, two)
    except ValueError:
        return
    assert majorities_overlap(one.voters, two.voters)


def majorities_overlap(one: frozenset[str], two: frozenset[str]) -> bool:
    return all(
        set(left) & set(right)
        for left in combinations(sorted(one), majority(len(one)))
        for right in combinations(sorted(two), majority(len(two)))
    )
