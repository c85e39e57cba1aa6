"""What the replicated state holds: a record per declared resource, made and changed only by `machine`.

Intent (`spec`, with `generation`) and observation (`observed`, with its time and source) are separate fields.
Times are milliseconds since the Unix epoch, stamped by the proposer of the command that set them.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import field

from controlplane.model.access import RoleBindingSpec, RoleSpec
from controlplane.model.gc import Deletion, Held, Leftover
from controlplane.model.secrets import SealedValue
from controlplane.model.spec import (
    FailoverPolicySpec,
    GCPolicySpec,
    HostMode,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    OnDetach,
    PlacementPolicySpec,
)
from controlplane.model.types import Kind, record


class ObservedPower(StrEnum):
    """PowerState plus what can only be found: no process, no files."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    ABSENT = "absent"


class MicroVMPhase(StrEnum):
    PENDING = "pending"
    """Declared, no host chosen."""
    PLACED = "placed"
    """A host was chosen and has not confirmed it yet: a create may or may not have happened."""
    ACTIVE = "active"
    """The host confirmed the placement's epoch."""
    FAILED = "failed"
    """The host says it cannot run this spec."""
    DELETING = "deleting"
    """The tombstone: kept until the host confirms that nothing is left."""
    MOVING = "moving"
    """Its host is ordered to end it; once that has confirmed it, it is placed anew."""


class HostPhase(StrEnum):
    EXPECTED = "expected"
    """Declared, its agent has never been seen."""
    PENDING = "pending"
    """Its agent is connected, nobody declared it: it gets nothing."""
    READY = "ready"
    SUSPECT = "suspect"
    """Without a grant for a while: nothing new comes here, and what is here may well run."""
    DETACHED = "detached"
    """Its lease has ended and it gets no other before it has rejoined."""
    FENCED = "fenced"
    """Nothing that may be resurrected can run there any more."""
    REJOINING = "rejoining"
    """Its agent is back after it was detached, and has orders to carry out before it gets a lease."""

    @classmethod
    def _missing_(cls, value: object) -> HostPhase | None:
        # What snapshots of before leases call a declared host that fell silent.
        return cls.SUSPECT if value == "unreachable" else None


class OperationPhase(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    """Superseded by a newer operation on the same target before it was done."""


class OperationKind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    REPAIR = "repair"
    RESTART = "restart"
    DELETE = "delete"


@record
class Meta:
    """What every declared resource has."""

    kind: Kind
    namespace: str | None = None
    name: str
    uid: str
    labels: dict[str, str] = field(default_factory=dict[str, str])
    annotations: dict[str, str] = field(default_factory=dict[str, str])
    generation: int = 1
    """Raised by every change of the spec."""
    intent_revision: int = 0
    """State revision of the last change by a user (spec, labels, annotations): what `If-Match` compares."""
    revision: int = 0
    """State revision of the last change of this record, by whatever cause."""
    created_at: int
    updated_at: int
    """Last change by a user."""
    deletion_requested_at: int | None = None


@record
class Namespace:
    meta: Meta
    spec: NamespaceSpec


@record
class PlacementPolicy:
    meta: Meta
    spec: PlacementPolicySpec


@record
class FailoverPolicy:
    meta: Meta
    spec: FailoverPolicySpec


@record
class GCPolicy:
    meta: Meta
    spec: GCPolicySpec


@record
class Role:
    meta: Meta
    spec: RoleSpec


@record
class RoleBinding:
    meta: Meta
    spec: RoleBindingSpec


Policy = PlacementPolicy | FailoverPolicy | GCPolicy | Role | RoleBinding


@record
class Amount:
    """An amount of what hosts give and microVMs take."""

    microvms: int = 0
    vcpu: int = 0
    memory_in_mb: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            microvms=self.microvms + other.microvms,
            vcpu=self.vcpu + other.vcpu,
            memory_in_mb=self.memory_in_mb + other.memory_in_mb,
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            microvms=self.microvms - other.microvms,
            vcpu=self.vcpu - other.vcpu,
            memory_in_mb=self.memory_in_mb - other.memory_in_mb,
        )


@record
class DriverFacts:
    name: str
    version: str = ""
    simulated: bool = False
    accelerator: str | None = None
    fences: bool = False
    """It ends by itself what may run only under a lease, whatever becomes of the agent."""
    lease_problem: str = ""
    """Why it took no lease when the agent connected, so that it fences nothing; empty: it does, or never can."""


