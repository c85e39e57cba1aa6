"""Which hosts are asked: enough that fit, all of them if need be, and every other one has its reason."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import agent_connected, begin_incarnation, declare_host, declare_namespace, declare_policy, place
from support.driven import DrivenMachine

from controlplane.decide.shortlist import WIDTH, Fleet, Shortlist
from controlplane.machine.placement_rules import refusal
from controlplane.model.resources import MicroVM
from controlplane.model.spec import Placement
from controlplane.model.types import replace


def shortlist(machine: DrivenMachine, vm: MicroVM) -> Shortlist:
    return Shortlist(machine.state, Fleet(machine.state), vm)


def test_it_names_the_hosts_that_the_machine_accepts_and_refuses_the_others() -> None:
    machine = DrivenMachine().with_host("h2").with_host("h1", vcpu=1)
    machine.accept(declare_host("h0", schedulable=False))
    machine.accept(declare_host("h3"))
    machine.accept(agent_connected("h4"))
    vm = machine.pending(vcpu=2)
    found = shortlist(machine, vm)
    assert found.take(WIDTH) == ["h2"]
    assert found.take(WIDTH) == []
    assert sorted(bid.host for bid in found.refused) == ["h0", "h1", "h3", "h4"]
    assert all(bid.refused == refusal(machine.state, vm, machine.host(bid.host)) for bid in found.refused)
    machine.accept(place(vm, "h2"))


def test_what_is_withheld_is_asked_of_no_host() -> None:
    machine = DrivenMachine().with_host("h1").with_host("h2")
    vm = machine.pending()
    machine.accept(begin_incarnation())
    found = shortlist(machine, vm)
    assert found.take(WIDTH) == []
    assert {bid.host for bid in found.refused} == set(machine.state.hosts)
    assert all("the cluster was restored" in (bid.refused or "") for bid in found.refused)


def test_of_a_large_fleet_few_are_looked_at_and_each_microvm_meets_others() -> None:
    machine = DrivenMachine()
    for number in range(200):
        machine.with_host(f"h{number:03}")
    vm = machine.pending()
    first = Counter(
        name
        for uid in range(2000)
        for name in shortlist(machine, replace(vm, meta=replace(vm.meta, uid=f"uid-{uid}"))).take(WIDTH)
    )
    assert set(first) == set(machine.state.hosts)
    # 2,000 x 4 of 200 are 40 each: five times the standard deviation of fair draws to both sides.
    assert all(9 < count < 71 for count in first.values())
    assert not shortlist(machine, vm).refused


def test_hosts_with_preferred_labels_are_met_however_few_they_are() -> None:
    machine = DrivenMachine()
    for number in range(200):
        machine.with_host(f"h{number:03}")
    machine.accept(declare_host("h077", labels={"disk": "ssd"}))
    machine.accept(declare_policy(preferred_host_labels={"disk": "ssd"}))
    first = shortlist(machine, machine.pending(placement=Placement(policy="spread"))).take(WIDTH)
    assert first[0] == "h077"
    assert len(set(first)) == WIDTH


def test_hosts_with_required_labels_come_before_all_others_are_looked_at() -> None:
    machine = DrivenMachine()
    for number in range(200):
        machine.with_host(f"h{number:03}")
    machine.accept(declare_host("h042", labels={"gpu": "yes"}))
    found = shortlist(machine, machine.pending(placement=Placement(required_host_labels={"gpu": "yes"})))
    assert found.take(1) == ["h042"]
    assert not found.refused
    pinned = shortlist(machine, machine.pending("pinned", placement=Placement(host="h043")))
    assert pinned.take(WIDTH) == ["h043"]
    assert {bid.refused for bid in pinned.refused} == {"the spec asks for host h043"}
    nowhere = shortlist(machine, machine.pending("nowhere", placement=Placement(host="h999")))
    assert nowhere.take(WIDTH) == []
    assert len(nowhere.refused) == 200


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.sampled_from(["a", "b", None])), max_size=20),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([None, "a", "b"]),
    st.lists(st.integers(1, 20), max_size=5),
)
def test_whatever_the_fleet_every_host_is_offered_or_refused_once(
    hosts: list[tuple[int, bool, str | None]], required: str | None, preferred: str | None, widths: list[int]
) -> None:
    machine = DrivenMachine()
    machine.accept(declare_namespace())
    for number, (vcpu, schedulable, zone) in enumerate(hosts):
        machine.with_host(f"h{number}", vcpu=vcpu)
        machine.accept(
            declare_host(f"h{number}", labels={"zone": zone} if zone is not None else {}, schedulable=schedulable)
        )
    machine.accept(declare_policy(preferred_host_labels={"zone": preferred} if preferred is not None else {}))
    labels = {"zone": required} if required is not None else {}
    vm = machine.pending(vcpu=2, placement=Placement(policy="spread", required_host_labels=labels))
    found = shortlist(machine, vm)
    offered = [name for width in [*widths, len(hosts)] for name in found.take(width)]
    offered += found.take(1)
    assert sorted([*offered, *(bid.host for bid in found.refused)]) == sorted(machine.state.hosts)
    reasons = {name: refusal(machine.state, vm, host) for name, host in machine.state.hosts.items()}
    assert sorted(offered) == sorted(name for name, reason in reasons.items() if reason is None)
    assert {bid.host: bid.refused for bid in found.refused} == {k: v for k, v in reasons.items() if v is not None}
