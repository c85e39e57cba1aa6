"""Commands by which users change intent: declare and act."""

from __future__ import annotations

import dataclasses

from controlplane.machine.convergence import amount_of
from controlplane.machine.draft import Draft
from controlplane.machine.evacuation import evacuation_refusal, in_mode
from controlplane.machine.lifecycle import HOST, MICROVM, HostEvent, MicroVMEvent
from controlplane.machine.operations import begin
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.placement_rules import capacity_refusal
from controlplane.machine.policy_rules import policy_refusal, reference_refusal
from controlplane.machine.recovery_rules import fencing_refusal, most_permissive, recovery_refusal
from controlplane.machine.refusals import (
    amount_refusal,
    conflict,
    declaration_refusal,
    missing,
    quota_refusal,
    replacement_refusal,
)
from controlplane.machine.secrets import sealed_values
from controlplane.model.commands import (
    POWER_OF_ACTION,
    Act,
    Action,
    Declaration,
    DeclareHost,
    DeclareMicroVM,
    DeclareNamespace,
    DeclarePolicy,
)
from controlplane.model.groups import GROUP_LABEL, MicroVMGroup
from controlplane.model.policies import KIND_DECLARED, POLICIES
from controlplane.model.resources import (
    Amount,
    Host,
    Meta,
    MicroVM,
    MicroVMPhase,
    Namespace,
    OperationKind,
    Policy,
)
from controlplane.model.spec import HostSpec, MicroVMSpec, OnDetach, detach_action
from controlplane.model.types import Kind, replace

Result = Applied | Rejected


def declare_namespace(draft: Draft, command: DeclareNamespace) -> Result:
    old = draft.state.namespaces.get(command.name)
    if (refused := declaration_refusal(command, old.meta if old is not None else None)) is not None:
        return refused
    meta = meta_of(draft, command, Kind.NAMESPACE, old, spec_changed=old is not None and old.spec != command.spec)
    used = draft.state.usage.get(command.name, Amount())
    for quota, limit, now in (
        ("max_microvms", command.spec.max_microvms, used.microvms),
        ("max_vcpu", command.spec.max_vcpu, used.vcpu),
        ("max_memory_in_mb", command.spec.max_memory_in_mb, used.memory_in_mb),
    ):
        if limit is not None and now > limit:
            return Rejected(
                code=Code.QUOTA_EXCEEDED,
                message=f"{now} is already in use, more than {limit}",
                pointer=f"/spec/{quota}",
            )
    draft.put_namespace(Namespace(meta=meta, spec=command.spec))
    return declared(draft, Kind.NAMESPACE, meta, created=old is None)


def declare_policy(draft: Draft, command: DeclarePolicy) -> Result:
    kind = KIND_DECLARED[type(command)]
    old = draft.state.policies_of(kind).get(command.name)
    if (
        refused := declaration_refusal(command, old.meta if old is not None else None)
        or policy_refusal(draft.state, command)
    ) is not None:
        return refused
    meta = meta_of(draft, command, kind, old, spec_changed=old is not None and old.spec != command.spec)
    draft.put_policy(POLICIES[kind].record(meta=meta, spec=command.spec))
    return declared(draft, kind, meta, created=old is None)


def declare_host(draft: Draft, command: DeclareHost) -> Result:
    old = draft.state.hosts.get(command.name)
    known = old if old is not None and old.declared else None
    if (refused := declaration_refusal(command, known.meta if known is not None else None)) is not None:
        return refused
    if (refused := evacuation_refusal(command.spec)) is not None:
        return refused
    phase = HOST[old.phase if old is not None else None, HostEvent.DECLARED]
    assert phase is not None
    # A host that only its agent made known is created by its declaration: another uid, generation 1.
    meta = meta_of(draft, command, Kind.HOST, known, spec_changed=known is not None and known.spec != command.spec)
    if old is None:
        host = Host(meta=meta, declared=True, spec=HostSpec(), phase=phase, since=draft.at)
    else:
        since = old.since if old.phase is phase else draft.at
        host = replace(old, meta=meta, declared=True, phase=phase, since=since)
    draft.put_host(in_mode(draft, host, command.spec))
    return declared(draft, Kind.HOST, meta, created=known is None)


