"""Verbs on a microVM."""

from __future__ import annotations

import pytest
from support.driven import DrivenMachine

from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import POWER_OF_ACTION, Act, Action, Delete
from controlplane.model.resources import OperationKind, OperationPhase
from controlplane.model.spec import PowerState
from controlplane.model.types import Kind


def act(action: Action, *, revision: int | None = None) -> Act:
    return Act(namespace="demo", name="web", action=action, revision=revision)


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


@pytest.mark.parametrize("action", Action)
def test_what_verbs_are_refused_for(machine: DrivenMachine, action: Action) -> None:
    machine.refuse(act(action), Code.NOT_FOUND, "/name")
    vm = machine.active()
    machine.refuse(act(action, revision=99), Code.REVISION_CONFLICT, "/header/if-match")
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    refused = machine.refuse(act(action), Code.BEING_DELETED, "/name")
    assert refused.uid == vm.meta.uid


@pytest.mark.parametrize("action", sorted(POWER_OF_ACTION))
def test_power_verbs_change_the_intent(machine: DrivenMachine, action: Action) -> None:
    wanted = POWER_OF_ACTION[action]
    other = PowerState.STOPPED if wanted is PowerState.RUNNING else PowerState.RUNNING
    vm = machine.active(power_state=other)
    changed = machine.accept(act(action, revision=vm.meta.intent_revision))
    now = machine.vm()
    assert (changed.change, changed.operation) == (Change.CHANGED, now.operation)
    assert (now.spec.power_state, now.meta.generation) == (wanted, 2)
    assert now.meta.intent_revision == changed.revision
    assert machine.operation().kind is OperationKind.UPDATE
    machine.confirm(now)
    assert machine.operation().phase is OperationPhase.SUCCEEDED
    again = machine.accept(act(action))
    assert (again.change, again.operation) == (Change.UNCHANGED, None)


@pytest.mark.parametrize(
    ("action", "kind", "field"),
    [
        (Action.REPAIR, OperationKind.REPAIR, "repair_seq"),
        (Action.RESTART, OperationKind.RESTART, "restart_seq"),
    ],
)
def test_requests_are_counted_and_end_when_the_host_has_carried_them_out(
    machine: DrivenMachine, action: Action, kind: OperationKind, field: str
) -> None:
    vm = machine.active()
    for asked in (1, 2):
        machine.accept(act(action))
        now = machine.vm()
        assert (getattr(now, field), now.meta.generation) == (asked, vm.meta.generation)
        assert now.meta.intent_revision == vm.meta.intent_revision, "the intent is the same"
        assert (machine.operation().kind, machine.operation().phase) == (kind, OperationPhase.RUNNING)
    machine.confirm(machine.vm(), **{field: 1})
    assert machine.operation().phase is OperationPhase.RUNNING
    machine.confirm(machine.vm())
    assert machine.operation().phase is OperationPhase.SUCCEEDED
