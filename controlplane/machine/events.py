"""What changed, published after a command was applied. Events only wake things and feed watchers."""

from __future__ import annotations

from enum import StrEnum

from controlplane.model.gc import Deletion
from controlplane.model.groups import MicroVMGroup
from controlplane.model.resources import Host, MicroVM, Namespace, Operation, Policy
from controlplane.model.types import Kind, record

Declared = Host | Namespace | Policy | MicroVM | MicroVMGroup | Operation


class EventType(StrEnum):
    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@record
class Event:
    revision: int
    type: EventType
    kind: Kind
    object: Declared
    """After the change; before it, for a deletion."""
    deletion: Deletion | None = None
    """Of a deletion, who ordered it, and why."""
