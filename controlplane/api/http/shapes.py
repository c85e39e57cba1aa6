"""The documents that API v2 answers with, as pydantic models: one definition for the answers and for OpenAPI.

Specs are the dataclasses of `model.spec` themselves, so what is read back has exactly the shape of what was declared.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from controlplane.api.http.problems import Problem
from controlplane.api.http.times import Timestamp
from controlplane.decide.conditions import Truth
from controlplane.decide.drift import DriftClass
from controlplane.decide.emptying import Stand
from controlplane.machine.outcome import Change
from controlplane.model.access import RoleBindingSpec, RoleSpec
from controlplane.model.gc import Trigger
from controlplane.model.resources import Availability, MicroVMPhase, ObservedPower, OperationKind, OperationPhase
from controlplane.model.spec import (
    Effect,
    FailoverPolicySpec,
    GCPolicySpec,
    HostMode,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    OnDetach,
    PlacementPolicySpec,
)
from controlplane.model.types import Kind
from controlplane.ports import PlanVerb


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class Resource(Shape):
    """What every declared resource has."""

    name: str
    uid: str = Field(description="ULID; never reused.")
    labels: dict[str, str]
    annotations: dict[str, str]
    generation: int = Field(description="Raised by every change of the spec.")
    revision: int = Field(
        description="State revision of the last change of the intent (spec, labels, annotations): the ETag, and what"
        " `If-Match` compares. A changed status does not raise it."
    )
    status_revision: int = Field(description="State revision of the last change of this object by whatever cause.")
    created_at: Timestamp
    updated_at: Timestamp = Field(description="Last change of the intent.")
    deletion_requested_at: Timestamp | None


class ConditionShape(Shape):
    type: str
    status: Truth
    reason: str = Field(description="CamelCase, for machines.")
    message: str
    since: Timestamp | None


class DeletionShape(Shape):
    """The order that ends something."""

    actor: str
    at: Timestamp
    reason: str
    trigger: Trigger | None = Field(description="Why the garbage collector gave it; null where somebody asked for it.")


class HoldShape(Shape):
    """Somebody's word that it is to stay: it is neither collected nor deleted until it is released."""

    actor: str
    at: Timestamp
    reason: str


# -- microVMs ----------------------------------------------------------------------------------------------------------


class InterfaceShape(Shape):
    host_device: str
    mac_address: str


class DriftFieldShape(Shape):
    pointer: str
    desired: str | int | None
    observed: str | int | None
    since: Timestamp | None
    cause: str | None


class DriftShape(Shape):
    class_: DriftClass = Field(serialization_alias="class")
    fields: list[DriftFieldShape]


class ResurrectionShape(Shape):
    host: str = Field(description="The host that was lost.")
    epoch: int = Field(description="Of the copy that was given up there.")
    at: Timestamp
    reason: str


class MoveShape(Shape):
    host: str = Field(description="The host that it left.")
    epoch: int = Field(description="Of the copy that was ended there.")
    at: Timestamp


class MicroVMStatus(Shape):
    phase: MicroVMPhase
    observed_generation: int | None = Field(description="Generation that the host has put into effect.")
    host: str | None
    epoch: int = Field(description="Counts placements; 0 before the first.")
    power_state: ObservedPower | None = Field(description="As last observed; null when no host has reported.")
    ready: bool = Field(description="The guest said so since its last start.")
    simulated: bool
    driver: str | None
    observed_at: Timestamp | None
    details: dict[str, str]
    interfaces: dict[str, InterfaceShape]
    operation: str | None = Field(description="The last operation on it.")
    on_detach: OnDetach | None = Field(
        description="What its host may do with it when its lease ends: the intent, or what it had to do before while"
        " the host has not confirmed the intent; null without a host."
    )
    resurrection: ResurrectionShape | None = Field(description="The last time that its host was lost for good.")
    deletion: DeletionShape | None = Field(description="Who asked for its end, and why.")
    hold: HoldShape | None
    move: MoveShape | None = Field(description="The last time that it left a host which was to be emptied.")
    stays: str | None = Field(description="Why it stays on a host that is to be emptied; null where it does not.")
    conditions: list[ConditionShape]
    drift: DriftShape


