"""Deletion: what ends at once, what becomes a tombstone, and that only the right confirmation ends a tombstone."""

from __future__ import annotations

import pytest
from support.builders import (
    agent_connected,
    declare_host,
    declare_microvm,
    declare_namespace,
    declare_policy,
    destroyed,
    failure,
    observation,
    report,
)
from support.driven import DrivenMachine

from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import AgentLost, Delete, Destroyed
from controlplane.model.resources import Amount, HostPhase, MicroVMPhase, OperationKind, OperationPhase
from controlplane.model.spec import Placement
from controlplane.model.types import Kind, replace

VM = Delete(kind=Kind.MICROVM, namespace="demo", name="web")
HOST = Delete(kind=Kind.HOST, name="h1")
NAMESPACE = Delete(kind=Kind.NAMESPACE, name="demo")
POLICY = Delete(kind=Kind.PLACEMENT_POLICY, name="spread")


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


@pytest.mark.parametrize(
    "command",
    [
        replace(VM, name="x"),
        replace(VM, namespace=None),
        replace(VM, namespace="x"),
        replace(HOST, name="x"),
        replace(NAMESPACE, name="x"),
        POLICY,
    ],
)
def test_what_is_not_there_is_not_found(machine: DrivenMachine, command: Delete) -> None:
    machine.refuse(command, Code.NOT_FOUND, "/name")


def test_an_undeclared_host_is_not_there_for_users(machine: DrivenMachine) -> None:
    machine.accept(agent_connected("h2"))
    machine.refuse(replace(HOST, name="h2"), Code.NOT_FOUND, "/name")


def test_operations_are_not_deleted(machine: DrivenMachine) -> None:
    machine.refuse(Delete(kind=Kind.OPERATION, name="op-1"), Code.INVALID, "/kind")


@pytest.mark.parametrize("command", [VM, HOST, NAMESPACE, POLICY])
def test_the_revision_is_compared(machine: DrivenMachine, command: Delete) -> None:
    machine.accept(declare_policy())
    machine.pending()
    machine.refuse(replace(command, revision=99), Code.REVISION_CONFLICT, "/header/if-match")


def test_a_namespace_with_microvms_stays(machine: DrivenMachine) -> None:
    machine.pending()
    machine.refuse(NAMESPACE, Code.NAMESPACE_NOT_EMPTY, "/name")
    machine.accept(VM)
    assert machine.accept(NAMESPACE).change is Change.DELETED
    assert "demo" not in machine.state.namespaces


def test_a_policy_in_use_stays(machine: DrivenMachine) -> None:
    machine.accept(declare_policy())
    machine.pending(placement=Placement(policy="spread"))
    machine.refuse(POLICY, Code.POLICY_IN_USE, "/name")
    machine.accept(declare_microvm())
    assert machine.accept(POLICY).change is Change.DELETED
    assert "spread" not in machine.state.policies


