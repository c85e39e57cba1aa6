"""The lifecycle tables: every event that a command can bring to a phase is listed, or refused before."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from enum import StrEnum
from pathlib import Path

import pytest
from support.builders import (
    agent_connected,
    begin_incarnation,
    confirm_fenced,
    declare_host,
    declare_microvm,
    destroyed,
    detached,
    evict,
    failure,
    fenced,
    heard,
    observation,
    place,
    report,
    resurrect,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.machine.lifecycle import (
    AVAILABILITY,
    HOST,
    MICROVM,
    OPERATION,
    AvailabilityEvent,
    HostEvent,
    MicroVMEvent,
    OperationEvent,
)
from controlplane.machine.outcome import Code, Rejected
from controlplane.model.commands import ActOnHost, AgentLost, Command, Delete, HostAction
from controlplane.model.resources import Availability, HostPhase, MicroVMPhase, OperationPhase
from controlplane.model.spec import HostFailure, HostMode, Recovery
from controlplane.model.types import Kind

LOST = AgentLost(host="h1", session="session-h1", reason="silent")

HOST_COMMANDS: dict[HostEvent, Command] = {
    HostEvent.DECLARED: declare_host(),
    HostEvent.CONNECTED: agent_connected(),
    HostEvent.LOST: LOST,
    HostEvent.SUSPECTED: suspected(),
    HostEvent.HEARD: heard(),
    HostEvent.DETACHED: detached(),
    HostEvent.FENCED: fenced(),
    HostEvent.REJOINED: report(rejoined=True),
    HostEvent.RESTORED: begin_incarnation(),
    HostEvent.DELETED: Delete(kind=Kind.HOST, name="h1"),
}
WAYS_TO_HOST_PHASES: dict[HostPhase | None, list[Command]] = {
    None: [],
    HostPhase.EXPECTED: [declare_host()],
    HostPhase.PENDING: [agent_connected()],
    HostPhase.READY: [declare_host(), agent_connected()],
    HostPhase.SUSPECT: [declare_host(), agent_connected(), suspected()],
    HostPhase.DETACHED: [declare_host(), agent_connected(), suspected(), detached()],
    HostPhase.FENCED: [declare_host(), agent_connected(), suspected(), detached(), fenced()],
    HostPhase.REJOINING: [declare_host(), agent_connected(), suspected(), detached(), agent_connected()],
}


@pytest.mark.parametrize("event", HostEvent)
@pytest.mark.parametrize("phase", WAYS_TO_HOST_PHASES, ids=str)
def test_every_event_of_a_host_is_in_the_table_or_refused(phase: HostPhase | None, event: HostEvent) -> None:
    machine = DrivenMachine()
    for command in WAYS_TO_HOST_PHASES[phase]:
        machine.accept(command)
    command = HOST_COMMANDS[event]
    if (phase, event) == (HostPhase.SUSPECT, HostEvent.FENCED):
        command = confirm_fenced()  # a suspect host is fenced by an operator's word alone
    before = machine.state
    outcome = machine.do(command)
    host = machine.state.hosts.get("h1")
    if (phase, event) in HOST:
        assert not isinstance(outcome, Rejected)
        assert (host.phase if host is not None else None) is HOST[phase, event]
    elif event is HostEvent.RESTORED:
        assert host == before.hosts.get("h1"), "it is about every host, and says nothing of those"
    elif event is HostEvent.REJOINED and host is not None and host.session is not None:
        assert machine.state is before, "any session may report, and only that of a rejoining host rejoins it"
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.code is (Code.NOT_FOUND if event is HostEvent.DELETED else Code.STALE)


WAYS_TO_VM_PHASES: list[MicroVMPhase | None] = [None, *MicroVMPhase]
DRAIN = ActOnHost(host="h1", action=HostAction.DRAIN, max_parallel=2)
VM_DELETE = Delete(kind=Kind.MICROVM, namespace="demo", name="web")


def vm_in(phase: MicroVMPhase | None) -> DrivenMachine:
    machine = DrivenMachine().with_host()
    if phase is None:
        return machine
    vm = machine.pending(recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE))
    if phase is not MicroVMPhase.PENDING:
        machine.accept(place(vm))
        vm = machine.vm()
    if phase is MicroVMPhase.ACTIVE:
        machine.confirm(vm)
    elif phase is MicroVMPhase.FAILED:
        machine.confirm(vm, failure=failure(), generation=None, power="absent")
    elif phase is MicroVMPhase.DELETING:
        machine.accept(VM_DELETE)
    elif phase is MicroVMPhase.MOVING:
        machine.accept(DRAIN)
        machine.accept(evict(vm))
    assert machine.vm().phase is phase
    return machine


def bring(machine: DrivenMachine, event: MicroVMEvent) -> Command:
    """A command that brings `event` to the microVM."""
    vm = machine.state.microvm("demo", "web") or DrivenMachine().with_host().placed()
    match event:
        case MicroVMEvent.PLACED:
            return place(vm)
        case MicroVMEvent.CONFIRMED:
            return report(observation(vm, details={"pid": "7"}))
        case MicroVMEvent.FAILED:
            return report(observation(vm, failure=failure(message="another"), details={"pid": "8"}))
        case MicroVMEvent.REDECLARED:
            return declare_microvm(vcpu=2, recovery=vm.spec.recovery)
        case MicroVMEvent.TOMBSTONED:
            return VM_DELETE
        case MicroVMEvent.DESTROYED:
            return destroyed(vm) if vm.placement is not None else report()
        case MicroVMEvent.RESURRECTED:
            if "h1" in machine.state.hosts:
                machine.lose()
            return resurrect(vm)
        case MicroVMEvent.EVICTED:
            if machine.state.hosts["h1"].spec.mode is HostMode.ACTIVE:
                machine.accept(DRAIN)
            return evict(vm)


@pytest.mark.parametrize("event", MicroVMEvent)
@pytest.mark.parametrize("phase", WAYS_TO_VM_PHASES, ids=str)
def test_every_event_of_a_microvm_is_in_the_table_or_without_effect(
    phase: MicroVMPhase | None, event: MicroVMEvent
) -> None:
    machine = vm_in(phase)
    command = bring(machine, event)
    before = machine.state
    machine.do(command)
    vm = machine.state.microvm("demo", "web")
    now = vm.phase if vm is not None else None
    if (phase, event) in MICROVM:
        assert now is MICROVM[phase, event]
    else:
        assert now is phase
        assert event in (MicroVMEvent.CONFIRMED, MicroVMEvent.FAILED) or machine.state is before


@pytest.mark.parametrize(
    ("table", "phases", "events"),
    [
        (HOST, HostPhase, HostEvent),
        (MICROVM, MicroVMPhase, MicroVMEvent),
        (OPERATION, OperationPhase, OperationEvent),
    ],
)
def test_every_phase_is_reached_and_every_event_is_used(
    table: dict[tuple[StrEnum | None, StrEnum], StrEnum | None], phases: type[StrEnum], events: type[StrEnum]
) -> None:
    reached: set[StrEnum | None] = set()
    todo: deque[StrEnum | None] = deque([None])
    while todo:
        phase = todo.popleft()
        for (start, _), end in table.items():
            if start is phase and end is not None and end not in reached:
                reached.add(end)
                todo.append(end)
    assert reached == set(phases)
    assert {event for _, event in table} == set(events)


def test_a_host_can_become_whatever_it_is_for() -> None:
    reached, todo = {Availability.OPEN}, deque([Availability.OPEN])
    while todo:
        now = todo.popleft()
        for (start, _), end in AVAILABILITY.items():
            if start is now and end not in reached:
                reached.add(end)
                todo.append(end)
    assert reached == set(Availability)
    assert {event for _, event in AVAILABILITY} == set(AvailabilityEvent)


def test_the_drawn_tables_are_the_tables() -> None:
    script = Path(__file__).resolve().parents[3] / "docs" / "generate_lifecycles.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