class MicroVMResource(Resource):
    kind: Literal[Kind.MICROVM] = Kind.MICROVM
    namespace: str
    spec: MicroVMSpec
    status: MicroVMStatus


# -- hosts -------------------------------------------------------------------------------------------------------------


HostPhaseName = Literal["expected", "pending", "ready", "suspect", "detached", "fenced", "rejoining", "deleting"]


class CapacityShape(Shape):
    vcpu: int
    memory_in_mb: int
    microvms: int = Field(description="0: as many as fit.")


class AllocatedShape(Shape):
    vcpu: int
    memory_in_mb: int
    microvms: int


class UnmanagedShape(Shape):
    native_id: str = Field(description="How the driver itself names it.")
    driver: str
    uid: str | None
    namespace: str | None
    name: str | None
    epoch: int | None
    ours: bool = Field(description="It carries this cluster's id.")
    power_state: ObservedPower
    since: Timestamp
    hold: HoldShape | None


class StaleShape(Shape):
    uid: str
    epoch: int = Field(description="Of the copy; the microVM's present one is elsewhere.")
    deletion: DeletionShape | None = Field(description="Null for orders of before reasons were kept.")


class EvacuationShape(Shape):
    """How far the mode `drain` or `maintenance` is; `GET /hosts/{name}/evacuation` names each microVM."""

    mode: HostMode
    asked_at: Timestamp
    asked_by: str
    moved: int = Field(description="MicroVMs that have left for it.")
    waiting: int = Field(description="Those whose turn comes.")
    under_way: int = Field(description="Those that are ended here, or do not run elsewhere yet.")
    staying: int = Field(description="Those that are not moved: they run on, or are shut down where they are.")
    done_at: Timestamp | None = Field(
        description="When nothing was left: after `drain` nothing of ours is there, in `maintenance` nothing runs."
    )


class LeftShape(Shape):
    namespace: str
    name: str
    uid: str
    phase: MicroVMPhase
    host: str | None = Field(description="Where it is placed now; null while it is placed anew.")
    stand: Stand
    reason: str = Field(description="Why it stays, or what it waits for.")


class EvacuationDetail(Shape):
    host: str
    availability: Availability
    evacuation: EvacuationShape | None = Field(description="Null where the host's mode is `active`.")
    left: list[LeftShape] = Field(description="What is there yet, and what has left and does not run elsewhere yet.")


class PlanItemShape(Shape):
    verb: PlanVerb
    namespace: str | None
    name: str | None
    uid: str | None
    epoch: int | None
    driver: str
    native_id: str | None = Field(description="How the driver names it, of those that are reported.")
    reason: str


class HostPlanShape(Shape):
    host: str
    phase: HostPhaseName
    source: Literal["agent", "forecast"] = Field(
        description="`agent`: the host's own plan, from what is there now. `forecast`: made here from what was last"
        " known of a host that is not connected."
    )
    items: list[PlanItemShape]


class HostStatus(Shape):
    phase: HostPhaseName
    availability: Availability = Field(description="What it is for now, whatever its phase.")
    evacuation: EvacuationShape | None
    ready_for_reprovisioning: bool = Field(
        description="Its agent has looked, and nothing of ours is left there, nor can come; see the condition."
    )
    leftovers: list[str] | None = Field(
        description="What its agent found of microVMs that are gone; null while it has not told."
    )
    connected_to: str | None = Field(description="Node that the agent's session is at.")
    last_seen_at: Timestamp | None
    reason: str = Field(description="Why it is suspect, detached or fenced; else empty.")
    confirmed_by: str | None = Field(description="The operator who confirmed that it is off.")
    lease_ttl_s: float | None = Field(description="The longest lease that it may hold; null where there are none.")
    stale: list[StaleShape] = Field(description="Orders to destroy copies that were given up there.")
    driver: str | None = Field(description="The driver used where a spec names none.")
    drivers: list[str]
    fences: bool = Field(description="Whether the default driver ends by itself what may run only under a lease.")
    simulated: bool
    agent_version: str | None
    boot_id: str | None
    capacity: CapacityShape | None
    allocated: AllocatedShape
    unmanaged: list[UnmanagedShape]
    hold: HoldShape | None = Field(description="Of the host, and with it of all that is found there.")
    conditions: list[ConditionShape]


