"""Operations: the record of work that a command started and that ends when a host confirms."""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.lifecycle import OPERATION, OperationEvent
from controlplane.model.resources import MicroVM, Operation, OperationKind, OperationPhase, Target
from controlplane.model.types import Kind, replace


def begin(draft: Draft, vm: MicroVM, kind: OperationKind, *, reason: str = "") -> MicroVM:
    """`vm` with a new running operation; an older one on it that still runs is superseded."""
    finish(draft, vm.operation, OperationEvent.SUPERSEDED, f"superseded by {kind.value}")
    id_ = f"op-{draft.revision:012d}-{len(draft.events):03d}"
    draft.put_operation(
        Operation(
            id=id_,
            kind=kind,
            target=Target(kind=Kind.MICROVM, namespace=vm.meta.namespace, name=vm.meta.name, uid=vm.meta.uid),
            phase=OperationPhase.RUNNING,
            generation=vm.meta.generation,
            started_at=draft.at,
            actor=draft.actor,
            reason=reason,
        )
    )
    return replace(vm, operation=id_)


def finish(draft: Draft, operation_id: str | None, event: OperationEvent, message: str) -> None:
    """End a running operation; one that has ended, or is forgotten, stays as it is."""
    operation = draft.state.operations.get(operation_id) if operation_id is not None else None
    if operation is None or (operation.phase, event) not in OPERATION:
        return
    phase = OPERATION[operation.phase, event]
    assert phase is not None
    draft.put_operation(
        replace(operation, phase=phase, finished_at=draft.at, finished_revision=draft.revision, message=message)
    )


def describe(draft: Draft, operation_id: str | None, message: str) -> None:
    """Say what a running operation waits for."""
    operation = draft.state.operations.get(operation_id) if operation_id is not None else None
    if operation is not None and operation.phase is OperationPhase.RUNNING and operation.message != message:
        draft.put_operation(replace(operation, message=message))
