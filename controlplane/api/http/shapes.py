"""The documents that API v2 answers with, as pydantic models: one definition for the answers and for OpenAPI.

Specs are the dataclasses of `model.spec` themselves, so what is read back has exactly the shape of what was declared.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.group_shapes import MicroVMGroupResource
from controlplane.api.http.host_shapes import HostResource
from controlplane.api.http.policy_shapes import (
    FailoverPolicyResource,
    GCPolicyResource,
    NamespaceResource,
    PlacementPolicyResource,
    RoleBindingResource,
    RoleResource,
)
from controlplane.api.http.problems import Problem
from controlplane.api.http.shape import ConditionShape, Continue, DeletionShape, HoldShape, Resource, Shape
from controlplane.api.http.times import Timestamp
from controlplane.decide.drift import DriftClass
from controlplane.machine.outcome import Change
from controlplane.model.resources import MicroVMPhase, ObservedPower, OperationKind, OperationPhase
from controlplane.model.spec import Effect, MicroVMSpec, OnDetach
from controlplane.model.types import Kind

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


# -- resources ---------------------------------------------------------------------------------------------------------

AnyResource = (
    MicroVMResource
    | MicroVMGroupResource
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


class DeclaredMicroVMGroup(Declared, MicroVMGroupResource): ...


class DeclaredHost(Declared, HostResource): ...


class DeclaredNamespace(Declared, NamespaceResource): ...


class DeclaredPlacementPolicy(Declared, PlacementPolicyResource): ...


class DeclaredFailoverPolicy(Declared, FailoverPolicyResource): ...


class DeclaredGCPolicy(Declared, GCPolicyResource): ...


class DeclaredRole(Declared, RoleResource): ...


class DeclaredRoleBinding(Declared, RoleBindingResource): ...


AnyDeclared = (
    DeclaredMicroVM
    | DeclaredMicroVMGroup
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


class HostShare(Shape):
    host: str
    members: int


class Stopped(Shape):
    reason: str = Field(description="CamelCase, for machines.")
    message: str


class MembersPreview(Shape):
    """What would become of the members that a group lacks, as the scheduler would place them now."""

    missing: int = Field(description="Members at the declared template that there are not.")
    looked_at: int = Field(
        description="Of these, so many may be added at once and were previewed; of more than 64, the first 64."
    )
    hosts: list[HostShare] = Field(description="Where those would go that some host takes.")
    unplaced: int = Field(description="So many of those looked at no host would take.")
    reason: str | None = Field(description="Why no host would take them.")
    bids: list[BidShape] = Field(description="Of one that no host would take.")
    stopped: Stopped | None = Field(description="Why no more members would be declared, such as a quota.")


class DryRun(Shape):
    dry_run: Literal[True] = True
    outcome: Literal["create", "update", "none", "replace"]
    changes: list[ChangeShape]
    placement: PlacementPreview | None = Field(description="Of a microVM that would wait for a host.")
    members: MembersPreview | None = Field(description="Of a group.")
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


class MicroVMList(Shape):
    items: list[MicroVMResource]
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