@record
class Inventory:
    """What an agent says of its host when it connects."""

    agent_version: str
    boot_id: str
    drivers: list[DriverFacts]
    capacity: Amount
    """What microVMs may use in all. `microvms` 0 means as many as fit."""


@record
class Unmanaged:
    """A microVM found on a host that no intent of ours accounts for."""

    native_id: str
    driver: str
    uid: str | None = None
    namespace: str | None = None
    name: str | None = None
    epoch: int | None = None
    power: ObservedPower = ObservedPower.RUNNING
    since: int = 0
    ours: bool = False
    """It carries our cluster's id."""

    @property
    def key(self) -> str:
        """Names it among all that was found on its host."""
        return f"{self.driver}/{self.native_id}"


class Availability(StrEnum):
    """What a host is for now. Follows from its intent and from whether it was emptied (docs/adr/0106)."""

    OPEN = "open"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DRAINED = "drained"
    """Nothing of ours is placed there."""
    ENTERING_MAINTENANCE = "entering_maintenance"
    IN_MAINTENANCE = "in_maintenance"
    """Nothing of ours runs there."""


@record
class Evacuating:
    """What became of a host's mode `drain` or `maintenance`."""

    mode: HostMode
    asked_at: int
    asked_by: str
    moved: int = 0
    """MicroVMs that the host gave up for it."""
    under_way: list[str] = field(default_factory=list[str])
    """Uids of those that were told to move, until they run elsewhere; what is done with is dropped with the next."""
    done_at: int | None = None


@record
class Host:
    meta: Meta
    declared: bool
    spec: HostSpec
    phase: HostPhase
    inventory: Inventory | None = None
    session: str | None = None
    """Id of the agent's present session; None while it is silent."""
    node: str | None = None
    """The node that the agent's session is at."""
    since: int
    """When the phase was entered."""
    last_seen_at: int | None = None
    lease_ttl_ms: int = 0
    """The longest lease that may be granted to the present session, or outstanding from earlier ones."""
    reason: str = ""
    """Why it is suspect, detached or fenced."""
    confirmed_by: str | None = None
    """The operator who said that it is certainly off; nobody once its agent is heard again."""
    stale: dict[str, int] = field(default_factory=dict[str, int])
    """Orders to destroy: uid to the epoch of the copy that was given up here. Each lives until the host confirms."""
    allocated: Amount = Amount()
    """Sum over every microVM placed here and not confirmed destroyed, ambiguous creates included."""
    unmanaged: list[Unmanaged] = field(default_factory=list[Unmanaged])
    orders: dict[str, Deletion] = field(default_factory=dict[str, Deletion])
    """Who gave the orders of `stale`, and why, by uid; without those of before reasons were kept."""
    hold: Held | None = None
    holds: dict[str, Held] = field(default_factory=dict[str, Held])
    """Of what was found there, by its key; one stays while nothing is told of what it holds."""
    evacuating: Evacuating | None = None
    """None while its mode is `active`."""
    left_behind: list[Leftover] = field(default_factory=list[Leftover])
    """What its agent told last of microVMs that are gone."""
    has_looked: bool = False
    """Whether its agent has told it since it connected last."""
    clearing: dict[str, Deletion] = field(default_factory=dict[str, Deletion])
    """Orders to delete what is left behind, by its key. Each lives until the host tells of the thing no more."""


@record
class Bid:
    """A host's answer to a request for a bid. Lower scores win; `refused` says why there is none."""

    host: str
    score: float | None = None
    parts: dict[str, float] = field(default_factory=dict[str, float])
    refused: str | None = None


@record
class PlacementDecision:
    host: str
    epoch: int
    """Counts the placements of this microVM; only the holder of the present epoch may run it."""
    at: int
    score: float
    bids: list[Bid]


@record
class Unplaced:
    reason: str
    message: str
    since: int
    bids: list[Bid] = field(default_factory=list[Bid])


@record
class InterfaceFacts:
    host_device: str
    mac_address: str


WAITS_FOR_LEASE = "WaitingForLease"
"""The code of the failure of what would run, had its host a lease."""


@record
class Failure:
    """Why a host could not do what was asked; `permanent` means trying again changes nothing."""

    code: str
    message: str
    pointer: str | None = None
    permanent: bool = False


