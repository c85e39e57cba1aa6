"""Emptying hosts: which microVMs to move off next, and why the others stay (docs/adr/0106).

A guest is not shut down before some host has offered to take it, beside everything else that is on its way: each move
is rehearsed with the machine itself, on a state in which what left other hosts has already landed somewhere. In
maintenance, what is found to stay is shut down where it is once nothing else on the host can be moved.

Nothing is remembered between two rounds but what the state says, so whoever leads goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.decide.placement import choose
from controlplane.decide.rounds import Answers, decide_round
from controlplane.decide.shortlist import WIDTH, Fleet, Shortlist
from controlplane.machine.apply import apply
from controlplane.machine.evacuation_rules import is_emptied, staying_reason, under_way, waiting_reason
from controlplane.machine.outcome import Applied
from controlplane.machine.state import State
from controlplane.model.commands import (
    Command,
    Destroyed,
    Evict,
    HostEvacuated,
    MarkStaying,
    Place,
    Report,
    seal,
)
from controlplane.model.resources import Bid, Host, MicroVM, MicroVMPhase
from controlplane.model.spec import HostMode

EXAMINED = 16
"""So many microVMs of a host are asked about in a round."""

Step = Evict | MarkStaying | HostEvacuated


def to_empty(state: State) -> list[Host]:
    """Hosts that are not emptied yet, in order of name."""
    return [
        host
        for _, host in sorted(state.hosts.items())
        if host.evacuating is not None and host.evacuating.done_at is None
    ]


def without_asking(state: State, host: Host) -> list[Step]:
    """What follows from the state alone: that the host is empty, or what the rules keep there."""
    if is_emptied(state, host):
        return [HostEvacuated(host=host.meta.name)]
    return [
        _staying(host, vm, reason)
        for vm in _settled(state, host)
        if (reason := staying_reason(vm, host)) is not None and (vm.stay is None or vm.stay.reason != reason)
    ]


def to_ask_about(state: State, host: Host, after: str) -> list[MicroVM]:
    """Those that may be moved next if some host takes them: first those that were never refused, then the others from
    the uid where the last round ended, so that any number that fit nowhere keeps no other one waiting."""
    if waiting_reason(host) is not None or len(under_way(state, host)) >= host.spec.evacuation.max_parallel:
        return []
    may = [vm for vm in _settled(state, host) if staying_reason(vm, host) is None]
    may.sort(key=lambda vm: (vm.stay is not None, vm.stay is not None and vm.meta.uid <= after, vm.meta.uid))
    return may[:EXAMINED]


def with_bids(
    state: State,
    host: Host,
    vms: Sequence[MicroVM],
    answers: Answers,
) -> list[Step]:
    """What the hosts' answers about `vms` lead to. A host that did not answer might have taken it: no refusal."""
    steps: list[Step] = []
    working = landed(state)
    for vm in vms:
        eviction = Evict(host=host.meta.name, uid=vm.meta.uid, epoch=vm.epoch)
        gone = _ended(_after(working, eviction), vm)
        if gone is None:
            break  # as many as may be are on their way
        for command in decide_round(gone, [gone.microvms[vm.meta.uid]], answers):
            if isinstance(command, Place):
                steps.append(eviction)
                working = _after(gone, command) or gone
            elif not answers.silent and (vm.stay is None or vm.stay.reason != command.message):
                steps.append(_staying(host, vm, command.message))
    if not steps and not answers.silent:
        steps += _halts(state, host)
    return steps


def _halts(state: State, host: Host) -> Iterator[MarkStaying]:
    """In maintenance, once all that is there is known to stay."""
    here = list(state.microvms_on(host.meta.name))
    if host.spec.mode is HostMode.MAINTENANCE and all(vm.stay is not None for vm in here):
        for vm in here:
            if vm.stay is not None and not vm.stay.halted:
                yield _staying(host, vm, vm.stay.reason, halt=True)


def _settled(state: State, host: Host) -> Iterator[MicroVM]:
    return (vm for vm in state.microvms_on(host.meta.name) if not vm.is_tombstone)


def _staying(host: Host, vm: MicroVM, reason: str, *, halt: bool = False) -> MarkStaying:
    return MarkStaying(host=host.meta.name, uid=vm.meta.uid, epoch=vm.epoch, reason=reason, halt=halt)


# -- rehearsals --------------------------------------------------------------------------------------------------------


def _after(state: State, command: Command) -> State | None:
    """`state` after `command`; None when it would be refused."""
    envelope = seal(command, id="", at=0, actor="rehearsal")
    after, outcome, _ = apply(state, envelope, index=0, term=0)
    return after if isinstance(outcome, Applied) else None


def _ended(state: State | None, vm: MicroVM) -> State | None:
    """`state` once the host of `vm`, which is to move, has confirmed that nothing is left of it."""
    host = state.hosts.get(vm.placement.host) if state is not None and vm.placement is not None else None
    if state is None or host is None or host.session is None:
        return None
    gone = Destroyed(uid=vm.meta.uid, epoch=vm.epoch)
    return _after(state, Report(host=host.meta.name, session=host.session, destroyed=[gone]))


def landed(state: State) -> State:
    """`state` with everything that is on its way put somewhere, so that its room is not promised twice."""
    for host in [host for _, host in sorted(state.hosts.items()) if host.evacuating is not None]:
        for uid in under_way(state, host):
            vm = state.microvms[uid]
            if vm.phase is MicroVMPhase.MOVING:
                state = _ended(state, vm) or state
            vm = state.microvms[uid]
            if vm.phase is MicroVMPhase.PENDING:
                offers = [Bid(host=name, score=0.0) for name in Shortlist(state, Fleet(state), vm).take(WIDTH)]
                command = choose(state, vm, offers)
                state = (_after(state, command) if isinstance(command, Place) else None) or state
    return state
