"""A scheduling round: many microVMs, one set of bids, decided one after another.

Hosts bid for every microVM as if it came alone. The round applies each of its own decisions to a working copy of the
state with the real machine, so the next microVM sees the capacity that is left, and adds to a host's later bids what
the round has put there. What comes out are ordinary commands; the machine verifies each again when it is applied. They
carry the bids that explain them, not all: a record that held a bid of every host would grow with the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.decide.placement import candidates, choose
from controlplane.machine.apply import apply
from controlplane.machine.outcome import Applied
from controlplane.machine.state import State
from controlplane.model.commands import MarkUnplaced, Place, seal
from controlplane.model.resources import Bid, Host, MicroVM
from controlplane.model.types import replace

KEPT_OFFERS = 8
KEPT_REFUSALS = 8


def decide_round(
    state: State, vms: Iterable[MicroVM], bids: Mapping[str, Mapping[str, Bid]], silent: Mapping[str, str]
) -> list[Place | MarkUnplaced]:
    """The commands for `vms`, in their order.

    `bids` is host -> uid -> bid; `silent` is host -> why it gave no bids at all.
    """
    decided: list[Place | MarkUnplaced] = []
    working = state
    for vm in vms:
        eligible, refused = candidates(working, vm)
        offers = [_bid_of(working, state, vm, host, bids, silent) for host in eligible]
        command = choose(working, vm, [*offers, *refused])
        if isinstance(command, Place):
            envelope = seal(command, id="", at=0, actor="round")
            after, outcome, _ = apply(working, envelope, index=0, term=0)
            if not isinstance(outcome, Applied):
                continue
            working = after
        chosen = command.host if isinstance(command, Place) else None
        decided.append(replace(command, bids=telling(command.bids, chosen)))
    return decided


def telling(bids: Iterable[Bid], chosen: str | None) -> list[Bid]:
    """The lowest offers, that of the `chosen` host among them, and the first refusals; in order of host."""
    found = sorted(bids, key=lambda bid: bid.host)
    refusals = [bid for bid in found if bid.refused is not None or bid.score is None]
    offers = [bid for bid in found if bid.refused is None and bid.score is not None]
    offers.sort(key=lambda bid: (bid.score, bid.host != chosen))
    return sorted([*offers[:KEPT_OFFERS], *refusals[:KEPT_REFUSALS]], key=lambda bid: bid.host)


def _bid_of(
    working: State,
    state: State,
    vm: MicroVM,
    host: str,
    bids: Mapping[str, Mapping[str, Bid]],
    silent: Mapping[str, str],
) -> Bid:
    bid = bids.get(host, {}).get(vm.meta.uid)
    if bid is None:
        return Bid(host=host, refused=silent.get(host, "the host did not answer for this microVM"))
    if bid.score is None:
        return bid
    added = _utilization(working.hosts[host]) - _utilization(state.hosts[host])
    if not added:
        return bid
    return replace(bid, score=bid.score + added, parts={**bid.parts, "this_round": added})


def _utilization(host: Host) -> float:
    if host.inventory is None:
        return 0.0
    capacity = host.inventory.capacity
    vcpu = host.allocated.vcpu / capacity.vcpu if capacity.vcpu else 0.0
    memory = host.allocated.memory_in_mb / capacity.memory_in_mb if capacity.memory_in_mb else 0.0
    return max(vcpu, memory)
