"""Secrets in the machine: what is stored of a declaration, what a rotation changes, and which keys may go."""

from __future__ import annotations

import pytest
from support.builders import declare_microvm, declare_namespace
from support.driven import DrivenMachine

from controlplane.machine.outcome import Change, Code
from controlplane.machine.secrets import MAX_DATA_KEYS, active_key
from controlplane.model.commands import AddDataKey, DeclareMicroVM, DropDataKey, Reseal, Resealed
from controlplane.model.credentials import Sealed
from controlplane.model.secrets import SealedValue
from controlplane.model.types import replace

ONE, OTHER = (f"hmac-sha256:{digit * 64}" for digit in "12")
KEY = Sealed(key_id="ring", wrapped="AQID", box="BAUG")


def add(id: str, replaces: str | None = None) -> AddDataKey:
    return AddDataKey(id=id, key=KEY, replaces=replaces)


def declare(digest: str | None = ONE, box: str | None = "first", key_id: str = "k1", **spec: object) -> DeclareMicroVM:
    sealed = {"user-data": SealedValue(key_id=key_id, box=box)} if box is not None else {}
    command = declare_microvm(sensitive_metadata={"user-data": digest} if digest is not None else {}, **spec)
    return replace(command, sealed=sealed)


def resealed(digest: str = ONE, key_id: str = "k2", uid: str = "vm-web") -> Reseal:
    value = Resealed(digest=digest, sealed=SealedValue(key_id=key_id, box="again"))
    return Reseal(values={uid: {"user-data": value}})


@pytest.fixture
def machine() -> DrivenMachine:
    machine = DrivenMachine()
    machine.accept(declare_namespace())
    machine.accept(add("k1"))
    machine.accept(declare())
    return machine


def box(machine: DrivenMachine) -> str:
    return machine.vm().sealed["user-data"].box


def test_the_same_value_again_changes_nothing(machine: DrivenMachine) -> None:
    for again in (declare(box="sealed with another nonce"), declare(box=None)):
        assert machine.accept(again).change is Change.UNCHANGED
    assert (box(machine), machine.vm().meta.generation) == ("first", 1)


def test_another_value_is_another_generation(machine: DrivenMachine) -> None:
    assert machine.accept(declare(OTHER, "second")).change is Change.CHANGED
    assert (box(machine), machine.vm().meta.generation) == ("second", 2)
    machine.accept(declare(None, None))
    assert machine.vm().sealed == {}


def test_a_change_of_something_else_keeps_the_secret(machine: DrivenMachine) -> None:
    machine.accept(declare(box=None, vcpu=2))
    assert (box(machine), machine.vm().spec.vcpu) == ("first", 2)


@pytest.mark.parametrize(
    ("command", "code", "pointer"),
    [
        (declare(OTHER, None), Code.INVALID, "/spec/sensitive_metadata/user-data"),
        (declare(None), Code.INVALID, "/spec/sensitive_metadata/user-data"),
        (declare(metadata={"user-data": "in the open"}), Code.INVALID, "/spec/sensitive_metadata/user-data"),
        (declare(OTHER, "second", key_id="gone"), Code.STALE, None),
        (add("k2", replaces="k0"), Code.STALE, None),
        (add("k2"), Code.STALE, None),
        (DropDataKey(id="k1"), Code.STALE, None),
        (resealed(key_id="k0"), Code.STALE, None),
    ],
)
def test_what_cannot_be_is_refused(machine: DrivenMachine, command: object, code: Code, pointer: str | None) -> None:
    machine.refuse(command, code, pointer)  # type: ignore[arg-type]


def test_a_key_goes_when_nothing_needs_it(machine: DrivenMachine) -> None:
    machine.accept(add("k2", replaces="k1"))
    assert active_key(machine.state) == machine.state.data_keys["k2"]
    machine.refuse(DropDataKey(id="k1"), Code.STALE)
    before = machine.vm()
    machine.accept(resealed())
    assert (machine.vm().spec, machine.vm().meta.generation) == (before.spec, before.meta.generation)
    machine.accept(DropDataKey(id="k1"))
    assert machine.state.data_keys.keys() == {"k2"}
    for twice in (resealed(), DropDataKey(id="k1"), add("k2", replaces="k1")):
        assert machine.accept(twice).change is Change.UNCHANGED


def test_a_value_that_changed_meanwhile_is_not_sealed_over(machine: DrivenMachine) -> None:
    machine.accept(add("k2", replaces="k1"))
    machine.accept(declare(OTHER, "second", key_id="k2"))
    assert machine.accept(resealed(ONE)).change is Change.UNCHANGED
    assert box(machine) == "second"
    assert machine.accept(resealed(uid="vm-of-nobody")).change is Change.UNCHANGED


def test_rotations_without_end_are_refused(machine: DrivenMachine) -> None:
    for number in range(2, MAX_DATA_KEYS + 1):
        machine.accept(add(f"k{number}", replaces=f"k{number - 1}"))
    machine.refuse(add("k9", replaces=f"k{MAX_DATA_KEYS}"), Code.CONSTRAINT_VIOLATED)


def test_a_request_is_the_same_however_it_was_sealed(machine: DrivenMachine) -> None:
    first = machine.accept(replace(declare(), name="keyed", uid="vm-keyed"), key="k")
    again = machine.accept(replace(declare(box="another nonce"), name="keyed", uid="vm-again"), key="k")
    assert again.uid == first.uid
    other = replace(declare(OTHER, "second"), name="keyed")
    machine.refuse(other, Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k")