def declare_microvm(draft: Draft, command: DeclareMicroVM, *, group: MicroVMGroup | None = None) -> Result:
    """`group`: the one that declares it as its member, which nobody else may."""
    namespace = draft.state.namespaces.get(command.namespace)
    if namespace is None:
        return Rejected(
            code=Code.NAMESPACE_NOT_FOUND,
            message=f"namespace {command.namespace} does not exist",
            pointer="/namespace",
        )
    old = draft.state.microvm(command.namespace, command.name)
    if (
        refused := declaration_refusal(command, old.meta if old is not None else None)
        or amount_refusal(command.spec)
        or recovery_refusal(command.spec)
    ) is not None:
        return refused
    if old is not None and old.group != (group.meta.uid if group is not None else None):
        return _owned(old)
    if old is not None and old.phase is MicroVMPhase.DELETING:
        return Rejected(
            code=Code.BEING_DELETED,
            message=f"microVM {command.namespace}/{command.name} is being deleted",
            pointer="/name",
            uid=old.meta.uid,
        )
    if (refused := reference_refusal(draft.state, command.spec)) is not None:
        return refused
    if old is not None and (refused := replacement_refusal(old.spec, command.spec)) is not None:
        return refused
    before = amount_of(old.spec) if old is not None else Amount()
    if (refused := quota_refusal(draft, namespace, amount_of(command.spec) - before)) is not None:
        return refused
    sealed = sealed_values(draft.state, command, old)
    if isinstance(sealed, Rejected):
        return sealed
    command = replace(command, sealed=sealed)
    if old is None:
        return _create_microvm(draft, command, group)
    return _update_microvm(draft, command, old)


def _owned(vm: MicroVM) -> Rejected:
    name = f"{vm.meta.namespace}/{vm.meta.name}"
    if vm.group is None:
        message = f"microVM {name} belongs to no group"
    else:
        owner = vm.meta.labels[GROUP_LABEL]
        message = f"microVM {name} is a member of group {owner}, which declares it: change the group"
    return Rejected(code=Code.OWNED_BY_GROUP, message=message, pointer="/name", uid=vm.meta.uid)


def _create_microvm(draft: Draft, command: DeclareMicroVM, group: MicroVMGroup | None) -> Result:
    if command.uid in draft.state.microvms:
        return Rejected(code=Code.INVALID, message=f"uid {command.uid} is taken", pointer="/uid", uid=command.uid)
    meta = meta_of(draft, command, Kind.MICROVM, None, spec_changed=False, namespace=command.namespace)
    owner = group.meta.uid if group is not None else None
    vm = MicroVM(
        meta=meta,
        spec=command.spec,
        sealed=command.sealed,
        phase=MicroVMPhase.PENDING,
        since=draft.at,
        group=owner,
    )
    vm = begin(draft, vm, OperationKind.CREATE)
    draft.put_microvm(vm)
    return declared(draft, Kind.MICROVM, meta, created=True, operation=vm.operation)


def _update_microvm(draft: Draft, command: DeclareMicroVM, old: MicroVM) -> Result:
    spec_changed = old.spec != command.spec
    meta = meta_of(draft, command, Kind.MICROVM, old, spec_changed=spec_changed, namespace=command.namespace)
    vm = replace(old, meta=meta, sealed=command.sealed)
    if spec_changed:
        changed = change_spec(draft, vm, command.spec)
        if isinstance(changed, Rejected):
            return changed
        vm = begin(draft, changed, OperationKind.UPDATE)
    draft.put_microvm(vm)
    return declared(draft, Kind.MICROVM, meta, created=False, operation=vm.operation if spec_changed else None)


