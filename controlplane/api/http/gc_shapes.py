"""The documents of garbage collection: plans, runs, status and holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.shape import HoldShape, Shape
from controlplane.api.http.times import Timestamp
from controlplane.machine.collection_rules import WaitsFor
from controlplane.model.commands import HoldKind
from controlplane.model.gc import SubjectKind, Trigger
from controlplane.model.spec import GCPolicySpec


class SubjectShape(Shape):
    kind: SubjectKind
    namespace: str | None
    name: str = Field(description="An operation's id; how its driver names what was found on a host.")
    uid: str | None
    host: str | None
    driver: str | None


class CollectionShape(Shape):
    trigger: Trigger
    subject: SubjectShape
    reason: str
    policy: str = Field(description="The field of the policy that asks for it, with its value.")
    since: Timestamp = Field(description="Since when it is so.")
    due_since: Timestamp


class WaitingShape(Shape):
    trigger: Trigger
    subject: SubjectShape
    reason: str = Field(description="Why it may go once nothing is in the way.")
    since: Timestamp
    waits_for: WaitsFor
    message: str
    due_at: Timestamp | None = Field(description="When its time is over; null where the policy keeps such things.")


class PolicyInForceShape(Shape):
    name: str | None = Field(description="Of the declared policy; null: the settings of the node that answers.")
    revision: int | None = Field(description="Of its intent.")
    spec: GCPolicySpec


class GCPlanShape(Shape):
    plan: str = Field(description="What `POST /gc/run` takes: it does exactly this, or is refused.")
    revision: int
    at: Timestamp
    policy: PolicyInForceShape
    collect: list[CollectionShape] = Field(description="In the order in which it is done.")
    waiting: list[WaitingShape]


class CollectedShape(Shape):
    trigger: Trigger
    subject: SubjectShape
    reason: str
    outcome: Literal["collected", "refused"]
    message: str = Field(description="Why it was refused; else empty.")


class GCRunShape(Shape):
    revision: int
    results: list[CollectedShape]


class PurgeShape(Shape):
    """The order to end something before its time; it is gone once its host tells of it no more."""

    trigger: Trigger
    subject: SubjectShape
    reason: str
    since: Timestamp
    dry_run: bool
    revision: int


class LastShape(Shape):
    at: Timestamp
    subject: str
    reason: str


class TriggerShape(Shape):
    trigger: Trigger
    after_s: int | None = Field(description="How long the policy keeps such things; null: for ever.")
    due: int
    waiting: dict[WaitsFor, int]
    oldest_since: Timestamp | None = Field(description="Since when the oldest of these is so; null: there are none.")
    collected: int = Field(description="Since the cluster began.")
    last: LastShape | None


class RetentionShape(Shape):
    """What is bounded by number or age whatever the policy says."""

    operations: int
    operations_limit: int = Field(description="Ended operations beyond it are forgotten at once, the oldest first.")
    idempotency_keys: int
    idempotency_keys_limit: int
    idempotency_key_lifetime_s: int


class GCStatusShape(Shape):
    revision: int
    policy: PolicyInForceShape
    triggers: list[TriggerShape]
    retention: RetentionShape


class HeldShape(HoldShape):
    """A hold, and what it holds, as `POST /gc/release` takes it."""

    kind: HoldKind
    namespace: str | None
    name: str
    host: str | None


class HoldList(Shape):
    items: list[HeldShape]
    revision: int
