"""Records to documents. Pure: a snapshot and a record in, a document out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from controlplane.api.http import (
    cluster_shapes,
    found_views,
    group_shapes,
    host_shapes,
    host_views,
    policy_shapes,
    shape,
    shapes,
)
from controlplane.api.http.times import iso
from controlplane.decide.breaker import Breaker, FailoverLimits
from controlplane.decide.conditions import (
    Condition,
    Truth,
    conditions,
    host_conditions,
    ready_for_reprovisioning,
    waits_for_lease,
)
from controlplane.decide.drift import DriftField, classify
from controlplane.decide.failover import failover
from controlplane.decide.group_progress import group_conditions, progress
from controlplane.machine.convergence import current_observation
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.state import State
from controlplane.model.groups import MicroVMGroup, MicroVMGroupSpec
from controlplane.model.resources import (
    Amount,
    Bid,
    FailoverPolicy,
    GCPolicy,
    Host,
    Meta,
    MicroVM,
    Namespace,
    Operation,
    Override,
    PlacementPolicy,
    Policy,
    Role,
    RoleBinding,
)
from controlplane.model.spec import (
    FailoverPolicySpec,
    GCPolicySpec,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
)

Record = MicroVM | MicroVMGroup | Host | Namespace | Policy


class _Common(TypedDict):
    name: str
    uid: str
    labels: dict[str, str]
    annotations: dict[str, str]
    generation: int
    revision: int
    status_revision: int
    created_at: str
    updated_at: str
    deletion_requested_at: str | None


def _common(meta: Meta) -> _Common:
    return {
        "name": meta.name,
        "uid": meta.uid,
        "labels": meta.labels,
        "annotations": meta.annotations,
        "generation": meta.generation,
        "revision": meta.intent_revision,
        "status_revision": meta.revision,
        "created_at": iso(meta.created_at),
        "updated_at": iso(meta.updated_at),
        "deletion_requested_at": iso(meta.deletion_requested_at),
    }


class _MicroVM(_Common):
    namespace: str
    spec: MicroVMSpec
    status: shapes.MicroVMStatus


class _MicroVMGroup(_Common):
    namespace: str
    spec: MicroVMGroupSpec
    status: group_shapes.MicroVMGroupStatus


class _Host(_Common):
    declared: bool
    spec: HostSpec | None
    status: host_shapes.HostStatus


class _Namespace(_Common):
    spec: NamespaceSpec
    status: policy_shapes.NamespaceStatus


class _PlacementPolicy(_Common):
    spec: PlacementPolicySpec
    status: policy_shapes.PolicyStatus


class _FailoverPolicy(_Common):
    spec: FailoverPolicySpec
    status: policy_shapes.PolicyStatus


class _GCPolicy(_Common):
    spec: GCPolicySpec
    status: policy_shapes.GCPolicyStatus


def resource(state: State, record: Record) -> shapes.AnyResource:
    match record:
        case MicroVM():
            return microvm(state, record)
        case MicroVMGroup():
            return microvm_group(state, record)
        case Host():
            return host(state, record)
        case Namespace():
            return namespace(state, record)
        case PlacementPolicy():
            return placement_policy(state, record)
        case FailoverPolicy():
            return failover_policy(state, record)
        case GCPolicy():
            return gc_policy(state, record)
        case Role():
            return role(state, record)
        case RoleBinding():
            return role_binding(state, record)


def declared(state: State, record: Record, *, warnings: list[str], changed: bool) -> shapes.AnyDeclared:
    """The answer to a declaration."""
    match record:
        case MicroVM():
            return shapes.DeclaredMicroVM(**_microvm(state, record), warnings=warnings, changed=changed)
        case MicroVMGroup():
            return shapes.DeclaredMicroVMGroup(**_microvm_group(state, record), warnings=warnings, changed=changed)
        case Host():
            return shapes.DeclaredHost(**_host(state, record), warnings=warnings, changed=changed)
        case Namespace():
            return shapes.DeclaredNamespace(**_namespace(state, record), warnings=warnings, changed=changed)
        case PlacementPolicy():
            return shapes.DeclaredPlacementPolicy(
                **_placement_policy(state, record), warnings=warnings, changed=changed
            )
        case FailoverPolicy():
            return shapes.DeclaredFailoverPolicy(**_failover_policy(state, record), warnings=warnings, changed=changed)
        case GCPolicy():
            return shapes.DeclaredGCPolicy(**_gc_policy(record), warnings=warnings, changed=changed)
        case Role():
            return shapes.DeclaredRole(**_common(record.meta), spec=record.spec, warnings=warnings, changed=changed)
        case RoleBinding():
            return shapes.DeclaredRoleBinding(
                **_common(record.meta), spec=record.spec, warnings=warnings, changed=changed
            )


def microvm(state: State, vm: MicroVM) -> shapes.MicroVMResource:
    return shapes.MicroVMResource(**_microvm(state, vm))


def _microvm(state: State, vm: MicroVM) -> _MicroVM:
    return {
        **_common(vm.meta),
        "namespace": str(vm.meta.namespace),
        "spec": vm.spec,
        "status": microvm_status(state, vm),
    }


def microvm_status(state: State, vm: MicroVM) -> shapes.MicroVMStatus:
    seen = current_observation(vm)
    drift = classify(state, vm)
    return shapes.MicroVMStatus(
        phase=vm.phase,
        observed_generation=seen.generation if seen is not None else None,
        host=vm.placement.host if vm.placement is not None else None,
        epoch=vm.epoch,
        power_state=seen.power if seen is not None else None,
        ready=seen is not None and seen.ready,
        simulated=seen is not None and seen.simulated,
        driver=seen.driver if seen is not None else None,
        observed_at=iso(seen.at) if seen is not None else None,
        details=seen.details if seen is not None else {},
        interfaces={
            name: shapes.InterfaceShape(host_device=facts.host_device, mac_address=facts.mac_address)
            for name, facts in sorted(seen.interfaces.items())
        }
        if seen is not None
        else {},
        operation=vm.operation,
        on_detach=vm.detach if vm.placement is not None else None,
        resurrection=_resurrection(vm),
        deletion=found_views.deletion(vm.deletion),
        hold=found_views.hold(vm.hold),
        move=None if vm.move is None else shapes.MoveShape(host=vm.move.host, epoch=vm.move.epoch, at=iso(vm.move.at)),
        stays=vm.stay.reason if vm.stay is not None else None,
        conditions=_conditions(conditions(state, vm)),
        drift=shapes.DriftShape(class_=drift.klass, fields=drift_fields(drift.fields)),
    )


def microvm_group(state: State, group: MicroVMGroup) -> group_shapes.MicroVMGroupResource:
    return group_shapes.MicroVMGroupResource(**_microvm_group(state, group))


def _microvm_group(state: State, group: MicroVMGroup) -> _MicroVMGroup:
    at = progress(state, group)
    return {
        **_common(group.meta),
        "namespace": str(group.meta.namespace),
        "spec": group.spec,
        "status": group_shapes.MicroVMGroupStatus(
            phase="active" if group.deletion is None else "deleting",
            replicas=at.replicas,
            updated=at.updated,
            ready=at.ready,
            unavailable=at.unavailable,
            ending=at.ending,
            drifted=at.drifted,
            complete=at.complete,
            deletion=found_views.deletion(group.deletion),
            conditions=_conditions(group_conditions(group, at)),
        ),
    }


def host_phase(record: Host) -> host_shapes.HostPhaseName:
    return "deleting" if record.meta.deletion_requested_at is not None else record.phase.value


def host(state: State, record: Host) -> host_shapes.HostResource:
    return host_shapes.HostResource(**_host(state, record))


def _host(state: State, record: Host) -> _Host:
    inventory = record.inventory
    drivers = [facts.name for facts in inventory.drivers] if inventory is not None else []
    capacity = inventory.capacity if inventory is not None else None
    return {
        **_common(record.meta),
        "declared": record.declared,
        "spec": record.spec if record.declared else None,
        "status": host_shapes.HostStatus(
            phase=host_phase(record),
            availability=availability(record),
            evacuation=host_views.evacuation(state, record),
            ready_for_reprovisioning=ready_for_reprovisioning(state, record).status is Truth.TRUE,
            left_behind=found_views.left_behind(record),
            connected_to=record.node if record.session is not None else None,
            last_seen_at=iso(record.last_seen_at),
            reason=record.reason,
            confirmed_by=record.confirmed_by,
            lease_ttl_s=record.lease_ttl_ms / 1000 if record.lease_ttl_ms else None,
            stale=[
                host_shapes.StaleShape(uid=uid, epoch=epoch, deletion=found_views.deletion(record.orders.get(uid)))
                for uid, epoch in sorted(record.stale.items())
            ],
            driver=drivers[0] if drivers else None,
            drivers=drivers,
            fences=inventory is not None and any(facts.fences for facts in inventory.drivers[:1]),
            simulated=inventory is not None and any(facts.simulated for facts in inventory.drivers[:1]),
            agent_version=inventory.agent_version if inventory is not None else None,
            boot_id=inventory.boot_id if inventory is not None else None,
            capacity=None
            if capacity is None
            else host_shapes.CapacityShape(
                vcpu=capacity.vcpu, memory_in_mb=capacity.memory_in_mb, microvms=capacity.microvms
            ),
            allocated=_amount(record.allocated),
            unmanaged=found_views.unmanaged(record),
            hold=found_views.hold(record.hold),
            conditions=_conditions(host_conditions(state, record)),
        ),
    }


def namespace(state: State, record: Namespace) -> policy_shapes.NamespaceResource:
    return policy_shapes.NamespaceResource(**_namespace(state, record))


def _namespace(state: State, record: Namespace) -> _Namespace:
    deleting = record.meta.deletion_requested_at is not None
    used = state.usage.get(record.meta.name, Amount())
    return {
        **_common(record.meta),
        "spec": record.spec,
        "status": policy_shapes.NamespaceStatus(phase="deleting" if deleting else "active", used=_amount(used)),
    }


def placement_policy(state: State, record: PlacementPolicy) -> policy_shapes.PlacementPolicyResource:
    return policy_shapes.PlacementPolicyResource(**_placement_policy(state, record))


def _placement_policy(state: State, record: PlacementPolicy) -> _PlacementPolicy:
    return {**_common(record.meta), "spec": record.spec, "status": _policy_status(state, record.meta)}


def failover_policy(state: State, record: FailoverPolicy) -> policy_shapes.FailoverPolicyResource:
    return policy_shapes.FailoverPolicyResource(**_failover_policy(state, record))


def _failover_policy(state: State, record: FailoverPolicy) -> _FailoverPolicy:
    return {**_common(record.meta), "spec": record.spec, "status": _policy_status(state, record.meta)}


def gc_policy(_state: State, record: GCPolicy) -> policy_shapes.GCPolicyResource:
    return policy_shapes.GCPolicyResource(**_gc_policy(record))


def _gc_policy(record: GCPolicy) -> _GCPolicy:
    phase = "active" if record.meta.deletion_requested_at is None else "deleting"
    return {**_common(record.meta), "spec": record.spec, "status": policy_shapes.GCPolicyStatus(phase=phase)}


def role(_state: State, record: Role) -> policy_shapes.RoleResource:
    return policy_shapes.RoleResource(**_common(record.meta), spec=record.spec)


def role_binding(_state: State, record: RoleBinding) -> policy_shapes.RoleBindingResource:
    return policy_shapes.RoleBindingResource(**_common(record.meta), spec=record.spec)


def _policy_status(state: State, meta: Meta) -> policy_shapes.PolicyStatus:
    phase = "deleting" if meta.deletion_requested_at is not None else "active"
    return policy_shapes.PolicyStatus(phase=phase, used_by=state.policy_users.get((meta.kind, meta.name), 0))


def operation(record: Operation) -> shapes.OperationShape:
    target = record.target
    return shapes.OperationShape(
        id=record.id,
        kind=record.kind,
        target=shapes.TargetShape(kind=target.kind, namespace=target.namespace, name=target.name, uid=target.uid),
        phase=record.phase,
        generation=record.generation,
        started_at=iso(record.started_at),
        finished_at=iso(record.finished_at),
        message=record.message,
        actor=record.actor,
        reason=record.reason,
    )


def bids(found: Iterable[Bid]) -> list[shapes.BidShape]:
    return [shapes.BidShape(host=bid.host, score=bid.score, parts=bid.parts, refused=bid.refused) for bid in found]


def why(state: State, vm: MicroVM, limits: FailoverLimits, now_ms: int) -> shapes.Why:
    decision, unplaced = vm.placement, vm.unplaced
    return shapes.Why(
        microvm=shapes.MicroVMRef(namespace=str(vm.meta.namespace), name=vm.meta.name, uid=vm.meta.uid, phase=vm.phase),
        decision=None
        if decision is None
        else shapes.DecisionShape(
            host=decision.host,
            epoch=decision.epoch,
            at=iso(decision.at),
            score=decision.score,
            bids=bids(decision.bids),
        ),
        unplaced=None
        if unplaced is None
        else shapes.UnplacedShape(
            reason=unplaced.reason,
            message=unplaced.message,
            since=iso(unplaced.since),
            bids=bids(unplaced.bids),
        ),
        resurrection=_resurrection(vm),
        held=failover(state, term=0, limits=limits, now_ms=now_ms).held.get(vm.meta.uid, ""),
        waits=waits_for_lease(state, vm),
    )


def _resurrection(vm: MicroVM) -> shapes.ResurrectionShape | None:
    last = vm.resurrection
    if last is None:
        return None
    return shapes.ResurrectionShape(host=last.host, epoch=last.epoch, at=iso(last.at), reason=last.reason)


def failover_shape(found: Breaker) -> cluster_shapes.FailoverShape:
    return cluster_shapes.FailoverShape(
        breaker_open=found.stops,
        lost=found.lost,
        of=found.of,
        message=found.message,
        override=override_shape(found.override),
    )


def override_shape(found: Override | None) -> cluster_shapes.OverrideShape | None:
    if found is None:
        return None
    return cluster_shapes.OverrideShape(
        actor=found.actor, at=iso(found.at), until=iso(found.until), reason=found.reason
    )


def drift_fields(fields: Iterable[DriftField]) -> list[shapes.DriftFieldShape]:
    return [
        shapes.DriftFieldShape(
            pointer=each.pointer,
            desired=each.desired,
            observed=each.observed,
            since=iso(each.since_ms),
            cause=each.cause,
        )
        for each in fields
    ]


def _conditions(found: Iterable[Condition]) -> list[shape.ConditionShape]:
    return [
        shape.ConditionShape(
            type=each.type,
            status=each.status,
            reason=each.reason,
            message=each.message,
            since=iso(each.since_ms),
        )
        for each in found
    ]


def _amount(amount: Amount) -> host_shapes.AllocatedShape:
    return host_shapes.AllocatedShape(vcpu=amount.vcpu, memory_in_mb=amount.memory_in_mb, microvms=amount.microvms)
