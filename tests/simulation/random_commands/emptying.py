"""Hosts that are emptied: the orders to leave them, and what leaves, stays or is left behind."""

from __future__ import annotations

from simulation.random_commands.agents import observation, session_at
from simulation.random_commands.choices import Choices

from controlplane.machine.state import State
from controlplane.model.commands import (
    ActOnHost,
    Command,
    Destroyed,
    Evict,
    HostAction,
    HostEvacuated,
    MarkStaying,
    Report,
)
from controlplane.model.gc import Leftover, LeftoverKind
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.types import replace


def act_on_host(choices: Choices, state: State) -> Command:
    # What is to be emptied should hold something, or there is nothing to see.
    full = _full(state)
    host = choices.pick(full) if full and not choices.nonsense() else choices.name()
    known = state.hosts.get(host)
    return ActOnHost(
        host=host,
        action=choices.pick((*HostAction, HostAction.DRAIN, HostAction.DRAIN)),
        max_parallel=choices.pick((None, None, choices.integer(1, 2, 3))),
        allow_data_loss=choices.pick((None, None, True)),
        revision=choices.pick((None, None, None, known.meta.intent_revision if known is not None else 1)),
    )


def evict(choices: Choices, state: State) -> Command:
    host, uid, epoch = _leaving(choices, state)
    return Evict(host=host, uid=uid, epoch=choices.integer(epoch, epoch, epoch, epoch - 1))


def mark_staying(choices: Choices, state: State) -> Command:
    host, uid, epoch = _leaving(choices, state)
    reason = choices.pick(("pinned", "no host takes it"))
    return MarkStaying(host=host, uid=uid, epoch=epoch, reason=reason, halt=choices.chance(40))


def left(choices: Choices, state: State) -> Command:
    """A report that a host has ended what it was told to end, and lets nothing run that it is to halt."""
    leaving = [vm.placement.host for vm in state.microvms.values() if vm.phase is MicroVMPhase.MOVING and vm.placement]
    host = choices.pick(leaving) if leaving else _evacuating(choices, state)[0]
    here = list(state.microvms_on(host))
    still = [
        replace(observation(choices, vm), epoch=vm.epoch, halted=True, power=ObservedPower.STOPPED)
        for vm in here
        if vm.is_halted
    ]
    return Report(
        host=host,
        session=session_at(state, host),
        observed=still,
        destroyed=[Destroyed(uid=vm.meta.uid, epoch=vm.epoch) for vm in here if vm.is_tombstone],
        left_behind=choices.pick((None, [], _remains(choices, here))),
    )


def host_evacuated(choices: Choices, state: State) -> Command:
    return HostEvacuated(host=_evacuating(choices, state)[0])


def _evacuating(choices: Choices, state: State) -> tuple[str, MicroVM | None]:
    """A host that is to be emptied, if there is one, and a microVM that may be there."""
    names = [name for name, host in sorted(state.hosts.items()) if host.evacuating is not None]
    names = [name for name in names if name in _full(state)] or names
    host = choices.pick(names) if names and not choices.nonsense() else choices.name()
    here = list(state.microvms_on(host))
    return host, choices.pick(here) if here and not choices.nonsense() else choices.vm(state)


def _leaving(choices: Choices, state: State) -> tuple[str, str, int]:
    """A host that is to be emptied, and uid and epoch of what may be there."""
    host, vm = _evacuating(choices, state)
    uid, epoch = (vm.meta.uid, vm.epoch) if vm is not None else (choices.uid(), 1)
    return host, uid, epoch


def _full(state: State) -> list[str]:
    """Ready hosts that hold something."""
    return [
        name for name, host in sorted(state.hosts.items()) if host.phase is HostPhase.READY and state.on_host.get(name)
    ]


def _remains(choices: Choices, here: list[MicroVM]) -> list[Leftover]:
    uid = choices.pick(here).meta.uid if here and choices.chance(30) else "gone"
    ours = not choices.chance(20)
    return [
        Leftover(driver="qemu", kind=LeftoverKind.TAP, name="tap/fl0", uid=uid, epoch=1, ours=ours),
        Leftover(driver="qemu", kind=LeftoverKind.VOLUMES, name="quarantine/x-1", uid=uid, epoch=1, ours=ours),
    ]
