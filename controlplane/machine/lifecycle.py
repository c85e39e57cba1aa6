"""Lifecycles as tables: from a phase, an event leads to a phase (None: the record is gone).

An event that the table does not list for a phase is illegal there, and the command that brought it is refused. The
diagrams in the docs are drawn from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from controlplane.model.resources import Availability, HostPhase, MicroVMPhase, OperationPhase


class HostEvent(StrEnum):
    DECLARED = "declared"
    CONNECTED = "connected"
    LOST = "lost"
    SUSPECTED = "suspected"
    HEARD = "heard"
    DETACHED = "detached"
    FENCED = "fenced"
    REJOINED = "rejoined"
    RESTORED = "restored"
    """The cluster was, to an older state: nobody knows what is on the host."""
    DELETED = "deleted"


class MicroVMEvent(StrEnum):
    PLACED = "placed"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    REDECLARED = "redeclared"
    TOMBSTONED = "tombstoned"
    DESTROYED = "destroyed"
    RESURRECTED = "resurrected"
    """Its host was lost for good: it is placed anew."""
    EVICTED = "evicted"
    """Its host is to be emptied: it is placed anew once that has ended it."""


class AvailabilityEvent(StrEnum):
    OPENED = "opened"
    CORDONED = "cordoned"
    DRAIN_ASKED = "drain asked"
    MAINTENANCE_ASKED = "maintenance asked"
    EMPTIED = "emptied"


class OperationEvent(StrEnum):
    BEGUN = "begun"
    SETTLED = "settled"
    SUPERSEDED = "superseded"


HOST: Mapping[tuple[HostPhase | None, HostEvent], HostPhase | None] = {
    (None, HostEvent.DECLARED): HostPhase.EXPECTED,
    (None, HostEvent.CONNECTED): HostPhase.PENDING,
    (HostPhase.EXPECTED, HostEvent.DECLARED): HostPhase.EXPECTED,
    (HostPhase.EXPECTED, HostEvent.CONNECTED): HostPhase.READY,
    (HostPhase.EXPECTED, HostEvent.DELETED): None,
    (HostPhase.PENDING, HostEvent.DECLARED): HostPhase.READY,
    (HostPhase.PENDING, HostEvent.CONNECTED): HostPhase.PENDING,
    (HostPhase.PENDING, HostEvent.LOST): None,
    (HostPhase.READY, HostEvent.DECLARED): HostPhase.READY,
    (HostPhase.READY, HostEvent.CONNECTED): HostPhase.READY,
    (HostPhase.READY, HostEvent.SUSPECTED): HostPhase.SUSPECT,
    (HostPhase.READY, HostEvent.DETACHED): HostPhase.DETACHED,
    # Nothing writes it of a declared host any more; logs of before leases hold it.
    (HostPhase.READY, HostEvent.LOST): HostPhase.SUSPECT,
    (HostPhase.READY, HostEvent.RESTORED): HostPhase.DETACHED,
    (HostPhase.READY, HostEvent.DELETED): HostPhase.PENDING,
    (HostPhase.SUSPECT, HostEvent.DECLARED): HostPhase.SUSPECT,
    (HostPhase.SUSPECT, HostEvent.CONNECTED): HostPhase.READY,
    (HostPhase.SUSPECT, HostEvent.HEARD): HostPhase.READY,
    (HostPhase.SUSPECT, HostEvent.DETACHED): HostPhase.DETACHED,
    (HostPhase.SUSPECT, HostEvent.FENCED): HostPhase.FENCED,
    (HostPhase.SUSPECT, HostEvent.RESTORED): HostPhase.DETACHED,
    (HostPhase.SUSPECT, HostEvent.DELETED): None,
    (HostPhase.DETACHED, HostEvent.DECLARED): HostPhase.DETACHED,
    (HostPhase.DETACHED, HostEvent.CONNECTED): HostPhase.REJOINING,
    (HostPhase.DETACHED, HostEvent.FENCED): HostPhase.FENCED,
    (HostPhase.DETACHED, HostEvent.RESTORED): HostPhase.DETACHED,
    (HostPhase.DETACHED, HostEvent.DELETED): None,
    (HostPhase.FENCED, HostEvent.DECLARED): HostPhase.FENCED,
    (HostPhase.FENCED, HostEvent.CONNECTED): HostPhase.REJOINING,
    (HostPhase.FENCED, HostEvent.RESTORED): HostPhase.DETACHED,
    (HostPhase.FENCED, HostEvent.DELETED): None,
    (HostPhase.REJOINING, HostEvent.DECLARED): HostPhase.REJOINING,
    (HostPhase.REJOINING, HostEvent.CONNECTED): HostPhase.REJOINING,
    (HostPhase.REJOINING, HostEvent.DETACHED): HostPhase.DETACHED,
    (HostPhase.REJOINING, HostEvent.REJOINED): HostPhase.READY,
    (HostPhase.REJOINING, HostEvent.RESTORED): HostPhase.DETACHED,
    (HostPhase.REJOINING, HostEvent.DELETED): HostPhase.PENDING,
}

AVAILABILITY: Mapping[tuple[Availability, AvailabilityEvent], Availability] = {
    (Availability.OPEN, AvailabilityEvent.CORDONED): Availability.CORDONED,
    (Availability.OPEN, AvailabilityEvent.DRAIN_ASKED): Availability.DRAINING,
    (Availability.OPEN, AvailabilityEvent.MAINTENANCE_ASKED): Availability.ENTERING_MAINTENANCE,
    (Availability.CORDONED, AvailabilityEvent.OPENED): Availability.OPEN,
    (Availability.CORDONED, AvailabilityEvent.DRAIN_ASKED): Availability.DRAINING,
    (Availability.CORDONED, AvailabilityEvent.MAINTENANCE_ASKED): Availability.ENTERING_MAINTENANCE,
    (Availability.DRAINING, AvailabilityEvent.EMPTIED): Availability.DRAINED,
    (Availability.DRAINING, AvailabilityEvent.OPENED): Availability.OPEN,
    (Availability.DRAINING, AvailabilityEvent.CORDONED): Availability.CORDONED,
    (Availability.DRAINING, AvailabilityEvent.MAINTENANCE_ASKED): Availability.ENTERING_MAINTENANCE,
    (Availability.DRAINED, AvailabilityEvent.OPENED): Availability.OPEN,
    (Availability.DRAINED, AvailabilityEvent.CORDONED): Availability.CORDONED,
    (Availability.DRAINED, AvailabilityEvent.MAINTENANCE_ASKED): Availability.ENTERING_MAINTENANCE,
    (Availability.ENTERING_MAINTENANCE, AvailabilityEvent.EMPTIED): Availability.IN_MAINTENANCE,
    (Availability.ENTERING_MAINTENANCE, AvailabilityEvent.OPENED): Availability.OPEN,
    (Availability.ENTERING_MAINTENANCE, AvailabilityEvent.CORDONED): Availability.CORDONED,
    (Availability.ENTERING_MAINTENANCE, AvailabilityEvent.DRAIN_ASKED): Availability.DRAINING,
    (Availability.IN_MAINTENANCE, AvailabilityEvent.OPENED): Availability.OPEN,
    (Availability.IN_MAINTENANCE, AvailabilityEvent.CORDONED): Availability.CORDONED,
    (Availability.IN_MAINTENANCE, AvailabilityEvent.DRAIN_ASKED): Availability.DRAINING,
}
"""What a declared host is for, whatever phase its agent is in: one that is drained may well be suspect."""

MICROVM: Mapping[tuple[MicroVMPhase | None, MicroVMEvent], MicroVMPhase | None] = {
    (None, MicroVMEvent.REDECLARED): MicroVMPhase.PENDING,
    (MicroVMPhase.PENDING, MicroVMEvent.REDECLARED): MicroVMPhase.PENDING,
    (MicroVMPhase.PENDING, MicroVMEvent.PLACED): MicroVMPhase.PLACED,
    # It has no host. What a resurrected one left behind is an order to the host that was lost, and outlives it.
    (MicroVMPhase.PENDING, MicroVMEvent.TOMBSTONED): None,
    (MicroVMPhase.PLACED, MicroVMEvent.REDECLARED): MicroVMPhase.PLACED,
    (MicroVMPhase.PLACED, MicroVMEvent.CONFIRMED): MicroVMPhase.ACTIVE,
    (MicroVMPhase.PLACED, MicroVMEvent.FAILED): MicroVMPhase.FAILED,
    (MicroVMPhase.PLACED, MicroVMEvent.TOMBSTONED): MicroVMPhase.DELETING,
    (MicroVMPhase.PLACED, MicroVMEvent.RESURRECTED): MicroVMPhase.PENDING,
    (MicroVMPhase.PLACED, MicroVMEvent.EVICTED): MicroVMPhase.MOVING,
    (MicroVMPhase.ACTIVE, MicroVMEvent.REDECLARED): MicroVMPhase.ACTIVE,
    (MicroVMPhase.ACTIVE, MicroVMEvent.CONFIRMED): MicroVMPhase.ACTIVE,
    (MicroVMPhase.ACTIVE, MicroVMEvent.FAILED): MicroVMPhase.FAILED,
    (MicroVMPhase.ACTIVE, MicroVMEvent.TOMBSTONED): MicroVMPhase.DELETING,
    (MicroVMPhase.ACTIVE, MicroVMEvent.RESURRECTED): MicroVMPhase.PENDING,
    (MicroVMPhase.ACTIVE, MicroVMEvent.EVICTED): MicroVMPhase.MOVING,
    (MicroVMPhase.FAILED, MicroVMEvent.REDECLARED): MicroVMPhase.PLACED,
    (MicroVMPhase.FAILED, MicroVMEvent.CONFIRMED): MicroVMPhase.ACTIVE,
    (MicroVMPhase.FAILED, MicroVMEvent.FAILED): MicroVMPhase.FAILED,
    (MicroVMPhase.FAILED, MicroVMEvent.TOMBSTONED): MicroVMPhase.DELETING,
    (MicroVMPhase.FAILED, MicroVMEvent.RESURRECTED): MicroVMPhase.PENDING,
    (MicroVMPhase.FAILED, MicroVMEvent.EVICTED): MicroVMPhase.MOVING,
    (MicroVMPhase.MOVING, MicroVMEvent.REDECLARED): MicroVMPhase.MOVING,
    (MicroVMPhase.MOVING, MicroVMEvent.CONFIRMED): MicroVMPhase.MOVING,
    (MicroVMPhase.MOVING, MicroVMEvent.FAILED): MicroVMPhase.MOVING,
    (MicroVMPhase.MOVING, MicroVMEvent.TOMBSTONED): MicroVMPhase.DELETING,
    (MicroVMPhase.MOVING, MicroVMEvent.RESURRECTED): MicroVMPhase.PENDING,
    (MicroVMPhase.MOVING, MicroVMEvent.DESTROYED): MicroVMPhase.PENDING,
    (MicroVMPhase.DELETING, MicroVMEvent.CONFIRMED): MicroVMPhase.DELETING,
    (MicroVMPhase.DELETING, MicroVMEvent.FAILED): MicroVMPhase.DELETING,
    (MicroVMPhase.DELETING, MicroVMEvent.TOMBSTONED): MicroVMPhase.DELETING,
    (MicroVMPhase.DELETING, MicroVMEvent.DESTROYED): None,
}

OPERATION: Mapping[tuple[OperationPhase | None, OperationEvent], OperationPhase | None] = {
    (None, OperationEvent.BEGUN): OperationPhase.RUNNING,
    (OperationPhase.RUNNING, OperationEvent.SETTLED): OperationPhase.SUCCEEDED,
    (OperationPhase.RUNNING, OperationEvent.SUPERSEDED): OperationPhase.CANCELLED,
}
