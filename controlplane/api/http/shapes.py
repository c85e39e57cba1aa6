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
from controlplane.machine.outcome import Change
from controlplane.model.gc import Trigger
from controlplane.model.resources import MicroVMPhase, ObservedPower, OperationKind, OperationPhase
from controlplane.model.spec import (
    Effect,
    FailoverPolicySpec,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    OnDetach,
    PlacementPolicySpec,
)
from controlplane.model.types import Kind


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


class HostStatus(Shape):
    phase: HostPhaseName
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


AnyResource = MicroVMResource | HostResource | NamespaceResource | PlacementPolicyResource | FailoverPolicyResource


# -- answers to writes -------------------------------------------------------------------------------------------------


class Declared(Shape):
    warnings: list[str]
    changed: bool


class DeclaredMicroVM(Declared, MicroVMResource): ...


class DeclaredHost(Declared, HostResource): ...


class DeclaredNamespace(Declared, NamespaceResource): ...


class DeclaredPlacementPolicy(Declared, PlacementPolicyResource): ...


class DeclaredFailoverPolicy(Declared, FailoverPolicyResource): ...


AnyDeclared = DeclaredMicroVM | DeclaredHost | DeclaredNamespace | DeclaredPlacementPolicy | DeclaredFailoverPolicy


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


class PeerShape(Shape):
    node: str
    address: str
    connected: bool
    learner: bool
    match_index: int | None
    lag_entries: int | None = Field(description="Entries that it is not known to have; known on the leader only.")
    last_contact_ms: int | None


class LatencyShape(Shape):
    """Of a recent window; all zero where nothing was measured."""

    samples: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class DivergenceShape(Shape):
    node: str
    index: int
    state_hash: str
    expected: str = Field(description="What a majority of the voters has there; empty while there is none.")


class MemberShape(Shape):
    node: str
    address: str = Field(description="Where the other nodes reach its log.")
    role: Literal["voter", "learner"]
    api: str | None
    gateway: str | None


class MemberList(Shape):
    items: list[MemberShape]
    configuration_index: int
    committed: bool = Field(description="False while the last change is not committed.")
    incarnation: int


class Leadership(Shape):
    leader: str


class LogShape(Shape):
    """One node's view of the replicated log."""

    node: str
    role: str = Field(
        description="`leader`, `follower`, `candidate`, `learner` (it gets the log and has no vote) or `starting`."
    )
    leader: str | None
    term: int
    incarnation: int = Field(description="Raised by a recovery from quorum loss and by a restore.")
    last_index: int
    commit_index: int
    applied_index: int
    has_quorum: bool
    fsync: str
    fsync_latency: LatencyShape
    state_hash: str
    state_hash_index: int = Field(description="Hashes of two nodes are comparable at equal indexes only.")
    checked_index: int = Field(description="Up to here a majority of the voters is known to have this node's hash.")
    divergences: list[DivergenceShape]
    snapshot_index: int
    snapshot_age_s: float | None
    log_entries: int
    log_bytes: int
    uptime_s: float
    configuration_index: int
    members: list[MemberShape]
    removed_dead: list[str] = Field(description="Removed because they could not be reached for too long.")
    peers: list[PeerShape]
    concerns: list[str] = Field(description="What is wrong or unsafe at this node, in words; empty when nothing is.")


class BackupShape(Shape):
    """Scheduled backups, by what the answering node finds in the store."""

    location: str
    every_s: float
    last_saved_at: Timestamp | None = Field(description="When the newest snapshot in the store was taken.")
    last_index: int | None
    error: str = Field(description="Why this node's last look or save failed; empty when it did not.")
    error_at: Timestamp | None
    overdue: bool = Field(description="The newest snapshot is older than two periods.")


class BeliefShape(Shape):
    """What one node believes of the cluster."""

    role: str
    leader: str | None = Field(description="The leader that it hears, or is, with a majority behind it.")
    term: int
    since_s: float = Field(description="For how long there has been this leader, or none.")
    age_s: float = Field(description="What was acknowledged elsewhere in the last so many seconds it may not know.")
    hears: list[str] = Field(description="The other voters that it hears.")
    misses: list[str] = Field(description="The other voters that it does not hear.")
    revision: int = Field(description="Of its replica.")


class RestoreShape(Shape):
    """That the cluster was restored, and what is waited for."""

    incarnation: int = Field(description="Of the log.")
    begun: bool = Field(description="Every lease of the lost history has ended, and hosts may have new ones.")
    waits_s: float | None = Field(description="Until it begins, at most; null where nobody can tell.")
    awaited: list[str] = Field(description="Hosts that have yet to tell what they hold before anything is placed.")
    message: str


class NodeShape(Shape):
    node: str
    address: str | None
    reachable: bool
    role: str | None = Field(description="Null where this node cannot know it.")
    agents: int | None = Field(description="Agent sessions at it; null where it did not answer.")
    belief: BeliefShape | None = Field(description="What it believes itself; null where it could not be asked.")
    not_asked: str = Field(description="Why it could not be asked; empty where it was.")


class FailoverShape(Shape):
    """Whether microVMs of lost hosts are restarted elsewhere."""

    breaker_open: bool = Field(description="Too many hosts are lost at once: nothing is restarted elsewhere.")
    lost: int = Field(description="Hosts that are detached or fenced, and that nobody confirmed as off.")
    of: int = Field(description="Declared hosts that have ever connected.")
    message: str = Field(description="What is held, and what to do about it; empty while the breaker is closed.")


class ClusterShape(Shape):
    cluster_id: str
    revision: int
    state_hash: str = Field(description="Digest of this node's replica at `revision`.")
    node: str
    version: str
    log: LogShape | None = Field(description="Null where this node's log does not answer.")
    backup: BackupShape | None = Field(description="Null where no backups are scheduled at this node.")
    nodes: list[NodeShape]
    hosts: dict[HostPhaseName, int]
    disagreements: list[str] = Field(description="Where the nodes' beliefs contradict each other; empty when nowhere.")
    restore: RestoreShape | None = Field(description="Null where nothing is waited for after a restore.")
    failover: FailoverShape
    microvms: dict[str, int] = Field(description="By observed power state; `pending` where nothing was observed.")


class SnapshotShape(Shape):
    """A snapshot that a node holds for reading."""

    id: str
    cluster_id: str
    node: str = Field(description="The node that holds it: only this one has its chunks.")
    incarnation: int
    index: int = Field(description="Where in the log it stands.")
    term: int
    revision: int
    chunks: int
    size: int = Field(description="Bytes of all chunks.")
    idle_s: float = Field(description="It is let go when nobody read of it for so long.")


class Released(Shape):
    status: Literal["released"] = "released"


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
