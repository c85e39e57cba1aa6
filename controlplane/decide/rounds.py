"""A scheduling round: many microVMs, one set of bids, decided one after another.

Hosts bid for every microVM as if it came alone. The round applies each of its own decisions to a working copy of the
state with the real machine, so the next microVM sees the capacity that is left, and adds to a host's later bids what
the round has put there. What comes out are ordinary commands; the machine verifies each again when it is applied. They
carry the bids that explain them, not all: a record that held a bid of every host would grow with the fleet.

A microVM whose hosts were all taken by those before it, while others fit that were not asked, has no decision: the next
round asks those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controlplane.decide.placement import choose
from controlplane.decide.shortlist import Fleet, Shortlist
from controlplane.machine.apply import apply
from controlplane.machine.outcome import Applied
from controlplane.machine.placement_rules import Constraints
from controlplane.machine.state import State
from controlplane.model.commands import MarkUnplaced, Place, seal
from controlplane.model.resources import Bid, Host, MicroVM
from controlplane.model.types import record, replace

KEPT_OFFERS = 8
KEPT_REFUSALS = 8


@record
class Answers:
    """What became of asking some hosts about some microVMs."""

    asked: Mapping[str, Sequence[str]]
    """Uid to hosts."""
    bids: Mapping[str, Mapping[str, Bid]]
    """Host to uid to bid."""
    silent: Mapping[str, str]
    """Host to why it gave no bids at all."""
    refused: Mapping[str, Sequence[Bid]]
    """Uid to some of the hosts that were not asked, with the reason."""

    def of(self, host: str, uid: str) -> Bid:
        """The bid of a host that was asked; a refusal where it gave none."""
        bid = self.bids.get(host, {}).get(uid)
        return bid or Bid(host=host, refused=self.silent.get(host, "the host did not answer for this microVM"))


def decide_round(state: State, vms: Iterable[MicroVM], answers: Answers) -> list[Place | MarkUnplaced]:
    """The commands for `vms`, in their order."""
    decided: list[Place | MarkUnplaced] = []
    fleet = Fleet(state)
    working = state
    for vm in vms:
        command = _decide(working, state, fleet, vm, answers)
        if isinstance(command, Place):
            envelope = seal(command, id="", at=0, actor="round")
            after, outcome, _ = apply(working, envelope, index=0, term=0)
            if not isinstance(outcome, Applied):
                continue
            working = after
        if command is not None:
            chosen = command.host if isinstance(command, Place) else None
            decided.append(replace(command, bids=telling(command.bids, chosen)))
    return decided


def _decide(working: State, state: State, fleet: Fleet, vm: MicroVM, answers: Answers) -> Place | MarkUnplaced | None:
    uid = vm.meta.uid
    asked = answers.asked.get(uid, ())
    constraints = Constraints(working, vm)
    bids = [
        bid if bid.score is None or bid.refused is not None else _with_this_round(bid, working, state)
        for host in asked
        if host in working.hosts and constraints.refusal(working.hosts[host]) is None
        for bid in (answers.of(host, uid),)
    ]
    command = choose(working, vm, [*bids, *answers.refused.get(uid, ())])
    if isinstance(command, Place):
        return command
    others = Shortlist(working, fleet, vm)
    if set(others.take(len(asked) + 1)) - set(asked):
        return None
    return choose(working, vm, [*bids, *others.refused])


def telling(bids: Iterable[Bid], chosen: str | None) -> list[Bid]:
    """The lowest offers, that of the `chosen` host among them, and the first refusals; in order of host."""
    found = sorted(bids, key=lambda bid: bid.host)
    refusals = [bid for bid in found if bid.refused is not None or bid.score is None]
    offers = [bid for bid in found if bid.refused is None and bid.score is not None]
    offers.sort(key=lambda bid: (bid.score, bid.host != chosen))
    return sorted([*offers[:KEPT_OFFERS], *refusals[:KEPT_REFUSALS]], key=lambda bid: bid.host)


def _with_this_round(bid: Bid, working: State, state: State) -> Bid:
    added = _utilization(working.hosts[bid.host]) - _utilization(state.hosts[bid.host])
    if not added or bid.score is None:
        return bid
    return replace(bid, score=bid.score + added, parts={**bid.parts, "this_round": added})


def _utilization(host: Host) -> float:
    if host.inventory is None:
        return 0.0
    capacity = host.inventory.capacity
    vcpu = host.allocated.vcpu / capacity.vcpu if capacity.vcpu else 0.0
    memory = host.allocated.memory_in_mb / capacity.memory_in_mb if capacity.memory_in_mb else 0.0
    return max(vcpu, memory)
