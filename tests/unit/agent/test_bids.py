"""Bids: what is offered fits, emptier hosts score lower, offers are remembered for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.builders import microvm_spec

from controlplane.agent.bids import TIE_BREAK, Offer, Reservations, offer
from controlplane.model.resources import Amount

CAPACITY = Amount(microvms=10, vcpu=16, memory_in_mb=8192)
NOTHING = Amount()
amounts = st.builds(
    Amount,
    microvms=st.integers(0, 12),
    vcpu=st.integers(0, 20),
    memory_in_mb=st.integers(0, 100).map(lambda n: n * 100),
)
specs = st.builds(microvm_spec, vcpu=st.integers(1, 20), memory_in_mb=st.integers(64, 10_000))


def made(used: Amount = NOTHING, reserved: Amount = NOTHING, *, host: str = "h1", busy: float = 0.0) -> Offer:
    spec = microvm_spec(vcpu=4, memory_in_mb=1024)
    return offer(host, "a", spec, capacity=CAPACITY, used=used, reserved=reserved, cpu_busy=busy)


@given(amounts, amounts, specs)
def test_an_offer_fits_and_a_refusal_says_why(used: Amount, reserved: Amount, spec: object) -> None:
    answer = offer("h1", "a", spec, capacity=CAPACITY, used=used, reserved=reserved, cpu_busy=0.5)
    fits = (
        used.vcpu + spec.vcpu <= CAPACITY.vcpu
        and used.memory_in_mb + spec.memory_in_mb <= CAPACITY.memory_in_mb
        and used.microvms < CAPACITY.microvms
    )
    assert (answer.refused is None) == fits
    assert (answer.score is not None) == fits
    if answer.refused is not None:
        assert "needs" in answer.refused or "limit" in answer.refused


def test_more_in_use_scores_higher() -> None:
    scores = [
        made(Amount(microvms=n, vcpu=2 * n, memory_in_mb=512 * n), reserved, busy=busy).score
        for n, reserved, busy in [(0, Amount(), 0.0), (1, Amount(), 0.0), (1, Amount(vcpu=2), 0.0), (4, Amount(), 0.0)]
    ]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    assert made(busy=0.9).score > made(busy=0.1).score


def test_the_scarcer_resource_weighs_most() -> None:
    lopsided = made(Amount(microvms=1, vcpu=10, memory_in_mb=0)).score
    balanced = made(Amount(microvms=1, vcpu=5, memory_in_mb=2560)).score
    assert lopsided > balanced


def test_equal_hosts_do_not_all_lose_to_the_first_by_name() -> None:
    hosts = [f"h{n}" for n in range(8)]
    spec = microvm_spec()
    winners: dict[str, int] = dict.fromkeys(hosts, 0)
    for number in range(400):
        scores = {
            host: offer(
                host, f"vm-{number}", spec, capacity=CAPACITY, used=Amount(), reserved=Amount(), cpu_busy=0
            ).score
            for host in hosts
        }
        assert max(scores.values()) - min(scores.values()) <= TIE_BREAK
        winners[min(scores, key=lambda host: scores[host])] += 1
    assert min(winners.values()) > 20


def test_offers_are_remembered_until_they_expire_are_assigned_or_asked_for_again() -> None:
    table = Reservations(ttl_s=2.0)
    table.hold("a", Amount(microvms=1, vcpu=1), now_s=10.0)
    table.hold("a", Amount(microvms=1, vcpu=2), now_s=10.5)
    table.hold("b", Amount(microvms=1, vcpu=4), now_s=11.0)
    none: frozenset[str] = frozenset()
    assert table.total(now_s=11.0, assigned=none, besides=none) == Amount(microvms=2, vcpu=6)
    assert table.total(now_s=11.0, assigned=none, besides=frozenset("b")) == Amount(microvms=1, vcpu=2)
    assert table.total(now_s=12.6, assigned=none, besides=none) == Amount(microvms=1, vcpu=4)
    assert table.total(now_s=12.6, assigned=frozenset("b"), besides=none) == Amount()
    assert table.total(now_s=12.6, assigned=none, besides=none) == Amount(), "assigned is not offered any more"
