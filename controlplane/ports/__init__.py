"""The edges of the product, as protocols.

Everything that decides is pure and everything that acts stands behind one of these. The composition root
(`bootstrap`) is the only place that knows which implementation is behind which port; siblings (api, agent, reconcile,
consensus, drivers) never import each other, they import this package, which has a module for each family of ports.
"""

from __future__ import annotations

from controlplane.ports.agents import (
    AgentLink,
    BidRequestItem,
    Grant,
    Heartbeat,
    HostUnreachableError,
    LeaseGrantor,
    NodeLink,
    NodeView,
    Presence,
    Told,
)
from controlplane.ports.backup import (
    BackupStatus,
    HeldSnapshot,
    SnapshotGoneError,
    SnapshotsBusyError,
    SnapshotSource,
    SnapshotStore,
    StoredObject,
    StoreError,
)
from controlplane.ports.clock import Clock, Ids
from controlplane.ports.host import (
    LEASE_ENDED,
    MAINTENANCE,
    DriverError,
    DriverInfo,
    HostDriver,
    ImageStore,
    Instance,
    InterfaceStatus,
    Lease,
    Remains,
    VMDefinition,
)
from controlplane.ports.log import (
    Committed,
    EntryTooLargeError,
    Led,
    Log,
    LogError,
    NoLeaderError,
    OutcomeUnknownError,
    Position,
    RefusedError,
    Reign,
    SnapshotInstalled,
    SnapshotInterruptedError,
)
from controlplane.ports.members import Divergence, Latency, LogAdmin, LogStatus, Member, PeerStatus
from controlplane.ports.plan import PlanItem, PlanVerb
from controlplane.ports.replica import CompactedError, Contact, Proposer, StateReader
from controlplane.ports.replicated import ReplicatedState, StateLoader, StateView

__all__ = [
    "LEASE_ENDED",
    "MAINTENANCE",
    "AgentLink",
    "BackupStatus",
    "BidRequestItem",
    "Clock",
    "Committed",
    "CompactedError",
    "Contact",
    "Divergence",
    "DriverError",
    "DriverInfo",
    "EntryTooLargeError",
    "Grant",
    "Heartbeat",
    "HeldSnapshot",
    "HostDriver",
    "HostUnreachableError",
    "Ids",
    "ImageStore",
    "Instance",
    "InterfaceStatus",
    "Latency",
    "Lease",
    "LeaseGrantor",
    "Led",
    "Log",
    "LogAdmin",
    "LogError",
    "LogStatus",
    "Member",
    "NoLeaderError",
    "NodeLink",
    "NodeView",
    "OutcomeUnknownError",
    "PeerStatus",
    "PlanItem",
    "PlanVerb",
    "Position",
    "Presence",
    "Proposer",
    "RefusedError",
    "Reign",
    "Remains",
    "ReplicatedState",
    "SnapshotGoneError",
    "SnapshotInstalled",
    "SnapshotInterruptedError",
    "SnapshotSource",
    "SnapshotStore",
    "SnapshotsBusyError",
    "StateLoader",
    "StateReader",
    "StateView",
    "StoreError",
    "StoredObject",
    "Told",
    "VMDefinition",
]