class HostResource(Resource):
    kind: Literal[Kind.HOST] = Kind.HOST
    declared: bool = Field(description="False: an agent that nobody declared; it gets nothing.")
    spec: HostSpec | None = Field(description="Null where undeclared.")
    status: HostStatus


# -- namespaces and policies -------------------------------------------------------------------------------------------


class NamespaceStatus(Shape):
    phase: Literal["active", "deleting"]
    used: AllocatedShape


class NamespaceResource(Resource):
    kind: Literal[Kind.NAMESPACE] = Kind.NAMESPACE
    spec: NamespaceSpec
    status: NamespaceStatus


class PolicyStatus(Shape):
    phase: Literal["active", "deleting"]
    used_by: int = Field(description="MicroVMs that name it.")


class PlacementPolicyResource(Resource):
    kind: Literal[Kind.PLACEMENT_POLICY] = Kind.PLACEMENT_POLICY
    spec: PlacementPolicySpec
    status: PolicyStatus


class FailoverPolicyResource(Resource):
    kind: Literal[Kind.FAILOVER_POLICY] = Kind.FAILOVER_POLICY
    spec: FailoverPolicySpec
    status: PolicyStatus


class GCPolicyStatus(Shape):
    phase: Literal["active", "deleting"]


class GCPolicyResource(Resource):
    kind: Literal[Kind.GC_POLICY] = Kind.GC_POLICY
    spec: GCPolicySpec
    status: GCPolicyStatus


class AccessStatus(Shape):
    phase: Literal["active"] = "active"


class RoleResource(Resource):
    kind: Literal[Kind.ROLE] = Kind.ROLE
    spec: RoleSpec
    status: AccessStatus = AccessStatus()


class RoleBindingResource(Resource):
    kind: Literal[Kind.ROLE_BINDING] = Kind.ROLE_BINDING
    spec: RoleBindingSpec
    status: AccessStatus = AccessStatus()


AnyResource = (
    MicroVMResource
    | HostResource
    | NamespaceResource
    | PlacementPolicyResource
    | FailoverPolicyResource
    | GCPolicyResource
    | RoleResource
    | RoleBindingResource
)


# -- answers to writes -------------------------------------------------------------------------------------------------


class Declared(Shape):
    warnings: list[str]
    changed: bool


class DeclaredMicroVM(Declared, MicroVMResource): ...


class DeclaredHost(Declared, HostResource): ...


class DeclaredNamespace(Declared, NamespaceResource): ...


class DeclaredPlacementPolicy(Declared, PlacementPolicyResource): ...


class DeclaredFailoverPolicy(Declared, FailoverPolicyResource): ...


class DeclaredGCPolicy(Declared, GCPolicyResource): ...


class DeclaredRole(Declared, RoleResource): ...


class DeclaredRoleBinding(Declared, RoleBindingResource): ...


AnyDeclared = (
    DeclaredMicroVM
    | DeclaredHost
    | DeclaredNamespace
    | DeclaredPlacementPolicy
    | DeclaredFailoverPolicy
    | DeclaredGCPolicy
    | DeclaredRole
    | DeclaredRoleBinding
)


class ChangeShape(Shape):
    pointer: str
    from_: object = Field(serialization_alias="from", description="Null also where the field was not there.")
    to: object
    effect: Effect


