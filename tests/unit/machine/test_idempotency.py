"""Idempotency keys: a repetition answers the first outcome and does nothing."""

from __future__ import annotations

import pytest
from support.builders import (
    agent_connected,
    declare_host,
    declare_microvm,
    declare_namespace,
    declare_policy,
    destroyed,
)
from support.driven import DrivenMachine

from controlplane.machine import draft
from controlplane.machine.draft import KEY_LIFETIME_MS
from controlplane.machine.outcome import Applied, Change, Code
from controlplane.model.commands import Act, Action, Command, Delete, Precondition
from controlplane.model.types import Kind, replace

ONLY_NEW = Precondition(create_only=True)


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host()


@pytest.mark.parametrize(
    "command",
    [
        declare_namespace("other", when=ONLY_NEW),
        declare_policy("other", when=ONLY_NEW),
        declare_host("other", when=ONLY_NEW),
        declare_microvm("other", when=ONLY_NEW),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_create_repeated_answers_the_object_of_the_first(machine: DrivenMachine, command: Command) -> None:
    first = machine.accept(command, key="k")
    before = machine.state
    again = machine.accept(replace(command, uid="made up again"), key="k")
    assert (again.uid, again.kind, again.operation) == (first.uid, first.kind, first.operation)
    assert again.change is Change.UNCHANGED
    assert machine.state is before


def test_a_verb_repeated_is_carried_out_once(machine: DrivenMachine) -> None:
    machine.active()
    repair = Act(namespace="demo", name="web", action=Action.REPAIR)
    first = machine.accept(repair, key="k")
    again = machine.accept(repair, key="k")
    assert (again.operation, machine.vm().repair_seq) == (first.operation, 1)
    machine.accept(repair, key="another")
    machine.accept(repair)
    assert machine.vm().repair_seq == 3


def test_a_deletion_repeated_is_answered(machine: DrivenMachine) -> None:
    machine.accept(declare_policy())
    gone = Delete(kind=Kind.PLACEMENT_POLICY, name="spread")
    first = machine.accept(gone, key="k")
    again = machine.accept(gone, key="k")
    assert (again.uid, again.change) == (first.uid, Change.UNCHANGED)
    machine.refuse(gone, Code.NOT_FOUND, "/name")


def test_a_key_is_for_one_request(machine: DrivenMachine) -> None:
    first = machine.accept(declare_microvm(), key="k")
    for other in (declare_microvm(vcpu=2), declare_microvm("b"), Delete(kind=Kind.NAMESPACE, name="demo")):
        refused = machine.refuse(other, Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k")
        assert refused.uid == first.uid


def test_keys_belong_to_their_actor(machine: DrivenMachine) -> None:
    machine.accept(declare_microvm("a"), key="k", actor="alice")
    machine.accept(declare_microvm("b"), key="k", actor="bob")
    machine.refuse(declare_microvm("b"), Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k", actor="alice")


def test_a_refusal_is_not_remembered(machine: DrivenMachine) -> None:
    machine.refuse(declare_microvm(namespace="later"), Code.NAMESPACE_NOT_FOUND, "/namespace", key="k")
    machine.accept(declare_namespace("later"))
    assert machine.accept(declare_microvm(namespace="later"), key="k").change is Change.CREATED


def test_what_changed_nothing_is_remembered(machine: DrivenMachine) -> None:
    machine.accept(declare_microvm())
    assert machine.accept(declare_microvm(), key="k").change is Change.UNCHANGED
    machine.refuse(declare_microvm(vcpu=2), Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k")


def test_a_key_is_forgotten_after_its_lifetime(machine: DrivenMachine) -> None:
    machine.accept(declare_microvm(), key="k")
    began = machine.at
    machine.do(declare_microvm(vcpu=2), key="k", at=began + KEY_LIFETIME_MS)
    assert machine.vm().spec.vcpu == 1
    assert machine.accept(declare_microvm(vcpu=2), key="k", at=began + KEY_LIFETIME_MS + 1).change is Change.CHANGED


def test_expired_keys_leave_the_state(machine: DrivenMachine) -> None:
    machine.accept(declare_microvm("a"), key="old")
    machine.accept(declare_microvm("b"), key="new", at=machine.at + KEY_LIFETIME_MS + 1)
    assert sorted(machine.state.keys) == ["alice\nnew"]


def test_a_key_does_not_bring_back_what_is_gone(machine: DrivenMachine) -> None:
    vm = machine.active()
    machine.accept(declare_microvm(), key="k")
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    machine.accept(destroyed(vm))
    made = machine.accept(declare_microvm(uid="second"), key="k")
    assert (made.change, made.uid) == (Change.CREATED, "second")
    assert machine.accept(declare_microvm(uid="third"), key="k").uid == "second"


def test_the_number_of_keys_is_bounded(machine: DrivenMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "KEPT_KEYS", 3)
    for number in range(5):
        machine.accept(declare_microvm(f"vm-{number}"), key=f"k{number}")
    assert sorted(machine.state.keys) == ["alice\nk2", "alice\nk3", "alice\nk4"]


def test_a_node_that_loaded_a_snapshot_forgets_the_same_keys(
    machine: DrivenMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of forgetting is not the order of the revisions once a key was used again."""
    monkeypatch.setattr(draft, "KEPT_KEYS", 2)
    machine.accept(declare_microvm("a", uid="a1"), key="ka")
    machine.accept(declare_microvm("b"), key="kb")
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="a"))
    machine.accept(declare_microvm("a", uid="a2"), key="ka")
    other = machine.restarted()
    for node in (machine, other):
        node.accept(declare_microvm("c"), key="kc")
    assert sorted(machine.state.keys) == sorted(other.state.keys)
    assert machine.state.digest == other.state.digest


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_repeated_answers_the_objects_of_the_first(machine: DrivenMachine) -> None:
    commands = [
        declare_microvm("a", when=ONLY_NEW),
        declare_microvm("b", when=ONLY_NEW),
        Delete(kind=Kind.HOST, name="h1"),
    ]
    first = machine.batch(*commands, key="k")
    again = machine.batch(*commands, key="k")
    assert isinstance(first, Applied)
    assert isinstance(again, Applied)
    assert again.change is Change.UNCHANGED
    assert [(part.uid, part.operation) for part in again.parts] == [(part.uid, part.operation) for part in first.parts]
    refused = machine.batch(commands[0], key="k")
    assert refused.code is Code.IDEMPOTENCY_KEY_REUSED


def test_an_agent_may_use_keys_too(machine: DrivenMachine) -> None:
    machine.accept(agent_connected("h2"), key="k")
    machine.accept(agent_connected("h3"), key="k")