def test_a_host_that_holds_something_stays(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.refuse(HOST, Code.HOST_IN_USE, "/name")
    machine.accept(VM)
    machine.refuse(HOST, Code.HOST_IN_USE, "/name")
    machine.accept(destroyed(vm))
    assert machine.accept(HOST).change is Change.DELETED


def test_a_refusal_names_what_is_in_the_way(machine: DrivenMachine) -> None:
    machine.placed("web-1")
    refusal = machine.refuse(HOST, Code.HOST_IN_USE, "/name")
    assert refusal.message == "host h1 still holds 1 microVM: demo/web-1"
    for number in (2, 3, 4):
        machine.placed(f"web-{number}")
    refusal = machine.refuse(HOST, Code.HOST_IN_USE, "/name")
    assert refusal.message == "host h1 still holds 4 microVMs: demo/web-1, demo/web-2, demo/web-3, ..."
    assert machine.refuse(NAMESPACE, Code.NAMESPACE_NOT_EMPTY, "/name").message == "namespace demo still has 4 microVMs"


def test_a_host_whose_agent_is_connected_falls_back_to_undeclared(machine: DrivenMachine) -> None:
    machine.accept(declare_host(labels={"zone": "a"}, schedulable=False))
    machine.accept(HOST)
    host = machine.host()
    assert (host.phase, host.declared, host.spec.schedulable, host.meta.labels) == (HostPhase.PENDING, False, True, {})
    machine.accept(AgentLost(host="h1", session="session-h1", reason="silent"))
    assert "h1" not in machine.state.hosts


@pytest.mark.parametrize("was_ready", [False, True])
def test_a_silent_host_is_gone_at_once(machine: DrivenMachine, *, was_ready: bool) -> None:
    machine.accept(declare_host("h2"))
    if was_ready:
        machine.accept(agent_connected("h2"))
        machine.accept(AgentLost(host="h2", session="session-h2", reason="silent"))
    machine.accept(replace(HOST, name="h2"))
    assert "h2" not in machine.state.hosts


# -- tombstones --------------------------------------------------------------------------------------------------------


def test_what_was_never_placed_is_gone_at_once(machine: DrivenMachine) -> None:
    uid = machine.pending().meta.uid
    create = machine.operation().id
    gone = machine.accept(VM)
    assert (gone.change, gone.uid, uid in machine.state.microvms) == (Change.DELETED, uid, False)
    assert gone.operation is not None
    ended = machine.state.operations[gone.operation]
    assert (ended.kind, ended.phase) == (OperationKind.DELETE, OperationPhase.SUCCEEDED)
    assert machine.state.operations[create].phase is OperationPhase.CANCELLED


@pytest.mark.parametrize("phase", [MicroVMPhase.PLACED, MicroVMPhase.ACTIVE, MicroVMPhase.FAILED])
def test_what_may_exist_becomes_a_tombstone_that_keeps_its_room(machine: DrivenMachine, phase: MicroVMPhase) -> None:
    vm = machine.placed(vcpu=2)
    if phase is MicroVMPhase.ACTIVE:
        machine.confirm(vm)
    elif phase is MicroVMPhase.FAILED:
        machine.confirm(vm, failure=failure(), generation=None, power="absent")
    assert machine.vm().phase is phase
    asked = machine.accept(VM)
    tombstone = machine.vm()
    assert (asked.change, asked.uid, asked.operation) == (Change.CHANGED, vm.meta.uid, tombstone.operation)
    assert (tombstone.phase, tombstone.epoch) == (MicroVMPhase.DELETING, vm.epoch)
    assert tombstone.meta.deletion_requested_at == machine.at
    assert machine.host().allocated == Amount(microvms=1, vcpu=2, memory_in_mb=128)
    machine.accept(destroyed(vm))
    assert machine.host().allocated == Amount()
    assert machine.state.operations[asked.operation or ""].phase is OperationPhase.SUCCEEDED
    machine.accept(declare_microvm(uid="another"))


def test_deleting_twice_is_deleting_once(machine: DrivenMachine) -> None:
    machine.active()
    first = machine.accept(VM)
    again = machine.accept(VM)
    assert (again.change, again.uid, again.operation) == (Change.UNCHANGED, first.uid, first.operation)


def test_only_the_right_confirmation_ends_a_tombstone(machine: DrivenMachine) -> None:
    machine.with_host("h2")
    vm = machine.active()
    machine.accept(destroyed(vm))
    assert machine.vm().phase is MicroVMPhase.ACTIVE, "without a tombstone, a confirmation says nothing"
    machine.accept(VM)
    gone = Destroyed(uid=vm.meta.uid, epoch=vm.epoch)
    for wrong in (
        destroyed(vm, epoch=vm.epoch + 1),
        destroyed(vm, epoch=vm.epoch - 1),
        report(host="h2", destroyed=[gone]),
        report(destroyed=[Destroyed(uid="another", epoch=vm.epoch)]),
    ):
        machine.accept(wrong)
        assert machine.vm().phase is MicroVMPhase.DELETING
    machine.refuse(report(session="an older one", destroyed=[gone]), Code.STALE)
    machine.accept(report(destroyed=[gone]))
    assert machine.state.microvm("demo", "web") is None


@pytest.mark.parametrize("failed", [False, True])
def test_a_tombstone_stays_one_whatever_is_seen(machine: DrivenMachine, *, failed: bool) -> None:
    vm = machine.active()
    machine.accept(VM)
    seen = observation(vm, power="stopped", failure=failure() if failed else None)
    machine.accept(report(seen))
    assert (machine.vm().phase, machine.vm().drifted_since) == (MicroVMPhase.DELETING, None)
    assert machine.operation().phase is OperationPhase.RUNNING
    machine.accept(declare_namespace(max_vcpu=50))
