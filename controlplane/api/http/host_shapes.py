"""Hosts as documents: what is declared, what is seen, how far one is emptied, and what its agent would do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.shape import ConditionShape, Continue, DeletionShape, HoldShape, Resource, Shape
from controlplane.api.http.times import Timestamp
from controlplane.decide.emptying import Stand
from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import Availability, MicroVMPhase, ObservedPower
from controlplane.model.spec import HostMode, HostSpec
from controlplane.model.types import Kind
from controlplane.ports import PlanVerb

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


class LeftoverShape(Shape):
    """What is there of a microVM that is gone."""

    driver: str
    kind: LeftoverKind
    name: str = Field(description="How its driver names it; `flintctl hold found/HOST/NAME` keeps it.")
    microvm: str | None = Field(description="NAMESPACE/NAME of what it is of; null: the thing does not say so.")
    uid: str | None
    epoch: int | None
    bytes: int = Field(description="On the host's disk, when something was last told.")
    ours: bool = Field(description="It carries the mark of this cluster; else only its owner can delete it.")
    since: Timestamp
    hold: HoldShape | None
    deletion: DeletionShape | None = Field(description="The order to delete it, which its host has to confirm.")


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
    left_behind: list[LeftoverShape] | None = Field(
        description="What its agent found of microVMs that are gone; null while it has not told."
    )
    connected_to: str | None = Field(description="Node that the agent's session is at.")
    last_seen_at: Timestamp | None = Field(
        description="When its agent was last heard; while it is heard, since when its session stands."
    )
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


class HostList(Shape):
    items: list[HostResource]
    revision: int
    continue_: Continue
