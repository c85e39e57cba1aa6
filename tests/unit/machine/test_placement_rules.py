"""Where a microVM may go, rule by rule, and that every refusal says which."""

from __future__ import annotations

import pytest
from support.builders import agent_connected, declare_host, declare_microvm, declare_namespace, declare_policy, place
from support.driven import DrivenMachine

from controlplane.machine.placement_rules import refusal
from controlplane.model.commands import AgentLost, Delete
from controlplane.model.resources import MicroVM
from controlplane.model.spec import Placement, Spread
from controlplane.model.types import Kind


@pytest.fixture
def machine() -> DrivenMachine:
    machine = DrivenMachine()
    machine.accept(declare_namespace())
    for name, zone in (("h1", "a"), ("h2", "a"), ("h3", "b")):
        machine.accept(declare_host(name, labels={"zone": zone, "disk": "ssd"}))
        machine.accept(agent_connected(name, vcpu=4, memory_in_mb=512, microvms=3))
    return machine


def why_not(machine: DrivenMachine, vm: MicroVM, host: str = "h1") -> str | None:
    return refusal(machine.state, vm, machine.host(host))


def test_a_host_that_may_take_it(machine: DrivenMachine) -> None:
    assert why_not(machine, machine.pending(placement=Placement(host="h1", required_host_labels={"zone": "a"}))) is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"vcpu": 5}, "needs 5 vcpu, 4 of 4 are free"),
        ({"memory_in_mb": 513}, "needs 513 MB of memory, 512 of 512 are free"),
        ({"provider": "qemu"}, "provider qemu is asked for, the host has simulated"),
        ({"placement": Placement(host="h2")}, "the spec asks for host h2"),
        (
            {"placement": Placement(required_host_labels={"zone": "b"})},
            "label zone=b is required, the host has a",
        ),
        ({"placement": Placement(required_host_labels={"gpu": "yes"})}, "label gpu=yes is required, the host has none"),
        ({"placement": Placement(required_host_labels={"host": "h2"})}, "label host=h2 is required, the host has h1"),
        (
            {"placement": Placement(spread=Spread(by="rack"))},
            "microVMs are spread by host label rack, which the host does not have",
        ),
    ],
)
def test_refusals_name_the_rule(machine: DrivenMachine, spec: dict[str, object], words: str) -> None:
    assert why_not(machine, machine.pending(**spec)) == words


def test_hosts_that_take_nothing(machine: DrivenMachine) -> None:
    vm = machine.pending()
    machine.accept(declare_host("h2", schedulable=False))
    machine.accept(AgentLost(host="h3", session="session-h3", reason="silent"))
    machine.accept(declare_host("h4"))
    machine.accept(agent_connected("h5"))
    assert why_not(machine, vm, "h2") == "the host is cordoned (schedulable = false)"
    assert why_not(machine, vm, "h3") == "the host is suspect: its agent is not heard"
    assert why_not(machine, vm, "h4") == "the host is expected: its agent has never connected"
    assert why_not(machine, vm, "h5") == "the host is pending: nobody declared it"


def test_a_limit_on_the_number_of_microvms(machine: DrivenMachine) -> None:
    for name in ("a", "b", "c"):
        machine.placed(name)
    assert why_not(machine, machine.pending("d")) == "holds 3 microVMs, its limit is 3"


@pytest.mark.parametrize(("own", "policys"), [("a", "b"), ("b", "a")])
def test_a_policys_labels_are_added_to_the_microvms_own(machine: DrivenMachine, own: str, policys: str) -> None:
    machine.accept(declare_policy(required_host_labels={"zone": policys, "disk": "ssd"}))
    vm = machine.pending(placement=Placement(policy="spread", required_host_labels={"zone": own}))
    assert why_not(machine, vm, "h1") == "label zone=b is required, the host has a"
    assert why_not(machine, vm, "h3") == "label zone=a is required, the host has b"


def test_spread_by_host_and_by_label(machine: DrivenMachine) -> None:
    machine.accept(declare_policy(spread=Spread(by="zone", max_per=2)))
    policy = Placement(policy="spread")
    machine.placed("a", host="h1", placement=policy)
    vm = machine.pending("b", placement=Placement(spread=Spread()))
    assert why_not(machine, vm, "h1") == "spread allows 1 per host, host=h1 has 1"
    assert why_not(machine, vm, "h2") is None
    machine.placed("c", host="h2", placement=policy)
    vm = machine.pending("d", placement=policy)
    assert why_not(machine, vm, "h1") == "spread allows 2 per zone, zone=a has 2"
    assert why_not(machine, vm, "h3") is None


def test_spread_counts_what_matches_in_its_namespace_tombstones_too(machine: DrivenMachine) -> None:
    machine.accept(declare_namespace("other"))
    machine.accept(declare_microvm("x", namespace="other", labels={"app": "web"}))
    machine.accept(place(machine.vm("x", "other")))
    vm = machine.pending("web", placement=Placement(spread=Spread(match_labels={"app": "web"})))
    assert why_not(machine, vm) is None
    machine.accept(declare_microvm("another", labels={"app": "web"}))
    machine.accept(place(machine.vm("another")))
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="another"))
    assert why_not(machine, vm) == "spread allows 1 per host, host=h1 has 1"