def change_spec(draft: Draft, vm: MicroVM, spec: MicroVMSpec) -> MicroVM | Rejected:
    """`vm` with another spec: verified against what its host can do, and tried again if it had failed."""
    phase = MICROVM[vm.phase, MicroVMEvent.REDECLARED]
    assert phase is not None
    held, detach = vm.held, vm.detach
    if vm.placement is not None:
        # Until the host confirms, the old size may still be running: hold the larger of both.
        wanted = amount_of(spec)
        held = Amount(
            microvms=1, vcpu=max(held.vcpu, wanted.vcpu), memory_in_mb=max(held.memory_in_mb, wanted.memory_in_mb)
        )
        # Likewise of what happens when its lease ends: until then, either may.
        detach = most_permissive(detach, detach_action(spec))
        host = draft.state.hosts.get(vm.placement.host)
        kept = detach_action(vm.spec) is OnDetach.KEEP
        if host is not None and kept and (reason := fencing_refusal(spec, host)) is not None:
            return Rejected(
                code=Code.CONSTRAINT_VIOLATED,
                message=f"host {host.meta.name} cannot hold the change: {reason}",
                pointer="/spec/recovery",
                uid=vm.meta.uid,
            )
        for field, more in (
            ("vcpu", Amount(vcpu=held.vcpu - vm.held.vcpu)),
            ("memory_in_mb", Amount(memory_in_mb=held.memory_in_mb - vm.held.memory_in_mb)),
        ):
            if host is not None and (reason := capacity_refusal(host, more)) is not None:
                return Rejected(
                    code=Code.INSUFFICIENT_CAPACITY,
                    message=f"host {host.meta.name} cannot hold the change: it {reason}",
                    pointer=f"/spec/{field}",
                    uid=vm.meta.uid,
                )
    since = vm.since if phase is vm.phase else draft.at
    return replace(vm, spec=spec, phase=phase, since=since, held=held, detach=detach, unplaced=None)


def act(draft: Draft, command: Act) -> Result:
    vm = draft.state.microvm(command.namespace, command.name)
    if vm is None:
        return missing(Kind.MICROVM, f"{command.namespace}/{command.name}")
    if vm.phase is MicroVMPhase.DELETING:
        return Rejected(
            code=Code.BEING_DELETED,
            message=f"microVM {command.namespace}/{command.name} is being deleted",
            pointer="/name",
            uid=vm.meta.uid,
        )
    if command.revision is not None and command.revision != vm.meta.intent_revision:
        return conflict(vm.meta, command.revision)
    if command.action is Action.REPAIR:
        vm = begin(draft, replace(vm, repair_seq=vm.repair_seq + 1), OperationKind.REPAIR)
    elif command.action is Action.RESTART:
        vm = begin(draft, replace(vm, restart_seq=vm.restart_seq + 1), OperationKind.RESTART)
    else:
        spec = dataclasses.replace(vm.spec, power_state=POWER_OF_ACTION[command.action])
        if spec == vm.spec:
            return Applied(revision=draft.state.revision, change=Change.UNCHANGED, kind=Kind.MICROVM, uid=vm.meta.uid)
        meta = replace(vm.meta, generation=vm.meta.generation + 1, intent_revision=draft.revision, updated_at=draft.at)
        changed = change_spec(draft, replace(vm, meta=meta), spec)
        if isinstance(changed, Rejected):
            return changed
        vm = begin(draft, changed, OperationKind.UPDATE)
    draft.put_microvm(vm)
    return Applied(
        revision=draft.revision, change=Change.CHANGED, kind=Kind.MICROVM, uid=vm.meta.uid, operation=vm.operation
    )


# -- shared ------------------------------------------------------------------------------------------------------------


def meta_of(
    draft: Draft,
    command: Declaration,
    kind: Kind,
    old: Namespace | Policy | Host | MicroVM | MicroVMGroup | None,
    *,
    spec_changed: bool,
    namespace: str | None = None,
) -> Meta:
    """The declared object's metadata; unchanged if the declaration says nothing new."""
    if old is None:
        return Meta(
            kind=kind,
            namespace=namespace,
            name=command.name,
            uid=command.uid,
            labels=command.labels,
            annotations=command.annotations,
            intent_revision=draft.revision,
            revision=draft.revision,
            created_at=draft.at,
            updated_at=draft.at,
        )
    meta = old.meta
    relabelled = meta.labels != command.labels or meta.annotations != command.annotations
    if not spec_changed and not relabelled:
        return meta
    return replace(
        meta,
        labels=command.labels,
        annotations=command.annotations,
        generation=meta.generation + int(spec_changed),
        intent_revision=draft.revision,
        updated_at=draft.at,
    )


def declared(draft: Draft, kind: Kind, meta: Meta, *, created: bool, operation: str | None = None) -> Applied:
    change = Change.CREATED if created else Change.CHANGED if draft.changed else Change.UNCHANGED
    revision = draft.revision if draft.changed else draft.state.revision
    return Applied(revision=revision, change=change, kind=kind, uid=meta.uid, operation=operation)
