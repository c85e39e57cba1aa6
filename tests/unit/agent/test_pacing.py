"""Backoff: at once for what is new, ever later for what keeps failing, and afresh after a calm while."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from controlplane.agent.assignments import Goal
from controlplane.agent.pacing import Backoff, Pacing
from controlplane.agent.rotation import Rotation

GOAL = Goal(epoch=1, generation=1, repair_seq=0, restart_seq=0, is_tombstone=False)
OTHER = Goal(epoch=1, generation=2, repair_seq=0, restart_seq=0, is_tombstone=False)
BACKOFF = Backoff(base_s=1.0, cap_s=8.0, permanent_s=60.0, calm_s=100.0, free_steps=3)


def pacing(seed: int = 1) -> Pacing:
    return Pacing(BACKOFF, random.Random(seed))


@given(st.integers(0, 1000))
def test_failures_wait_twice_as_long_each_up_to_the_cap(seed: int) -> None:
    table = pacing(seed)
    now_s = 0.0
    for nth in range(8):
        table.failed("a", GOAL, now_s=now_s, permanent=False)
        bound_s = min(8.0, 2.0**nth)
        wait_s = table.ready_at("a", GOAL) - now_s
        assert bound_s / 2 <= wait_s <= bound_s
        now_s += wait_s


def test_another_wish_and_another_microvm_do_not_wait() -> None:
    table = pacing()
    table.failed("a", GOAL, now_s=5.0, permanent=False)
    assert table.ready_at("a", OTHER) == 0.0
    assert table.ready_at("b", GOAL) == 0.0


def test_what_cannot_succeed_is_tried_rarely() -> None:
    table = pacing()
    table.failed("a", GOAL, now_s=0.0, permanent=True)
    assert 30.0 <= table.ready_at("a", GOAL) <= 60.0


def test_a_few_steps_follow_each_other_at_once_and_a_loop_does_not() -> None:
    table = pacing()
    for _ in range(3):
        table.done("a", GOAL, now_s=1.0)
        assert table.ready_at("a", GOAL) == 1.0
    table.done("a", GOAL, now_s=1.0)
    assert table.ready_at("a", GOAL) > 1.0


def test_a_calm_while_starts_afresh() -> None:
    table = pacing()
    for _ in range(6):
        table.failed("a", GOAL, now_s=0.0, permanent=False)
    table.failed("a", GOAL, now_s=200.0, permanent=False)
    assert table.ready_at("a", GOAL) - 200.0 <= 1.0


def test_what_is_gone_is_forgotten() -> None:
    table = pacing()
    table.failed("a", GOAL, now_s=0.0, permanent=True)
    table.keep_only(frozenset({"b"}))
    assert table.ready_at("a", GOAL) == 0.0


# -- nodes -------------------------------------------------------------------------------------------------------------

NODES = {"n1": "a:1", "n2": "b:1", "n3": "c:1"}


@given(st.integers(0, 1000))
def test_every_node_gets_its_turn(seed: int) -> None:
    rotation = Rotation(NODES, base_s=0.2, cap_s=5.0, rng=random.Random(seed))
    first = [rotation.next().node for _ in range(3)]
    assert sorted(first) == ["n1", "n2", "n3"]
    assert [rotation.next().node for _ in range(3)] == first


def test_agents_begin_at_different_nodes() -> None:
    firsts = {Rotation(NODES, base_s=0.2, cap_s=5.0, rng=random.Random(seed)).next().node for seed in range(20)}
    assert firsts == set(NODES)


@given(st.integers(0, 1000), st.integers(1, 12), st.floats(0, 3))
def test_the_wait_grows_within_its_bound_and_a_success_resets_it(seed: int, failures: int, asked_s: float) -> None:
    rotation = Rotation(NODES, base_s=0.2, cap_s=5.0, rng=random.Random(seed))
    for nth in range(failures):
        assert asked_s <= rotation.failed(asked_s) <= asked_s + min(5.0, 0.2 * 2**nth)
    rotation.succeeded()
    assert rotation.failed() <= 0.2


def test_nodes_that_were_told_of_are_dialled_and_configured_addresses_win() -> None:
    rotation = Rotation({"n1": "configured:1"}, base_s=0.2, cap_s=5.0, rng=random.Random(1))
    rotation.learn({"n1": "advertised:1", "n2": "b:1"})
    seen = {rotation.next() for _ in range(4)}
    assert {(each.node, each.address) for each in seen} == {("n1", "configured:1"), ("n2", "b:1")}
    rotation.learn({})
    assert {rotation.next().node for _ in range(3)} == {"n1"}
