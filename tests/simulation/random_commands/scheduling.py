"""Where microVMs are placed, and why others are not."""

from __future__ import annotations

from simulation.random_commands.choices import Choices

from controlplane.machine.state import State
from controlplane.model.commands import Command, MarkUnplaced, Place
from controlplane.model.resources import Bid, HostPhase


def place(choices: Choices, state: State) -> Command:
    uid, generation = _waiting(choices, state)
    host = choices.name() if choices.chance(20) else choices.host_in(state, HostPhase.READY)
    return Place(uid=uid, generation=generation, host=host, score=choices.share(), bids=_bids(choices))


def mark_unplaced(choices: Choices, state: State) -> Command:
    uid, generation = _waiting(choices, state)
    message = choices.pick(("full", "none"))
    return MarkUnplaced(uid=uid, generation=generation, reason="NoHostFits", message=message, bids=_bids(choices))


def _waiting(choices: Choices, state: State) -> tuple[str, int]:
    """Uid and generation of what may wait for a host."""
    waiting = sorted(state.pending) if state.pending and not choices.nonsense() else sorted(state.microvms)
    if not waiting:
        return choices.uid(), choices.integer(1)
    uid = choices.pick(waiting)
    return uid, choices.integer(state.microvms[uid].meta.generation)


def _bids(choices: Choices) -> list[Bid]:
    return [
        Bid(host=choices.name(), score=choices.pick((None, choices.share())), parts={"load": choices.share()})
        for _ in range(choices.pick((0, 1, 2)))
    ]
