"""Operations: begun by a command, superseded by a newer one, settled by a host, forgotten in order."""

from __future__ import annotations

import pytest
from support.builders import declare_microvm, observation, report
from support.driven import DrivenMachine

from controlplane.machine import draft
from controlplane.model.commands import Act, Action, Delete
from controlplane.model.resources import OperationKind, OperationPhase
from controlplane.model.types import Kind

REPAIR = Act(namespace="demo", name="web", action=Action.REPAIR)


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host(vcpu=100, memory_in_mb=100_000)


def test_a_newer_operation_supersedes_one_that_runs(machine: DrivenMachine) -> None:
    machine.placed()
    create = machine.operation()
    machine.accept(REPAIR)
    old = machine.state.operations[create.id]
    assert (old.phase, old.finished_at, old.message) == (OperationPhase.CANCELLED, machine.at, "superseded by repair")
    assert (machine.operation().kind, machine.operation().phase) == (OperationKind.REPAIR, OperationPhase.RUNNING)


def test_what_has_ended_is_not_superseded(machine: DrivenMachine) -> None:
    machine.active()
    create = machine.operation()
    machine.accept(REPAIR)
    assert machine.state.operations[create.id] == create
    assert create.phase is OperationPhase.SUCCEEDED
    assert create.finished_revision is not None


def test_an_operation_names_its_target_for_ever(machine: DrivenMachine) -> None:
    vm = machine.pending()
    gone = machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    assert gone.operation is not None
    target = machine.state.operations[gone.operation].target
    assert (target.kind, target.namespace, target.name, target.uid) == (Kind.MICROVM, "demo", "web", vm.meta.uid)


def test_operations_of_one_batch_have_their_own_ids(machine: DrivenMachine) -> None:
    done = machine.batch(declare_microvm("a"), declare_microvm("b"), declare_microvm("a", vcpu=2))
    ids = [part.operation for part in done.parts]
    assert len(set(ids)) == 3
    assert machine.vm("a").operation == ids[2]


def test_the_oldest_ended_operations_are_forgotten_and_running_ones_never(
    machine: DrivenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "KEPT_OPERATIONS", 2)
    running = machine.placed("runs").operation
    ended = [machine.active(f"vm-{number}").operation for number in range(4)]
    assert sorted(machine.state.operations) == sorted([running, *ended[2:]])
    # What is forgotten can be neither ended nor described any more.
    machine.confirm(machine.vm("vm-0"), power="stopped")
    machine.accept(Act(namespace="demo", name="vm-0", action=Action.REPAIR))
    assert machine.operation("vm-0").kind is OperationKind.REPAIR


def test_a_node_that_loaded_a_snapshot_forgets_the_same_operations(
    machine: DrivenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One report can end several operations, in another order than that of their ids."""
    monkeypatch.setattr(draft, "KEPT_OPERATIONS", 2)
    vms = [machine.placed(name) for name in ("a", "b")]
    machine.accept(report(*(observation(vm) for vm in reversed(vms))))
    other = machine.restarted()
    for node in (machine, other):
        node.active("c")
    assert sorted(machine.state.operations) == sorted(other.state.operations)
    assert machine.state.digest == other.state.digest
