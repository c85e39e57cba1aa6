"""Scheduling rounds: what a decision records of the bids that led to it."""

from __future__ import annotations

from support.driven import DrivenMachine

from controlplane.decide.rounds import KEPT_OFFERS, KEPT_REFUSALS, decide_round, telling
from controlplane.model.commands import Place
from controlplane.model.resources import Bid


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
    (decided,) = decide_round(machine.state, [vm], bids, {})
    assert isinstance(decided, Place)
    assert decided.host == "h049"
    assert [bid.host for bid in decided.bids] == names[-KEPT_OFFERS:]
