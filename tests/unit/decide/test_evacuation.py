"""Emptying hosts: nobody is shut down before a host has room for it, and whoever stays is told why."""

from __future__ import annotations

import pytest
from support.builders import act_on_host, destroyed, evict, observation, place, report, suspected
from support.driven import DrivenMachine

from controlplane.decide.emptying import Stand, emptying
from controlplane.decide.evacuation import EXAMINED, Step, to_ask_about, to_empty, with_bids, without_asking
from controlplane.decide.rounds import Answers
from controlplane.decide.shortlist import WIDTH, Fleet, Shortlist
from controlplane.machine.outcome import Applied
from controlplane.model.commands import Evict, HostAction, HostEvacuated, MarkStaying
from controlplane.model.resources import Bid, ObservedPower
from controlplane.model.spec import Placement

DRAIN = act_on_host(HostAction.DRAIN)
MAINTENANCE = act_on_host(HostAction.MAINTENANCE)


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host().with_host("h2")


def round_of(
    machine: DrivenMachine, *, refused: dict[str, str] | None = None, silent: dict[str, str] | None = None
) -> list[Step]:
    """What a round decides when every host offers but for some; the machine takes all of it."""
    state, host = machine.state, machine.host()
    steps = without_asking(state, host)
    if not steps:
        vms = to_ask_about(state, host, "")
        asked = {vm.meta.uid: Shortlist(state, Fleet(state), vm).take(WIDTH) for vm in vms}
        bids = {
            name: {
                vm.meta.uid: Bid(host=name, score=None if reason else 0.5, refused=reason)
                for vm in vms
                for reason in ((refused or {}).get(name),)
            }
            for name in {host for hosts in asked.values() for host in hosts} - (silent or {}).keys()
        }
        steps = with_bids(state, host, vms, Answers(asked=asked, bids=bids, silent=silent or {}, refused={}))
    for step in steps:
        assert isinstance(machine.do(step), Applied), step
    return steps


def stands(machine: DrivenMachine) -> dict[str, Stand]:
    return {each.vm.meta.name: each.stand for each in emptying(machine.state, machine.host()).left}


def reason(machine: DrivenMachine, name: str = "web") -> str:
    return next(each.reason for each in emptying(machine.state, machine.host()).left if each.vm.meta.name == name)


def test_only_hosts_with_something_to_do_are_looked_at(machine: DrivenMachine) -> None:
    assert to_empty(machine.state) == []
    machine.accept(DRAIN)
    assert [host.meta.name for host in to_empty(machine.state)] == ["h1"]
    assert round_of(machine) == [HostEvacuated(host="h1")]
    assert to_empty(machine.state) == []


def test_a_host_is_emptied_one_after_the_other(machine: DrivenMachine) -> None:
    a, b = machine.active("a"), machine.active("b")
    machine.accept(DRAIN)
    assert stands(machine) == {"a": Stand.WAITING, "b": Stand.WAITING}
    assert round_of(machine) == [evict(a)]
    assert stands(machine) == {"a": Stand.MOVING, "b": Stand.WAITING}
    assert round_of(machine) == []
    assert "1 of at most 1 are on their way" in reason(machine, "b")
    machine.accept(destroyed(machine.vm("a")))
    assert stands(machine)["a"] is Stand.ARRIVING
    assert round_of(machine) == []
    machine.accept(place(machine.vm("a"), "h2"))
    assert round_of(machine) == []
    machine.confirm(machine.vm("a"))
    assert round_of(machine) == [evict(b)]


def test_many_go_at_once_where_that_is_asked_for(machine: DrivenMachine) -> None:
    for number in range(4):
        machine.active(f"vm{number}")
    machine.accept(act_on_host(HostAction.DRAIN, max_parallel=3))
    assert [type(step) for step in round_of(machine)] == [Evict] * 3