class BidShape(Shape):
    host: str
    score: float | None = Field(description="Lower wins; null where refused.")
    parts: dict[str, float]
    refused: str | None


class PlacementPreview(Shape):
    host: str | None
    reason: str
    bids: list[BidShape]


class DryRun(Shape):
    dry_run: Literal[True] = True
    outcome: Literal["create", "update", "none", "replace"]
    changes: list[ChangeShape]
    placement: PlacementPreview | None
    warnings: list[str]


class TargetShape(Shape):
    kind: Kind
    namespace: str | None
    name: str
    uid: str


class OperationShape(Shape):
    id: str
    kind: OperationKind
    target: TargetShape
    phase: OperationPhase
    generation: int
    started_at: Timestamp
    finished_at: Timestamp | None
    message: str
    actor: str
    reason: str = Field(description="Why it was asked for; given with deletions.")


class OperationStarted(Shape):
    operation: OperationShape | None = Field(description="Null where nothing had to be started and nothing runs.")


class ApplyResult(Shape):
    kind: Kind
    namespace: str | None
    name: str
    outcome: Change | Literal["refused"]
    revision: int
    problem: Problem | None


class Applied(Shape):
    dry_run: bool
    revision: int
    results: list[ApplyResult]


# -- lists -------------------------------------------------------------------------------------------------------------

Continue = Annotated[
    str | None,
    Field(serialization_alias="continue", description="Pass as `continue` for the next page; null on the last."),
]


class MicroVMList(Shape):
    items: list[MicroVMResource]
    revision: int
    continue_: Continue


class HostList(Shape):
    items: list[HostResource]
    revision: int
    continue_: Continue


class NamespaceList(Shape):
    items: list[NamespaceResource]
    revision: int
    continue_: Continue


class PlacementPolicyList(Shape):
    items: list[PlacementPolicyResource]
    revision: int
    continue_: Continue


class FailoverPolicyList(Shape):
    items: list[FailoverPolicyResource]
    revision: int
    continue_: Continue


class GCPolicyList(Shape):
    items: list[GCPolicyResource]
    revision: int
    continue_: Continue


class RoleList(Shape):
    items: list[RoleResource]
    revision: int
    continue_: Continue


class RoleBindingList(Shape):
    items: list[RoleBindingResource]
    revision: int
    continue_: Continue


class OperationList(Shape):
    items: list[OperationShape]
    revision: int
    continue_: Continue


# -- questions ---------------------------------------------------------------------------------------------------------


class DecisionShape(Shape):
    host: str
    epoch: int
    at: Timestamp
    score: float
    bids: list[BidShape]


class UnplacedShape(Shape):
    reason: str
    message: str
    since: Timestamp
    bids: list[BidShape]


class MicroVMRef(Shape):
    namespace: str
    name: str
    uid: str
    phase: MicroVMPhase


class Why(Shape):
    microvm: MicroVMRef
    decision: DecisionShape | None
    unplaced: UnplacedShape | None
    resurrection: ResurrectionShape | None
    held: str = Field(description="Why it is not restarted elsewhere although its host is lost; else empty.")
    waits: str = Field(description="Why it does not run for want of a lease of its host, and since when; else empty.")


class DriftItem(Shape):
    kind: Literal[Kind.MICROVM, Kind.HOST]
    namespace: str | None
    name: str | None
    uid: str | None
    host: str | None
    class_: DriftClass = Field(serialization_alias="class")
    fields: list[DriftFieldShape]


class DriftReport(Shape):
    revision: int
    summary: dict[DriftClass, int]
    items: list[DriftItem]


class SpecSchema(Shape):
    schema_: dict[str, object] = Field(serialization_alias="schema")
    effects: dict[str, Effect]


class Health(Shape):
    status: Literal["ok"] = "ok"


class WatchData(Shape):
    """The `data` of one event of a watch."""

    revision: int
    kind: Kind
    object: AnyResource | OperationShape
    deletion: DeletionShape | None = Field(description="Of a deletion, who ordered it, and why.")
