"""Hosts that fall silent, what is decided about them, and what they held that is restarted elsewhere."""

from __future__ import annotations

from simulation.random_commands.choices import NAMES, Choices

from controlplane.machine.state import State
from controlplane.model.commands import (
    CancelOverride,
    Command,
    ConfirmFenced,
    ConfirmOff,
    HostDetached,
    HostFenced,
    HostHeard,
    HostSuspected,
    OverrideBreaker,
    Resurrect,
)
from controlplane.model.resources import HostPhase


def host_suspected(choices: Choices, state: State) -> Command:
    host = choices.host_in(state, HostPhase.READY)
    return HostSuspected(host=host, session=_session_of(choices, state, host) or "a", reason="silent")


def host_heard(choices: Choices, state: State) -> Command:
    host = choices.host_in(state, HostPhase.SUSPECT)
    return HostHeard(host=host, session=_session_of(choices, state, host) or "a")


def host_detached(choices: Choices, state: State) -> Command:
    host = choices.host_in(state, HostPhase.SUSPECT, choices.pick((HostPhase.REJOINING, HostPhase.READY)))
    return HostDetached(host=host, session=_session_of(choices, state, host), term=choices.term(), reason="no lease")


def host_fenced(choices: Choices, state: State) -> Command:
    host = choices.host_in(state, HostPhase.DETACHED)
    known = state.hosts.get(host)
    since = known.since if known is not None else choices.integer(0)
    return HostFenced(host=host, term=choices.term(), reason="waited", since=choices.pick((None, since, since, 1)))


def confirm(choices: Choices, state: State) -> Command:
    host = choices.host_in(state, HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED)
    revision = choices.pick((None, None, None, choices.integer(1)))
    return choices.pick((ConfirmOff, ConfirmOff, ConfirmFenced))(host=host, revision=revision)


def override(choices: Choices, _: State) -> Command:
    if choices.chance(50):
        return CancelOverride(of=choices.pick(("breaker", "breaker", "nothing")))
    return OverrideBreaker(for_s=choices.integer(0, 1, 60), reason=choices.pick(("", "why not")))


def resurrect(choices: Choices, state: State) -> Command:
    fenced = [name for name in sorted(state.on_host) if state.hosts[name].phase is HostPhase.FENCED]
    host = choices.pick(fenced) if fenced and not choices.nonsense() else choices.name()
    vms = list(state.microvms_on(host)) or [vm for vm in (choices.vm(state),) if vm is not None]
    vm = choices.pick(vms) if vms else None
    epoch = vm.epoch if vm is not None else 1
    return Resurrect(
        uid=vm.meta.uid if vm is not None else choices.uid(),
        epoch=choices.integer(epoch, epoch, epoch, epoch - 1),
        host=host,
        term=choices.term(),
        reason="fenced",
    )


def _session_of(choices: Choices, state: State, host: str) -> str | None:
    known = state.hosts.get(host)
    return choices.pick(NAMES) if known is None or choices.chance(10) else known.session
