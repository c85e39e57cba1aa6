"""Conditions: what a person reads about an object."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import (
    agent_connected,
    confirm_fenced,
    declare_host,
    detached,
    failure,
    resurrect,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.decide.conditions import Condition, Truth, conditions, host_conditions, waits_for_lease
from controlplane.decide.drift import DriftClass, classify
from controlplane.model.commands import MarkUnplaced
from controlplane.model.resources import WAITS_FOR_LEASE, Failure, ObservedPower
from controlplane.model.spec import HostFailure, OnDetach, Recovery
from controlplane.model.types import replace

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
T, F, U = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN


def unplaced(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(
        MarkUnplaced(uid=vm.meta.uid, generation=1, reason="NoHostFits", message="no host takes it: h1: full")
    )


def killed(machine: DrivenMachine) -> None:
    machine.confirm(machine.active(), power=ObservedPower.STOPPED, cause="process exited (signal 9)")


def failed(machine: DrivenMachine) -> None:
    machine.confirm(machine.placed(), failure=failure(), power=ObservedPower.ABSENT, generation=None, ready=False)


def unready(machine: DrivenMachine) -> None:
    machine.confirm(machine.placed(), ready=False)


def silent(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(suspected())


def given_up(machine: DrivenMachine) -> None:
    machine.active(recovery=MOVES)
    machine.lose()
    machine.accept(resurrect(machine.vm()))


Row = tuple[str, Callable[[DrivenMachine], object], list[tuple[str, Truth, str]]]
TABLE: list[Row] = [
    (
        "waits for bids",
        lambda machine: machine.pending(),
        [
            ("Placed", F, "Waiting"),
            ("Running", F, "NotObserved"),
            ("Ready", F, "GuestSilent"),
            ("InSync", U, "Progressing"),
        ],
    ),
    (
        "fits nowhere",
        unplaced,
        [
            ("Placed", F, "NoHostFits"),
            ("Running", F, "NotObserved"),
            ("Ready", F, "GuestSilent"),
            ("InSync", U, "Progressing"),
        ],
    ),
    (
        "placed",
        lambda machine: machine.placed(),
        [
            ("Placed", T, "LowestBid"),
            ("Running", F, "NotObserved"),
            ("Ready", F, "GuestSilent"),
            ("InSync", U, "Progressing"),
        ],
    ),
    (
        "runs",
        lambda machine: machine.active(),
        [("Placed", T, "LowestBid"), ("Running", T, "Running"), ("Ready", T, "GuestReady"), ("InSync", T, "InSync")],
    ),
    (
        "runs, the guest is silent",
        unready,
        [("Placed", T, "LowestBid"), ("Running", T, "Running"), ("Ready", F, "GuestSilent"), ("InSync", T, "InSync")],
    ),
    (
        "was killed",
        killed,
        [("Placed", T, "LowestBid"), ("Running", F, "Stopped"), ("Ready", F, "GuestSilent"), ("InSync", F, "Drifted")],
    ),
    (
        "cannot run",
        failed,
        [
            ("Placed", T, "LowestBid"),
            ("Running", F, "ImageNotFound"),
            ("Ready", F, "GuestSilent"),
            ("InSync", F, "Drifted"),
        ],
    ),
    (
        "on a silent host",
        silent,
        [
            ("Placed", T, "LowestBid"),
            ("Running", U, "HostUnreachable"),
            ("Ready", U, "HostUnreachable"),
            ("InSync", U, "Unreachable"),
        ],
    ),
    (
        "given up on a lost host",
        given_up,
        [
            ("Placed", F, "HostLost"),
            ("Running", F, "NotObserved"),
            ("Ready", F, "GuestSilent"),
            ("InSync", U, "Progressing"),
        ],
    ),
]


@pytest.mark.parametrize(("arrange", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_conditions(arrange: Callable[[DrivenMachine], object], expected: list[tuple[str, Truth, str]]) -> None:
    machine = DrivenMachine().with_host()
    arrange(machine)
    found = conditions(machine.state, machine.vm())
    assert [(each.type, each.status, each.reason) for each in found] == expected
    assert all(each.message for each in found)


def wants_a_lease(machine: DrivenMachine) -> None:
    machine.confirm(
        machine.placed(recovery=MOVES),
        failure=Failure(code=WAITS_FOR_LEASE, message="waits for a lease since 07:00: none was granted to its host"),
        power=ObservedPower.ABSENT,
        generation=None,
        ready=False,
    )


def rejoins(machine: DrivenMachine) -> None:
    machine.active(recovery=MOVES)
    machine.accept(suspected())
    machine.accept(detached())
    machine.accept(agent_connected())


@pytest.mark.parametrize(("arrange", "why"), [(wants_a_lease, "since 07:00"), (rejoins, "rejoins")])
def test_what_waits_for_a_lease_says_so(arrange: Callable[[DrivenMachine], None], why: str) -> None:
    machine = DrivenMachine().with_host()
    arrange(machine)
    found = by_type(conditions(machine.state, machine.vm()))["Running"]
    assert (found.status, found.reason) == (F, WAITS_FOR_LEASE)
    assert "host h1" in found.message
    assert why in found.message
    assert classify(machine.state, machine.vm()).klass is DriftClass.PROGRESSING, "a plan shows nothing"
    assert waits_for_lease(machine.state, machine.vm()) == found.message


def test_what_needs_no_lease_waits_for_none() -> None:
    machine = DrivenMachine().with_host()
    machine.active()
    machine.accept(suspected())
    machine.accept(detached())
    machine.accept(agent_connected())
    assert waits_for_lease(machine.state, machine.vm()) == ""


def test_a_driver_that_takes_no_lease_is_told_and_what_runs_there_counts_as_kept() -> None:
    machine = DrivenMachine().with_host()
    machine.active(recovery=MOVES)
    assert "Fencing" not in by_type(host_conditions(machine.state, machine.host()))
    command = agent_connected(fences=False)
    (driver,) = command.inventory.drivers
    broken = replace(driver, lease_problem="FenceUnavailable: no watchdog answers")
    machine.accept(replace(command, inventory=replace(command.inventory, drivers=[broken])))
    found = by_type(host_conditions(machine.state, machine.host()))["Fencing"]
    assert (found.status, found.reason) == (F, "DriverTakesNoLease")
    assert "driver simulated takes no lease (FenceUnavailable: no watchdog answers)" in found.message
    assert machine.vm().detach is OnDetach.KEEP
    machine.accept(agent_connected())
    assert "Fencing" not in by_type(host_conditions(machine.state, machine.host()))


def by_type(found: tuple[Condition, ...]) -> dict[str, Condition]:
    return {each.type: each for each in found}


def test_messages_name_the_fact() -> None:
    machine = DrivenMachine().with_host()
    killed(machine)
    found = by_type(conditions(machine.state, machine.vm()))
    assert found["Placed"].message == "placed on h1, epoch 1"
    assert found["Running"].message == "process exited (signal 9)"
    assert found["InSync"].message == "/spec/power_state is stopped, should be running"
    assert found["InSync"].since_ms == machine.at
    machine.accept(suspected())
    message = by_type(conditions(machine.state, machine.vm()))["Running"].message
    assert message == (
        "it was stopped when last seen; host h1 is suspect (silent for 3 s); it is not restarted elsewhere: its"
        " recovery.on_host_failure is never"
    )


def test_what_becomes_of_a_microvm_on_a_lost_host_is_told() -> None:
    machine = DrivenMachine().with_host()
    machine.active(recovery=MOVES)
    machine.accept(detached())
    message = by_type(conditions(machine.state, machine.vm()))["Running"].message
    assert message.endswith("it is restarted elsewhere once that is fenced and the breaker is closed")
    machine.accept(confirm_fenced())
    machine.accept(resurrect(machine.vm()))
    message = by_type(conditions(machine.state, machine.vm()))["Placed"].message
    assert message == "host h1 was lost (fenced): it is being placed anew"


HOSTS: list[tuple[str, Callable[[DrivenMachine], object], tuple[Truth, str], tuple[Truth, str]]] = [
    ("ready", lambda m: m.with_host(), (T, "AgentConnected"), (T, "Ready")),
    ("expected", lambda m: m.accept(declare_host()), (F, "AgentSilent"), (F, "NotReady")),
    ("nobody's", lambda m: m.accept(agent_connected()), (T, "AgentConnected"), (F, "NotDeclared")),
    (
        "cordoned",
        lambda m: m.with_host().accept(declare_host(schedulable=False)),
        (T, "AgentConnected"),
        (F, "Cordoned"),
    ),
    ("suspect", lambda m: m.with_host().accept(suspected()), (F, "AgentSilent"), (F, "NotReady")),
    ("detached", lambda m: m.with_host().accept(detached()), (F, "AgentSilent"), (F, "NotReady")),
    ("fenced", lambda m: m.with_host().lose(), (F, "AgentSilent"), (F, "NotReady")),
    ("off", lambda m: m.with_host().lose().accept(confirm_fenced()), (F, "AgentSilent"), (F, "NotReady")),
    ("rejoining", lambda m: m.with_host().lose().accept(agent_connected()), (T, "AgentConnected"), (F, "NotReady")),
]


@pytest.mark.parametrize(
    ("arrange", "connected", "schedulable"), [row[1:] for row in HOSTS], ids=[row[0] for row in HOSTS]
)
def test_host_conditions(
    arrange: Callable[[DrivenMachine], object], connected: tuple[Truth, str], schedulable: tuple[Truth, str]
) -> None:
    machine = DrivenMachine()
    arrange(machine)
    found = by_type(host_conditions(machine.state, machine.host()))
    assert (found["Connected"].status, found["Connected"].reason) == connected
    assert (found["Schedulable"].status, found["Schedulable"].reason) == schedulable
    assert found["Connected"].since_ms == machine.host().since


def test_a_lost_host_says_what_happens_next() -> None:
    machine = DrivenMachine().with_host()
    vm = machine.active(recovery=MOVES)
    told: list[str] = []
    for command in (suspected(), detached(), confirm_fenced(), resurrect(vm), agent_connected()):
        machine.accept(command)
        told.append(by_type(host_conditions(machine.state, machine.host()))["Connected"].message)
    assert "(silent for 3 s); nothing new comes here" in told[0]
    assert "(its lease ended); its lease has ended: what may be restarted elsewhere stands still" in told[1]
    assert "alice confirmed that it is off" in told[2]
    assert told[4] == (
        "its agent is back at node n1; it is ready once it has destroyed what was given up here (1 left)"
    )


def test_a_cordoned_host_says_what_it_keeps() -> None:
    machine = DrivenMachine().with_host()
    machine.active()
    machine.accept(declare_host(schedulable=False))
    found = by_type(host_conditions(machine.state, machine.host()))
    assert found["Schedulable"].message == "cordoned; it keeps 1 microVMs"
