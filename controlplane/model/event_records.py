"""What happened, as operators are told of it: one record for each thing that came about with one object.

A record names its place: the revision of the command that brought it about, and its number among those of that command.
Both follow from the log, so a place means the same at every node, and whoever has read up to one goes on after it.
Nothing here holds what a user wrote into a spec: objects appear by name, and changed fields as pointers.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from controlplane.model.types import Kind

MAX_MESSAGE = 512
"""Characters."""

Place = tuple[int, int]
"""(revision, number of the event in it, from 0)."""


class Reason(StrEnum):
    """What came about. Stable: it is part of the API, and pipelines filter by it."""

    DECLARED = "Declared"
    CHANGED = "Changed"
    """Somebody declared it anew."""
    DELETION_REQUESTED = "DeletionRequested"
    DELETED = "Deleted"
    HELD = "Held"
    RELEASED = "Released"
    # microVMs
    ADOPTED = "Adopted"
    PLACED = "Placed"
    UNPLACED = "Unplaced"
    """No host takes it; told again when there is another reason."""
    RUNNING = "Running"
    STOPPED = "Stopped"
    PAUSED = "Paused"
    ABSENT = "Absent"
    """Its host has neither a process nor files of it."""
    READY = "Ready"
    """Its guest said so; of a host: it may run microVMs."""
    NOT_READY = "NotReady"
    FAILED = "Failed"
    """Its host cannot run this spec."""
    RETRYING = "Retrying"
    """Its host could not do what was asked, and tries again."""
    DRIFTED = "Drifted"
    IN_SYNC = "InSync"
    REPAIR_REQUESTED = "RepairRequested"
    RESTART_REQUESTED = "RestartRequested"
    RESURRECTED = "Resurrected"
    """Its host was lost: it is placed anew."""
    EVICTED = "Evicted"
    """Its host is to be emptied: it is placed anew once that has ended it."""
    MOVED = "Moved"
    """The host that was to be emptied has ended it."""
    STAYING = "Staying"
    """It stays on a host that is to be emptied."""
    # hosts
    EXPECTED = "Expected"
    PENDING = "Pending"
    """Its agent is connected, and nobody declared it."""
    SUSPECT = "Suspect"
    DETACHED = "Detached"
    FENCED = "Fenced"
    REJOINING = "Rejoining"
    CONFIRMED_OFF = "ConfirmedOff"
    EMPTIED = "Emptied"
    UNMANAGED_FOUND = "UnmanagedFound"
    """It runs a microVM that nobody declared."""
    # groups, which are `PAUSED`, too: they do not get further by themselves
    RESUMED = "Resumed"


WARNINGS = frozenset(
    {
        Reason.UNPLACED,
        Reason.ABSENT,
        Reason.NOT_READY,
        Reason.FAILED,
        Reason.RETRYING,
        Reason.DRIFTED,
        Reason.RESURRECTED,
        Reason.STAYING,
        Reason.SUSPECT,
        Reason.DETACHED,
        Reason.FENCED,
        Reason.UNMANAGED_FOUND,
    }
)
"""What an operator would want to look at, whatever it is about."""


class EventRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    revision: int
    number: int = 0
    at: int
    """Milliseconds since the Unix epoch, on the proposer's clock."""
    kind: Kind
    namespace: str | None = None
    name: str
    uid: str
    host: str | None = None
    """The host that it is about, or that the object was on."""
    reason: Reason
    message: str
    actor: str
    """Whose command it came with: a user, or a part of the product."""

    @property
    def place(self) -> Place:
        return self.revision, self.number

    @property
    def is_warning(self) -> bool:
        """A microVM is paused by somebody's will, a group by what is in its way."""
        return self.reason in WARNINGS or (self.kind is Kind.MICROVM_GROUP and self.reason is Reason.PAUSED)
