"""Drift: what was done and is different now is drift; what is under way, unknown or nobody's is something else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import (
    agent_connected,
    confirm_fenced,
    declare_microvm,
    detached,
    failure,
    place,
    report,
    resurrect,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.decide.drift import DriftClass, classify, unmanaged
from controlplane.model.commands import Act, Action, Delete, Destroyed
from controlplane.model.resources import ObservedPower, Unmanaged
from controlplane.model.spec import HostFailure, Recovery
from controlplane.model.types import Kind

KILLED = {"power": ObservedPower.STOPPED, "cause": "process exited (signal 9)"}
POWER = ["/spec/power_state"]
MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)


def confirmed(machine: DrivenMachine, **changes: object) -> None:
    machine.confirm(machine.active(), **changes)


def grown(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(declare_microvm(vcpu=2))


def repair_asked(machine: DrivenMachine) -> None:
    confirmed(machine, **KILLED)
    machine.accept(Act(namespace="demo", name="web", action=Action.REPAIR))


def silent(machine: DrivenMachine, **changes: object) -> None:
    confirmed(machine, **changes)
    machine.accept(suspected())


def deleted(machine: DrivenMachine) -> None:
    confirmed(machine, **KILLED)
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))


def failed(machine: DrivenMachine) -> None:
    machine.confirm(machine.placed(), failure=failure(), power=ObservedPower.ABSENT, generation=None)


def failing(machine: DrivenMachine) -> None:
    busy = failure(permanent=False)
    machine.confirm(machine.placed(), failure=busy, power=ObservedPower.ABSENT, generation=None)


def placed_on_a_silent_host(machine: DrivenMachine) -> None:
    machine.placed()
    machine.accept(suspected())


def cut_off(machine: DrivenMachine) -> None:
    confirmed(machine)
    machine.accept(detached())


def lost(machine: DrivenMachine, **changes: object) -> None:
    machine.confirm(machine.active(recovery=MOVES), **changes)
    machine.lose()


def confirmed_off(machine: DrivenMachine) -> None:
    lost(machine)
    machine.accept(confirm_fenced())


def back(machine: DrivenMachine) -> None:
    lost(machine, **KILLED)
    machine.accept(agent_connected())


def given_up(machine: DrivenMachine) -> None:
    lost(machine, **KILLED)
    machine.accept(resurrect(machine.vm()))


def moved(machine: DrivenMachine) -> None:
    given_up(machine)
    machine.with_host("h2")
    machine.accept(place(machine.vm(), "h2"))


TABLE: list[tuple[str, Callable[[DrivenMachine], object], DriftClass, list[str]]] = [
    ("waits for a host", lambda machine: machine.pending(), DriftClass.PROGRESSING, []),
    ("placed, nothing seen", lambda machine: machine.placed(), DriftClass.PROGRESSING, []),
    ("as asked for", confirmed, DriftClass.IN_SYNC, []),
    ("killed", lambda machine: confirmed(machine, **KILLED), DriftClass.DRIFTED, POWER),
    ("paused", lambda machine: confirmed(machine, power=ObservedPower.PAUSED), DriftClass.DRIFTED, POWER),
    ("gone", lambda machine: confirmed(machine, power=ObservedPower.ABSENT), DriftClass.DRIFTED, POWER),
    ("resized", lambda machine: confirmed(machine, vcpu=2), DriftClass.DRIFTED, ["/spec/vcpu"]),
    ("a new intent", grown, DriftClass.PROGRESSING, []),
    ("a repair was asked for", repair_asked, DriftClass.PROGRESSING, []),
    ("being deleted", deleted, DriftClass.PROGRESSING, []),
    ("cannot be run", failed, DriftClass.DRIFTED, POWER),
    ("will be tried again", failing, DriftClass.PROGRESSING, []),
    ("on a silent host", silent, DriftClass.UNREACHABLE, []),
    ("killed, then silence", lambda machine: silent(machine, **KILLED), DriftClass.UNREACHABLE, POWER),
    ("placed on a silent host", placed_on_a_silent_host, DriftClass.UNREACHABLE, []),
    ("its host is detached", cut_off, DriftClass.UNREACHABLE, []),
    ("its host is fenced", lost, DriftClass.UNREACHABLE, []),
    ("its host is confirmed as off", confirmed_off, DriftClass.UNREACHABLE, []),
    ("its host is rejoining", back, DriftClass.PROGRESSING, []),
    ("given up on its host", given_up, DriftClass.PROGRESSING, []),
    ("placed anew", moved, DriftClass.PROGRESSING, []),
]


@pytest.mark.parametrize(("arrange", "klass", "pointers"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_classes(arrange: Callable[[DrivenMachine], object], klass: DriftClass, pointers: list[str]) -> None:
    machine = DrivenMachine().with_host()
    arrange(machine)
    drift = classify(machine.state, machine.vm())
    assert (drift.klass, [each.pointer for each in drift.fields]) == (klass, pointers)


def test_a_drifted_field_says_what_when_and_why() -> None:
    machine = DrivenMachine().with_host()
    confirmed(machine, **KILLED)
    (field,) = classify(machine.state, machine.vm()).fields
    assert (field.desired, field.observed, field.cause) == ("running", "stopped", "process exited (signal 9)")
    assert field.since_ms == machine.at


def test_where_it_runs_is_not_drift() -> None:
    machine = DrivenMachine().with_host("h1").with_host("h2")
    machine.active(host="h2")
    assert classify(machine.state, machine.vm()).klass is DriftClass.IN_SYNC


def test_a_failover_never_shows_as_drift() -> None:
    machine = DrivenMachine().with_host("h1").with_host("h2")
    machine.active(recovery=MOVES)
    seen = [classify(machine.state, machine.vm()).klass]
    for command in (
        suspected(),
        detached(),
        confirm_fenced(),
        resurrect(machine.vm()),
        agent_connected(),
        report(destroyed=[Destroyed(uid="vm-web", epoch=1)], rejoined=True),
    ):
        machine.accept(command)
        seen.append(classify(machine.state, machine.vm()).klass)
    machine.accept(place(machine.vm(), "h2"))
    seen.append(classify(machine.state, machine.vm()).klass)
    machine.confirm(machine.vm())
    seen.append(classify(machine.state, machine.vm()).klass)
    unknown, working = [DriftClass.UNREACHABLE] * 3, [DriftClass.PROGRESSING] * 4
    assert seen == [DriftClass.IN_SYNC, *unknown, *working, DriftClass.IN_SYNC]


def test_what_nobody_declared_is_unmanaged() -> None:
    machine = DrivenMachine().with_host()
    drift = unmanaged(machine.host(), Unmanaged(native_id="7", driver="qemu", since=5))
    (field,) = drift.fields
    assert (drift.klass, field.observed, field.since_ms) == (DriftClass.UNMANAGED, "running", 5)
    assert field.cause == "found by driver qemu on host h1 as 7; nobody declared it"
