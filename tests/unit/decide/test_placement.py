"""Choosing by bids."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import declare_host, declare_policy
from support.driven import DrivenMachine

from controlplane.decide.placement import PREFERENCE_BONUS, choose
from controlplane.model.commands import MarkUnplaced, Place
from controlplane.model.resources import Bid
from controlplane.model.spec import Placement

HOSTS = ("h1", "h2", "h3", "h4", "h5")


@pytest.fixture(scope="module")
def machine() -> DrivenMachine:
    machine = DrivenMachine()
    for name in HOSTS:
        machine.with_host(name)
    machine.accept(declare_host("h1", labels={"disk": "ssd", "zone": "a"}))
    machine.accept(declare_policy(preferred_host_labels={"disk": "ssd", "zone": "a"}))
    machine.placed("busy", host="h2")
    machine.pending("web")
    machine.pending("likes-ssd", placement=Placement(policy="spread"))
    return machine


def test_no_hosts_at_all_and_none_that_fits(machine: DrivenMachine) -> None:
    vm = machine.vm()
    none = choose(machine.state, vm, [])
    assert isinstance(none, MarkUnplaced)
    assert (none.reason, none.uid, none.generation) == ("NoHosts", vm.meta.uid, vm.meta.generation)
    full = choose(machine.state, vm, [Bid(host="h2", refused="full"), Bid(host="h1")])
    assert isinstance(full, MarkUnplaced)
    assert (full.reason, full.message) == ("NoHostFits", "no host takes it: h1: no answer; h2: full")
    assert [bid.host for bid in full.bids] == ["h1", "h2"]


def test_one_reason_of_all_hosts_is_told_once(machine: DrivenMachine) -> None:
    bids = [Bid(host=name, refused="nobody knows what is on host h3") for name in ("h1", "h2")]
    unplaced = choose(machine.state, machine.vm(), bids)
    assert isinstance(unplaced, MarkUnplaced)
    assert unplaced.message == "no host takes it: nobody knows what is on host h3"


def test_a_message_names_no_more_than_eight_hosts(machine: DrivenMachine) -> None:
    many = [Bid(host=f"x{number:03d}", refused=f"full of {number}") for number in range(500)]
    unplaced = choose(machine.state, machine.vm(), many)
    assert isinstance(unplaced, MarkUnplaced)
    assert unplaced.message.count("full") == 8
    assert len(unplaced.bids) == 500


def test_ties_go_to_the_host_that_holds_less_then_to_the_name(machine: DrivenMachine) -> None:
    chosen = choose(machine.state, machine.vm(), [Bid(host=name, score=0.5) for name in ("h2", "h4", "h3")])
    assert isinstance(chosen, Place)
    assert chosen.host == "h3"


@pytest.mark.parametrize(("lead", "winner"), [(PREFERENCE_BONUS, "h1"), (3 * PREFERENCE_BONUS, "h2")])
def test_preferred_labels_count_each(machine: DrivenMachine, lead: float, winner: str) -> None:
    chosen = choose(
        machine.state, machine.vm("likes-ssd"), [Bid(host="h1", score=0.5), Bid(host="h2", score=0.5 - lead)]
    )
    assert isinstance(chosen, Place)
    assert chosen.host == winner
    bid = next(bid for bid in chosen.bids if bid.host == "h1")
    assert bid.score == pytest.approx(0.5 - 2 * PREFERENCE_BONUS)
    assert bid.parts == {"preferred_labels": -2 * PREFERENCE_BONUS}


scores = st.none() | st.floats(-2, 2) | st.sampled_from([float("nan"), float("inf"), float("-inf")])
bids_of_each = st.tuples(*(st.tuples(scores, st.booleans()) for _ in HOSTS))


@given(bids_of_each, st.sampled_from(["web", "likes-ssd"]), st.randoms())
def test_a_refusing_host_is_never_chosen_and_the_order_of_bids_does_not_matter(
    machine: DrivenMachine, answers: tuple[tuple[float | None, bool], ...], name: str, order: random.Random
) -> None:
    bids = [
        Bid(host=host, score=score, refused="no" if refuses else None, parts={} if score is None else {"load": score})
        for host, (score, refuses) in zip(HOSTS, answers, strict=True)
    ]
    vm = machine.vm(name)
    chosen = choose(machine.state, vm, bids)
    order.shuffle(bids)
    assert choose(machine.state, vm, bids) == chosen
    usable = {
        bid.host: bid.score
        for bid in bids
        if bid.refused is None and bid.score is not None and abs(bid.score) < float("inf")
    }
    assert isinstance(chosen, Place) == bool(usable)
    assert [bid.host for bid in chosen.bids] == sorted(HOSTS)
    if isinstance(chosen, Place):
        assert chosen.host in usable
        offers = [bid.score for bid in chosen.bids if bid.refused is None and bid.score is not None]
        assert chosen.score == min(offers)
        if name == "web":
            machine.restarted().accept(chosen)