@record
class Observation:
    """What the agent of `host` saw of one microVM."""

    uid: str
    host: str
    epoch: int
    at: int
    """The host's clock when it looked; shown, never compared."""
    power: ObservedPower
    generation: int | None = None
    """Generation that the host has put into effect."""
    repair_seq: int = 0
    """The last repair request that the host has carried out."""
    restart_seq: int = 0
    """The last restart request that the host has carried out."""
    ready: bool = False
    vcpu: int | None = None
    memory_in_mb: int | None = None
    driver: str | None = None
    simulated: bool = False
    cause: str | None = None
    failure: Failure | None = None
    details: dict[str, str] = field(default_factory=dict[str, str])
    interfaces: dict[str, InterfaceFacts] = field(default_factory=dict[str, InterfaceFacts])
    halted: bool = False
    """The host lets it run no more, because of maintenance."""


@record
class Resurrection:
    """The last time that a lost host was given up for this microVM."""

    host: str
    epoch: int
    """Of the copy that was given up."""
    at: int
    reason: str


@record
class Move:
    """The last time that it left a host which was to be emptied."""

    host: str
    epoch: int
    """Of the copy that the host ended."""
    at: int
    """When the host confirmed that nothing is left."""


@record
class Stay:
    """Why it stays on a host that is to be emptied."""

    reason: str
    since: int
    halted: bool = False
    """Its guest is to be shut down there until the maintenance ends."""


@record
class MicroVM:
    meta: Meta
    spec: MicroVMSpec
    phase: MicroVMPhase
    since: int
    """When the phase was entered."""
    epoch: int = 0
    """Epoch of the last placement; 0 before the first."""
    held: Amount = Amount()
    """What its host must keep for it: the larger of what is asked for and what may still be running."""
    placement: PlacementDecision | None = None
    unplaced: Unplaced | None = None
    repair_seq: int = 0
    """Raised by every request for a repair."""
    restart_seq: int = 0
    """Raised by every request for a restart."""
    observed: Observation | None = None
    drifted_since: int | None = None
    operation: str | None = None
    detach: OnDetach = OnDetach.KEEP
    """The most permissive of what its host may be applying when its lease ends."""
    resurrection: Resurrection | None = None
    deletion: Deletion | None = None
    """Who asked for the tombstone, and why."""
    hold: Held | None = None
    move: Move | None = None
    stay: Stay | None = None
    group: str | None = None
    """Uid of the group that it is a member of."""
    sealed: dict[str, SealedValue] = field(default_factory=dict[str, SealedValue])
    """The values that `spec.sensitive_metadata` has the digests of."""

    @property
    def is_tombstone(self) -> bool:
        """Its host is to end it and to confirm that nothing is left."""
        return self.phase in (MicroVMPhase.DELETING, MicroVMPhase.MOVING)

    @property
    def is_halted(self) -> bool:
        return self.stay is not None and self.stay.halted


@record
class Target:
    kind: Kind
    namespace: str | None = None
    name: str
    uid: str


@record
class Operation:
    """Long work that an accepted command started; it ends when a host confirms."""

    id: str
    kind: OperationKind
    target: Target
    phase: OperationPhase
    generation: int
    started_at: int
    finished_at: int | None = None
    finished_revision: int | None = None
    message: str = ""
    actor: str = ""
    reason: str = ""
    """Why it was asked for; given with deletions."""


@record
class Made:
    """What one command of a keyed request was about, and the operation that it started."""

    kind: Kind
    uid: str
    deleted: bool = False
    operation: str | None = None


@record
class Incarnation:
    """That the hosts were waited for after a restore or a recovery (docs/adr/0103)."""

    number: int
    """The log's."""
    at: int
    term: int
    """The leader's that waited."""
    awaited: list[str]
    """Hosts that have not told since then what they hold, and of which no operator said that they are off."""


@record
class Override:
    """An operator's word that something which protects is not to, for a time."""

    actor: str
    at: int
    until: int
    reason: str


BREAKER = "breaker"
"""What an override is about: the breaker of failover."""


@record
class IdempotencyRecord:
    """The outcome of a keyed command, so that its repetition answers the same."""

    fingerprint: str
    made: list[Made]
    """One; of a batch, one for each of its commands."""
    at: int
    revision: int
