"""Declarations: what is accepted, what each refusal says, and what an update does to the one that is there."""

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
from controlplane.machine.refusals import Declaration
from controlplane.model.commands import AddDataKey, Command, Delete, Precondition
from controlplane.model.credentials import Sealed
from controlplane.model.resources import Amount, HostPhase, Meta, MicroVMPhase, OperationKind, OperationPhase
from controlplane.model.secrets import SealedValue
from controlplane.model.spec import (
    MICROVM_FIELD_EFFECTS,
    DriftPolicy,
    Effect,
    HostFailure,
    Initrd,
    Interface,
    Kernel,
    MicroVMSpec,
    Placement,
    PowerState,
    Recovery,
    Volume,
)
from controlplane.model.types import Kind, replace


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine()


def meta_of(machine: DrivenMachine, kind: Kind) -> Meta:
    match kind:
        case Kind.NAMESPACE:
            return machine.state.namespaces["demo"].meta
        case Kind.PLACEMENT_POLICY:
            return machine.state.policies["spread"].meta
        case Kind.HOST:
            return machine.host().meta
        case _:
            return machine.vm().meta


EVERY_DECLARATION = [
    pytest.param(declare_namespace("demo"), Kind.NAMESPACE, id="namespace"),
    pytest.param(declare_policy("spread"), Kind.PLACEMENT_POLICY, id="policy"),
    pytest.param(declare_host("h1"), Kind.HOST, id="host"),
    pytest.param(declare_microvm("web"), Kind.MICROVM, id="microvm"),
]


@pytest.mark.parametrize(("command", "kind"), EVERY_DECLARATION)
def test_declaring_creates_and_declaring_again_changes_nothing(
    machine: DrivenMachine, command: Command, kind: Kind
) -> None:
    if kind is Kind.MICROVM:
        machine.accept(declare_namespace())
    created = machine.accept(command)
    assert (created.change, created.kind) == (Change.CREATED, kind)
    before = machine.state
    again = machine.accept(command)
    assert (again.change, again.uid, again.revision) == (Change.UNCHANGED, created.uid, created.revision)
    assert machine.state is before


@pytest.mark.parametrize(("command", "kind"), EVERY_DECLARATION)
def test_preconditions(machine: DrivenMachine, command: Declaration, kind: Kind) -> None:
    if kind is Kind.MICROVM:
        machine.accept(declare_namespace())
    machine.refuse(replace(command, when=Precondition(revision=1)), Code.REVISION_CONFLICT, "/header/if-match")
    created = machine.accept(replace(command, when=Precondition(create_only=True)))
    refused = machine.refuse(replace(command, when=Precondition(create_only=True)), Code.ALREADY_EXISTS, "/name")
    assert refused.uid == created.uid
    refused = machine.refuse(
        replace(command, when=Precondition(revision=99)), Code.REVISION_CONFLICT, "/header/if-match"
    )
    assert refused.uid == created.uid
    assert str(created.revision) in refused.message
    machine.accept(replace(command, when=Precondition(revision=created.revision)))


@pytest.mark.parametrize(("command", "kind"), EVERY_DECLARATION)
def test_new_labels_raise_the_revision_and_not_the_generation(
    machine: DrivenMachine, command: Declaration, kind: Kind
) -> None:
    if kind is Kind.MICROVM:
        machine.accept(declare_namespace())
    machine.accept(command)
    changed = machine.accept(replace(command, labels={"tier": "front"}))
    assert changed.change is Change.CHANGED
    meta = meta_of(machine, kind)
    assert (meta.labels, meta.generation, meta.intent_revision) == ({"tier": "front"}, 1, changed.revision)
    machine.refuse(replace(command, when=Precondition(revision=1)), Code.REVISION_CONFLICT, "/header/if-match")


@pytest.mark.parametrize("name", ["", "A", "a/b", "a" * 64, "-a", "web\n", "a.b"])
@pytest.mark.parametrize(("command", "kind"), EVERY_DECLARATION)
def test_a_name_that_no_edge_would_let_through_is_refused(
    machine: DrivenMachine, command: Declaration, kind: Kind, name: str
) -> None:
    machine.accept(declare_namespace("here"))
    if kind is Kind.MICROVM:
        command = replace(command, namespace="here")
    machine.refuse(replace(command, name=name), Code.INVALID, "/name")


# -- namespaces and their quotas ---------------------------------------------------------------------------------------

