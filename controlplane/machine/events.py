"""What changed, published after a command was applied. Events only wake things and feed watchers."""

from __future__ import annotations

from enum import StrEnum

from controlplane.machine.state import Named, State
from controlplane.model.gc import Deletion
from controlplane.model.resources import Operation
from controlplane.model.types import Kind, record

Declared = Named | Operation


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


def standing(state: State, kind: Kind, namespace: str | None, name: str, uid: str) -> Declared | None:
    """What an event is about, as it stands in `state`; None: it is not there, or another one has its name."""
    found = state.named(kind, namespace, name) if kind is not Kind.OPERATION else None
    return found if found is not None and found.meta.uid == uid else None
