"""What agents say: that they are there, what runs on their hosts, and what is gone from them."""

from __future__ import annotations

from simulation.random_commands.choices import NAMES, Choices

from controlplane.machine.state import State
from controlplane.model.commands import AgentConnected, AgentLost, Command, Destroyed, Report
from controlplane.model.resources import (
    Amount,
    DriverFacts,
    Failure,
    HostPhase,
    InterfaceFacts,
    Inventory,
    MicroVM,
    Observation,
    ObservedPower,
    Unmanaged,
)


def agent_connected(choices: Choices, _: State) -> Command:
    amounts = (choices.integer(4, 4, 2), choices.integer(4, 4, 2), choices.integer(0, 0, 1))
    return AgentConnected(
        host=choices.name(),
        uid=choices.uid(),
        session=choices.pick(NAMES),
        node=choices.pick(("n1", "n2")),
        inventory=inventory(*amounts, fences=not choices.chance(15), boot_id=choices.pick(("b", "b", "b", "c"))),
        lease_ttl_ms=choices.pick((10_000, 10_000, 5_000, 0)),
    )


def agent_lost(choices: Choices, state: State) -> Command:
    host, session = _host_and_session(choices, state)
    return AgentLost(host=host, session=session, reason="silent")


def report(choices: Choices, state: State) -> Command:
    host, session = _host_and_session(choices, state)
    here = list(state.microvms_on(host))
    vms = here if here and not choices.chance(10) else [vm for vm in (choices.vm(state),) if vm is not None]
    gone = [(vm.meta.uid, vm.epoch) for vm in vms if choices.chance(30)]
    gone += [order for order in _orders(state, host) if choices.chance(60)]
    return Report(
        host=host,
        session=session,
        observed=[observation(choices, vm) for vm in vms if choices.chance(70)],
        destroyed=[Destroyed(uid=uid, epoch=choices.integer(epoch, epoch, epoch + 1)) for uid, epoch in gone],
        rejoined=choices.chance(20),
        unmanaged=choices.pick((None, None, [], [_unmanaged(choices)], [_unmanaged(choices), _unmanaged(choices)])),
    )


def rejoined(choices: Choices, state: State) -> Command:
    """A report that a rejoining host carried out all its orders."""
    host = choices.host_in(state, HostPhase.REJOINING)
    return Report(
        host=host,
        session=session_at(state, host),
        destroyed=[Destroyed(uid=uid, epoch=epoch) for uid, epoch in _orders(state, host)],
        rejoined=True,
    )


def inventory(vcpu: int, memory_in_mb: int, microvms: int, *, fences: bool = True, boot_id: str = "b") -> Inventory:
    return Inventory(
        agent_version="1",
        boot_id=boot_id,
        drivers=[DriverFacts(name="simulated", simulated=True, fences=fences)],
        capacity=Amount(microvms=microvms, vcpu=vcpu, memory_in_mb=memory_in_mb),
    )


def session_at(state: State, host: str) -> str:
    """The session that the host has, if it has one."""
    known = state.hosts.get(host)
    return (known.session if known is not None else None) or "a"


def observation(choices: Choices, vm: MicroVM) -> Observation:
    failure = None
    if choices.chance(15):
        failure = Failure(code="ImageNotFound", message=choices.pick(("one", "another")), permanent=choices.chance(60))
    return Observation(
        uid=vm.meta.uid,
        host=choices.name(),
        epoch=choices.integer(vm.epoch, vm.epoch, vm.epoch, vm.epoch - 1),
        at=choices.integer(5),
        power=choices.pick((ObservedPower(vm.spec.power_state.value), *ObservedPower)),
        generation=choices.pick((None, vm.meta.generation, vm.meta.generation, choices.integer(1))),
        repair_seq=choices.integer(vm.repair_seq, vm.repair_seq, 0),
        restart_seq=choices.integer(vm.restart_seq, vm.restart_seq, 0),
        ready=choices.chance(50),
        vcpu=choices.pick((None, vm.spec.vcpu, vm.spec.vcpu, choices.integer(1))),
        memory_in_mb=choices.pick((None, vm.spec.memory_in_mb, choices.integer(1))),
        failure=failure,
        details={"pid": choices.pick(("1", "2"))},
        interfaces={"eth1": InterfaceFacts(host_device="tap0", mac_address="02:00:00:00:00:01")},
    )


def _host_and_session(choices: Choices, state: State) -> tuple[str, str]:
    host = choices.pick(sorted(state.hosts)) if state.hosts and not choices.nonsense() else choices.name()
    known = state.hosts.get(host)
    session = known.session if known is not None and known.session is not None else choices.pick(NAMES)
    return host, choices.pick(NAMES) if choices.chance(10) else session


def _orders(state: State, host: str) -> list[tuple[str, int]]:
    return sorted(state.hosts[host].stale.items()) if host in state.hosts else []


def _unmanaged(choices: Choices) -> Unmanaged:
    return Unmanaged(
        native_id=choices.pick(("1", "2")),
        driver=choices.pick(("qemu", "simulated")),
        uid=choices.pick((None, choices.uid())),
        since=choices.integer(0),
        epoch=choices.pick((None, 1, choices.integer(3))),
        ours=choices.chance(70),
    )