def test_nobody_is_shut_down_for_whom_there_is_no_room(machine: DrivenMachine) -> None:
    machine.active("big", vcpu=6)
    machine.active("there", host="h2", vcpu=6)
    machine.accept(DRAIN)
    (step,) = round_of(machine)
    assert isinstance(step, MarkStaying)
    assert "h2: needs 6 vcpu, 2 of 8 are free" in step.reason
    assert stands(machine) == {"big": Stand.STAYING}
    assert round_of(machine) == [], "and it is said once"


def test_room_is_not_promised_twice(machine: DrivenMachine) -> None:
    """Of two that fit alone, the second one waits for room; also when the first is on its way from another host."""
    machine.with_host("h3", vcpu=4)
    machine.active("a", vcpu=3)
    machine.active("b", vcpu=3)
    machine.active("full", host="h2", vcpu=8)
    machine.accept(act_on_host(HostAction.DRAIN, max_parallel=2))
    steps = round_of(machine)
    assert [(type(step), step.uid) for step in steps if not isinstance(step, HostEvacuated)] == [
        (Evict, "vm-a"),
        (MarkStaying, "vm-b"),
    ]
    machine.accept(destroyed(machine.vm("a")))
    assert round_of(machine) == []


def test_a_host_that_says_no_is_quoted(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(DRAIN)
    (step,) = round_of(machine, refused={"h2": "ImageNotFound: no image demo/kernel:6.1"})
    assert isinstance(step, MarkStaying)
    assert "ImageNotFound" in step.reason
    (step,) = round_of(machine)
    assert isinstance(step, Evict), "and it is asked again"


def test_silence_is_no_refusal(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(MAINTENANCE)
    assert round_of(machine, silent={"h2": "the host did not answer"}) == []


def test_a_host_that_is_not_heard_waits(machine: DrivenMachine) -> None:
    machine.active()
    machine.accept(DRAIN)
    machine.accept(suspected())
    assert round_of(machine) == []
    assert (stands(machine)["web"], reason(machine)) == (
        Stand.WAITING,
        "the host is suspect: what is there is moved once it is ready",
    )


def test_maintenance_shuts_down_what_stays_once_the_rest_has_left(machine: DrivenMachine) -> None:
    machine.active("pinned", placement=Placement(host="h1"))
    moves = machine.active("moves")
    machine.accept(MAINTENANCE)
    (step,) = round_of(machine)
    assert isinstance(step, MarkStaying)
    assert not step.halt
    assert round_of(machine) == [evict(moves)]
    machine.accept(destroyed(machine.vm("moves")))
    (step,) = round_of(machine)
    assert isinstance(step, MarkStaying)
    assert step.halt
    assert stands(machine)["pinned"] is Stand.HALTING
    machine.accept(report(observation(machine.vm("pinned"), power=ObservedPower.STOPPED, halted=True)))
    assert stands(machine)["pinned"] is Stand.HALTED
    assert round_of(machine) == [HostEvacuated(host="h1")]


def test_a_drain_lets_run_what_stays(machine: DrivenMachine) -> None:
    machine.active("pinned", placement=Placement(host="h1"))
    machine.accept(DRAIN)
    round_of(machine)
    assert round_of(machine) == []
    assert stands(machine) == {"pinned": Stand.STAYING}


def test_any_number_that_fit_nowhere_keeps_no_other_one_waiting(machine: DrivenMachine) -> None:
    machine.with_host("h1big", vcpu=64, memory_in_mb=65536)
    for number in range(EXAMINED + 4):
        machine.active(f"vm{number:02}", host="h1big")
    host = machine.accept(act_on_host(HostAction.DRAIN, "h1big")) and machine.host("h1big")
    asked = to_ask_about(machine.state, host, "")
    assert len(asked) == EXAMINED
    for vm in asked:
        machine.accept(MarkStaying(host="h1big", uid=vm.meta.uid, epoch=1, reason="no host takes it"))
    following = to_ask_about(machine.state, machine.host("h1big"), asked[-1].meta.uid)
    assert {vm.meta.name for vm in following} >= {f"vm{EXAMINED + number}" for number in range(4)}
