"""Conditions: what a person reads about an object."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import agent_connected, declare_host, failure
from support.driven import DrivenMachine

from controlplane.decide.conditions import Condition, Truth, conditions, host_conditions
from controlplane.model.commands import AgentLost, MarkUnplaced
from controlplane.model.resources import ObservedPower

LOST = AgentLost(host="h1", session="session-h1", reason="silent")
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
    machine.accept(LOST)


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
]


@pytest.mark.parametrize(("arrange", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_conditions(arrange: Callable[[DrivenMachine], object], expected: list[tuple[str, Truth, str]]) -> None:
    machine = DrivenMachine().with_host()
    arrange(machine)
    found = conditions(machine.state, machine.vm())
    assert [(each.type, each.status, each.reason) for each in found] == expected
    assert all(each.message for each in found)


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
    machine.accept(LOST)
    assert "it was stopped when last seen" in by_type(conditions(machine.state, machine.vm()))["Running"].message


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
    ("silent", lambda m: m.with_host().accept(LOST), (F, "AgentSilent"), (F, "NotReady")),
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


def test_a_cordoned_host_says_what_it_keeps() -> None:
    machine = DrivenMachine().with_host()
    machine.active()
    machine.accept(declare_host(schedulable=False))
    found = by_type(host_conditions(machine.state, machine.host()))
    assert found["Schedulable"].message == "cordoned; it keeps 1 microVMs"
