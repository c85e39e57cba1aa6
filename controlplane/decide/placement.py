"""Placement by bids: of the hosts that may, and were asked (`decide.shortlist`), take the lowest score.

The bids carry what only hosts know (measured load, images present, offers already reserved). Ties go to the host that
holds less, then to the name, so that the same bids always give the same choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from controlplane.decide.shortlist import hits
from controlplane.machine.state import State
from controlplane.model.commands import MarkUnplaced, Place
from controlplane.model.resources import Bid, MicroVM
from controlplane.model.types import replace

PREFERENCE_BONUS = 0.1
"""Taken off the score for each preferred label that the host has; scores are utilizations, about 0 to 1."""


def choose(state: State, vm: MicroVM, bids: Sequence[Bid]) -> Place | MarkUnplaced:
    """The command that the bids lead to, one for each host; refusals too, and where nobody offers those of all hosts,
    so that it can be explained."""
    weighed = sorted((_weigh(state, vm, _checked(bid)) for bid in bids), key=lambda bid: bid.host)
    offers = [bid for bid in weighed if bid.refused is None and bid.score is not None]
    if not offers:
        return MarkUnplaced(
            uid=vm.meta.uid,
            generation=vm.meta.generation,
            reason="NoHosts" if not weighed else "NoHostFits",
            message=_why_not(weighed),
            bids=weighed,
        )
    best = min(offers, key=lambda bid: (bid.score or 0.0, _held(state, bid.host), bid.host))
    assert best.score is not None
    return Place(uid=vm.meta.uid, generation=vm.meta.generation, host=best.host, score=best.score, bids=weighed)


def _checked(bid: Bid) -> Bid:
    """The bid, or a refusal in its place if it has scores that cannot be compared; the machine would refuse them."""
    scores = (*bid.parts.values(), *(() if bid.score is None else (bid.score,)))
    if all(map(isfinite, scores)):
        return bid
    return Bid(host=bid.host, refused=bid.refused or "its bid is not a finite number")


def _weigh(state: State, vm: MicroVM, bid: Bid) -> Bid:
    """The bid with the policy's preferences in its score."""
    policy = state.policies.get(vm.spec.placement.policy) if vm.spec.placement.policy is not None else None
    host = state.hosts.get(bid.host)
    if policy is None or host is None or bid.score is None:
        return bid
    found = hits(policy.spec.preferred_host_labels, host)
    if not found:
        return bid
    bonus = -PREFERENCE_BONUS * found
    return replace(bid, score=bid.score + bonus, parts={**bid.parts, "preferred_labels": bonus})


def _held(state: State, host: str) -> int:
    known = state.hosts.get(host)
    return known.allocated.microvms if known is not None else 0


def _why_not(bids: Sequence[Bid]) -> str:
    if not bids:
        return "there are no hosts: declare one and start its agent"
    reasons = {bid.refused for bid in bids}
    if len(bids) > 1 and len(reasons) == 1 and (reason := reasons.pop()) is not None:
        return f"no host takes it: {reason}"
    return "no host takes it: " + "; ".join(f"{bid.host}: {bid.refused or 'no answer'}" for bid in bids[:8])
