"""What changed, published after a command was applied. Events only wake things and feed watchers."""

from __future__ import annotations

from enum import StrEnum

from controlplane.machine.state import State
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


def standing(state: State, kind: Kind, namespace: str | None, name: str, uid: str) -> Declared | None:
    """What an event is about, as it stands in `state`; None: it is not there, or another one has its name."""
    found: Declared | None
    match kind:
        case Kind.MICROVM:
            found = state.microvms.get(uid)
        case Kind.MICROVM_GROUP:
            found = state.microvm_group(namespace or "", name)
        case Kind.HOST:
            found = state.hosts.get(name)
        case Kind.NAMESPACE:
            found = state.namespaces.get(name)
        case Kind.OPERATION:
            return None
        case _:
            found = state.policies_of(kind).get(name)
    return found if found is not None and found.meta.uid == uid else None
