"""Scheduling rounds: what a decision records of the bids that led to it."""

from __future__ import annotations

from support.driven import DrivenMachine

from controlplane.decide.rounds import KEPT_OFFERS, KEPT_REFUSALS, Answers, decide_round, telling
from controlplane.model.commands import MarkUnplaced, Place
from controlplane.model.resources import Bid, MicroVM


def offer(number: int, score: float = 0.5) -> Bid:
    return Bid(host=f"h{number:03}", score=score)


def refusal(number: int) -> Bid:
    return Bid(host=f"r{number:03}", refused="full")


def test_of_a_large_fleet_only_the_best_offers_and_some_refusals_are_recorded() -> None:
    offers = [offer(number, score=1 - number / 1000) for number in range(500)]
    kept = telling([*offers, *map(refusal, range(500))], "h499")
    assert kept == [*offers[-KEPT_OFFERS:], *map(refusal, range(KEPT_REFUSALS))]


def test_the_chosen_host_is_recorded_whoever_else_bid_the_same() -> None:
    kept = telling(map(offer, range(100)), "h077")
    assert len(kept) == KEPT_OFFERS
    assert "h077" in [bid.host for bid in kept]


def test_a_small_fleet_is_recorded_whole() -> None:
    bids = [offer(1), offer(2), refusal(3)]
    assert telling(reversed(bids), "h001") == bids


def test_a_round_records_what_tells() -> None:
    machine = DrivenMachine()
    names = [f"h{number:03}" for number in range(50)]
    for name in names:
        machine.with_host(name)
    vm = machine.pending()
    bids = {name: {vm.meta.uid: Bid(host=name, score=1 - number / 100)} for number, name in enumerate(names)}
    (decided,) = decide_round(
        machine.state, [vm], Answers(asked={vm.meta.uid: names}, bids=bids, silent={}, refused={})
    )
    assert isinstance(decided, Place)
    assert decided.host == "h049"
    assert [bid.host for bid in decided.bids] == names[-KEPT_OFFERS:]


def answers(vms: list[MicroVM], asked: list[str], score: float | None = 0.5) -> Answers:
    """The hosts `asked` about `vms` say all the same: an offer, or that they are full."""
    said = None if score is not None else "full"
    return Answers(
        asked={vm.meta.uid: asked for vm in vms},
        bids={name: {vm.meta.uid: Bid(host=name, score=score, refused=said) for vm in vms} for name in asked},
        silent={},
        refused={},
    )


def test_who_finds_its_hosts_taken_waits_for_a_round_that_asks_others() -> None:
    machine = DrivenMachine().with_host("h1", vcpu=1).with_host("h2", vcpu=1)
    vms = [machine.pending("a", vcpu=1), machine.pending("b", vcpu=1)]
    (decided,) = decide_round(machine.state, vms, answers(vms, ["h1"]))
    assert isinstance(decided, Place)
    machine.accept(decided)
    (decided,) = decide_round(machine.state, vms[1:], answers(vms[1:], ["h2"]))
    assert isinstance(decided, Place)
    assert decided.host == "h2"


def test_who_finds_every_host_taken_is_told_why_of_each() -> None:
    machine = DrivenMachine().with_host("h1", vcpu=1).with_host("h2", vcpu=1)
    vms = [machine.pending("a", vcpu=1), machine.pending("b", vcpu=1), machine.pending("c", vcpu=1)]
    *_, last = decide_round(machine.state, vms, answers(vms, ["h1", "h2"]))
    assert isinstance(last, MarkUnplaced)
    assert last.message == "no host takes it: needs 1 vcpu, 0 of 1 are free"
    assert [bid.host for bid in last.bids] == ["h1", "h2"]


def test_nobody_is_unplaced_before_every_host_that_fits_was_asked() -> None:
    machine = DrivenMachine().with_host("h1").with_host("h2")
    vm = machine.pending()
    assert decide_round(machine.state, [vm], answers([vm], ["h1"], score=None)) == []
    (decided,) = decide_round(machine.state, [vm], answers([vm], ["h1", "h2"], score=None))
    assert isinstance(decided, MarkUnplaced)
    assert decided.message == "no host takes it: full"
