"""What groups may declare, whose their members are, and that a step does what it says or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from support.builders import declare_group, declare_microvm, microvm_spec
from support.driven import DrivenMachine

from controlplane.machine.outcome import Code
from controlplane.model.commands import Delete, Hold, HoldKind, NewMember, Stall, StepGroup
from controlplane.model.groups import GROUP_LABEL, GroupSpread, MicroVMGroup, Rollout, member_spec
from controlplane.model.resources import MicroVMPhase
from controlplane.model.spec import (
    HostFailure,
    Interface,
    OnDetach,
    Placement,
    PowerState,
    Recovery,
    Spread,
    StaticAddress,
)
from controlplane.model.types import Kind


def step(machine: DrivenMachine, **changes: Any) -> StepGroup:
    generation = group(machine).meta.generation
    return StepGroup(namespace="demo", name="web", uid="group-web", generation=generation, **changes)


def group(machine: DrivenMachine) -> MicroVMGroup:
    found = machine.state.microvm_group("demo", "web")
    assert found is not None
    return found


@pytest.fixture
def machine() -> DrivenMachine:
    """With a group of one member, `web-1`, ready on `h1`."""
    machine = DrivenMachine().with_host()
    machine.accept(declare_group(replicas=1, labels={"tier": "front"}))
    machine.accept(step(machine, add=[NewMember(name="web-1", uid="member-1")]), actor="groups")
    return machine


MISTAKES = [
    ({"rollout": Rollout(max_surge=0, max_unavailable=0)}, "/spec/rollout/max_unavailable"),
    ({"replicas": 1001}, "/spec/replicas"),
    ({"template": microvm_spec(power_state=PowerState.STOPPED)}, "/spec/template/power_state"),
    ({"template": microvm_spec(placement=Placement(host="h1"))}, "/spec/template/placement/host"),
    ({"template": microvm_spec(placement=Placement(spread=Spread())), "spread": GroupSpread()}, "/spec/spread"),
    (
        {"template": microvm_spec(interfaces={"eth0": Interface(guest_mac="02:00:00:00:00:01")})},
        "/spec/template/interfaces/eth0/guest_mac",
    ),
    (
        {"template": microvm_spec(interfaces={"eth0": Interface(address=StaticAddress(address="10.0.0.2/24"))})},
        "/spec/template/interfaces/eth0/address",
    ),
    ({"template": microvm_spec(vcpu=0)}, "/spec/template/vcpu"),
    (
        {
            "template": microvm_spec(
                recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE, on_detach=OnDetach.KEEP)
            )
        },
        "/spec/template/recovery/on_detach",
    ),
    ({"labels": {GROUP_LABEL: "other"}}, "/labels/flintlock.dev~1group"),
    ({"name": "w" * 58}, "/name"),
]


@pytest.mark.parametrize(("changes", "pointer"), MISTAKES, ids=[pointer for _, pointer in MISTAKES])
def test_a_mistake_is_refused_at_its_field(machine: DrivenMachine, changes: dict[str, Any], pointer: str) -> None:
    machine.refuse(declare_group(**changes), Code.INVALID, pointer)


def test_it_needs_its_namespace_and_the_policies_that_it_names(machine: DrivenMachine) -> None:
    DrivenMachine().refuse(declare_group(), Code.NAMESPACE_NOT_FOUND, "/namespace")
    template = microvm_spec(placement=Placement(policy="apart"))
    machine.refuse(declare_group(template=template), Code.POLICY_NOT_FOUND, "/spec/template/placement/policy")


def test_a_member_is_declared_by_its_group_alone_and_a_stranger_by_none(machine: DrivenMachine) -> None:
    refused = machine.refuse(declare_microvm("web-1"), Code.OWNED_BY_GROUP, "/name")
    assert refused.message == "microVM demo/web-1 is a member of group web, which declares it: change the group"
    machine.accept(declare_microvm("web-2"))
    machine.accept(step(machine, add=[NewMember(name="web-2", uid="member-2")], renew=[machine.vm("web-2").meta.uid]))
    assert machine.vm("web-2").group is None
    machine.accept(step(machine, end=[machine.vm("web-2").meta.uid]))
    assert machine.vm("web-2").phase is MicroVMPhase.PENDING


def test_members_are_spread_among_themselves(machine: DrivenMachine) -> None:
    machine.accept(declare_group(replicas=1, spread=GroupSpread(by="zone", max_per=2)))
    machine.accept(step(machine, renew=["member-1"]))
    assert machine.vm("web-1").spec == member_spec(group(machine))
    assert machine.vm("web-1").spec.placement.spread == Spread(by="zone", max_per=2, match_labels={GROUP_LABEL: "web"})


def test_a_step_that_was_decided_for_something_else_is_refused(machine: DrivenMachine) -> None:
    late = step(machine, end=["member-1"])
    machine.accept(declare_group(replicas=2))
    machine.refuse(late, Code.STALE)
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web-1"))
    machine.accept(Delete(kind=Kind.MICROVM_GROUP, namespace="demo", name="web"))
    machine.refuse(late, Code.STALE)


def test_a_repeated_step_changes_nothing(machine: DrivenMachine) -> None:
    again = step(machine, add=[NewMember(name="web-1", uid="member-1")], end=["nobody"], renew=["member-1"])
    before = machine.state
    machine.accept(again)
    assert machine.state is before


def test_a_member_that_is_held_is_not_ended(machine: DrivenMachine) -> None:
    machine.accept(Hold(kind=HoldKind.MICROVM, namespace="demo", name="web-1", reason="evidence"))
    machine.accept(step(machine, end=["member-1"]))
    assert machine.vm("web-1").phase is not MicroVMPhase.DELETING


def test_how_long_it_has_been_stopped_is_kept_while_its_words_change(machine: DrivenMachine) -> None:
    machine.accept(step(machine, stall=Stall(reason="ReadyDeadlineExceeded", message="1 member")))
    first = group(machine).stopped
    machine.accept(step(machine, stall=Stall(reason="ReadyDeadlineExceeded", message="2 members")))
    second = group(machine).stopped
    assert first is not None
    assert second is not None
    assert (second.since, second.message) == (first.since, "2 members")
    machine.accept(step(machine))
    assert group(machine).stopped is None


def test_a_group_without_members_goes_at_once_and_survives_a_snapshot_with_them(machine: DrivenMachine) -> None:
    assert list(machine.restarted().state.members_of("group-web")) == [machine.vm("web-1")]
    machine.accept(declare_group("empty", replicas=0))
    machine.accept(Delete(kind=Kind.MICROVM_GROUP, namespace="demo", name="empty"))
    assert machine.state.microvm_group("demo", "empty") is None