QUOTAS = [
    ("max_microvms", 2, "/name"),
    ("max_vcpu", 4, "/spec/vcpu"),
    ("max_memory_in_mb", 512, "/spec/memory_in_mb"),
]


@pytest.mark.parametrize(("quota", "limit", "pointer"), QUOTAS)
def test_quota_is_kept(machine: DrivenMachine, quota: str, limit: int, pointer: str) -> None:
    machine.accept(declare_namespace(**{quota: limit}))
    machine.accept(declare_microvm("a", vcpu=2, memory_in_mb=256))
    machine.accept(declare_microvm("b", vcpu=2, memory_in_mb=256))
    machine.refuse(declare_microvm("c"), Code.QUOTA_EXCEEDED, pointer)
    machine.refuse(declare_namespace(**{quota: limit - 1}), Code.QUOTA_EXCEEDED, f"/spec/{quota}")
    machine.accept(declare_namespace(**{quota: limit + 1000}))
    machine.accept(declare_microvm("c"))


@pytest.mark.parametrize(
    ("spec", "pointer"), [({"vcpu": 3}, "/spec/vcpu"), ({"memory_in_mb": 512}, "/spec/memory_in_mb")]
)
def test_quota_holds_for_growth(machine: DrivenMachine, spec: dict[str, int], pointer: str) -> None:
    machine.accept(declare_namespace(max_vcpu=2, max_memory_in_mb=256))
    machine.accept(declare_microvm("a", vcpu=2, memory_in_mb=256))
    machine.refuse(declare_microvm("a", **{"vcpu": 2, "memory_in_mb": 256, **spec}), Code.QUOTA_EXCEEDED, pointer)
    machine.accept(declare_microvm("a", vcpu=1, memory_in_mb=128))
    machine.accept(declare_microvm("b", vcpu=1, memory_in_mb=128))


def test_quota_counts_a_tombstone_until_it_is_confirmed(machine: DrivenMachine) -> None:
    machine.with_host().accept(declare_namespace(max_microvms=1))
    machine.active()
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    machine.refuse(declare_microvm("other"), Code.QUOTA_EXCEEDED, "/name")
    machine.accept(destroyed(machine.vm()))
    machine.accept(declare_microvm("other"))


# -- hosts -------------------------------------------------------------------------------------------------------------


def test_a_host_is_expected_until_its_agent_connects(machine: DrivenMachine) -> None:
    machine.accept(declare_host())
    assert machine.host().phase is HostPhase.EXPECTED
    machine.accept(agent_connected())
    assert machine.host().phase is HostPhase.READY


def test_declaring_a_host_whose_agent_is_connected_creates_it(machine: DrivenMachine) -> None:
    machine.accept(agent_connected())
    assert (machine.host().phase, machine.host().declared) == (HostPhase.PENDING, False)
    command = replace(declare_host(schedulable=False), uid="declared-uid")
    created = machine.accept(replace(command, when=Precondition(create_only=True)))
    host = machine.host()
    assert (created.change, created.uid) == (Change.CREATED, "declared-uid")
    assert (host.phase, host.declared, host.spec.schedulable) == (HostPhase.READY, True, False)
    assert (host.meta.uid, host.meta.generation, host.meta.created_at) == ("declared-uid", 1, machine.at)
    assert host.session is not None


def test_a_host_declared_again_after_its_deletion_is_another_host(machine: DrivenMachine) -> None:
    machine.with_host()
    first = machine.host().meta
    machine.accept(Delete(kind=Kind.HOST, name="h1"))
    machine.accept(replace(declare_host(), uid="second"))
    assert machine.host().meta.uid == "second" != first.uid


def test_cordoning_keeps_the_phase(machine: DrivenMachine) -> None:
    machine.with_host()
    since = machine.host().since
    changed = machine.accept(declare_host(schedulable=False))
    host = machine.host()
    assert changed.change is Change.CHANGED
    assert (host.phase, host.since, host.meta.generation) == (HostPhase.READY, since, 2)


# -- microVMs ----------------------------------------------------------------------------------------------------------


def test_a_new_microvm_waits_for_a_host_with_a_running_operation(machine: DrivenMachine) -> None:
    machine.accept(declare_namespace())
    created = machine.accept(declare_microvm())
    vm = machine.vm()
    assert (vm.phase, vm.epoch, vm.held, vm.meta.generation) == (MicroVMPhase.PENDING, 0, Amount(), 1)
    assert created.operation == vm.operation
    assert (machine.operation().kind, machine.operation().phase) == (OperationKind.CREATE, OperationPhase.RUNNING)
    assert machine.operation().actor == "alice"


def test_what_a_new_microvm_is_refused_for(machine: DrivenMachine) -> None:
    machine.refuse(declare_microvm(), Code.NAMESPACE_NOT_FOUND, "/namespace")
    machine.accept(declare_namespace())
    machine.refuse(
        declare_microvm(placement=Placement(policy="nowhere")), Code.POLICY_NOT_FOUND, "/spec/placement/policy"
    )
    machine.accept(declare_microvm(uid="u1"))
    refused = machine.refuse(declare_microvm("other", uid="u1"), Code.INVALID, "/uid")
    assert refused.uid == "u1"


@pytest.mark.parametrize("amount", [0, -1, -(2**63), 2**50, 2**64 - 1])
@pytest.mark.parametrize("field", ["vcpu", "memory_in_mb"])
def test_amounts_that_no_edge_would_let_through_are_refused(machine: DrivenMachine, field: str, amount: int) -> None:
    machine.accept(declare_namespace())
    machine.refuse(declare_microvm(**{field: amount}), Code.INVALID, f"/spec/{field}")


CHANGES: list[tuple[str, object]] = [
    ("vcpu", 2),
    ("memory_in_mb", 256),
    ("kernel", Kernel(image="demo/kernel:6.2")),
    ("initrd", Initrd(image="demo/initrd:1")),
    ("root_volume", Volume(container_source="demo/root:1")),
    ("additional_volumes", {"data": Volume(size_in_mb=10)}),
    ("interfaces", {"eth1": Interface()}),
    ("metadata", {"user-data": "x"}),
    ("sensitive_metadata", {"user-data": "hmac-sha256:" + "5e" * 32}),
    ("provider", "qemu"),
    ("power_state", PowerState.STOPPED),
    ("drift_policy", DriftPolicy.REPORT),
    ("placement", Placement(host="h1")),
    ("recovery", Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)),
]


def test_the_table_of_changes_is_complete() -> None:
    assert [name for name, _ in CHANGES] == list(MicroVMSpec.__dataclass_fields__) == list(MICROVM_FIELD_EFFECTS)


@pytest.mark.parametrize(("field", "value"), CHANGES)
def test_every_field_changes_as_its_effect_says(machine: DrivenMachine, field: str, value: object) -> None:
    machine.with_host()
    old = machine.active()
    machine.accept(AddDataKey(id="k1", key=Sealed(key_id="k", wrapped="w", box="b"), replaces=None))
    sealed = {"user-data": SealedValue(key_id="k1", box="b")} if field == "sensitive_metadata" else {}
    command = replace(declare_microvm(**{field: value}), sealed=sealed)
    if MICROVM_FIELD_EFFECTS[field] is Effect.REPLACE:
        machine.refuse(command, Code.REQUIRES_REPLACEMENT, f"/spec/{field}")
        return
    changed = machine.accept(command)
    vm = machine.vm()
    assert (changed.change, changed.uid, changed.operation) == (Change.CHANGED, old.meta.uid, vm.operation)
    assert (getattr(vm.spec, field), vm.meta.generation, vm.epoch) == (value, 2, old.epoch)
    assert (machine.operation().kind, machine.operation().phase) == (OperationKind.UPDATE, OperationPhase.RUNNING)
    machine.confirm(vm)
    assert machine.operation().phase is OperationPhase.SUCCEEDED


def test_labels_start_no_operation(machine: DrivenMachine) -> None:
    machine.with_host()
    old = machine.active()
    changed = machine.accept(declare_microvm(labels={"tier": "front"}))
    assert changed.operation is None
    assert machine.vm().operation == old.operation


def test_a_failed_microvm_is_tried_again_with_another_spec(machine: DrivenMachine) -> None:
    machine.with_host()
    vm = machine.placed()
    machine.accept(report(observation(vm, failure=failure(), power="absent", generation=None)))
    assert machine.vm().phase is MicroVMPhase.FAILED
    machine.accept(declare_microvm(kernel=Kernel(image="demo/kernel:6.2")))
    assert machine.vm().phase is MicroVMPhase.PLACED


def test_nothing_is_declared_over_a_tombstone(machine: DrivenMachine) -> None:
    machine.with_host()
    vm = machine.active()
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    refused = machine.refuse(declare_microvm(), Code.BEING_DELETED, "/name")
    assert refused.uid == vm.meta.uid
