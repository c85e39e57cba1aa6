"""What a node asks of this host: the whole of it, at one revision of the state.

Assignments are level-based. A host that has the newest ones needs no history, and one that has older ones does nothing
that the newest would not excuse: it never destroys without a tombstone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.model.spec import MicroVMSpec
from controlplane.ports import VMDefinition


@dataclass(frozen=True, slots=True)
class Assignment:
    uid: str
    namespace: str
    name: str
    epoch: int
    generation: int
    repair_seq: int
    restart_seq: int
    spec: MicroVMSpec | None
    """None for tombstones: nobody needs to know what is to be removed."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    reason: str = ""
    """Of a tombstone: who ordered it, and why."""
    halt: bool = False
    """Keep its guest shut down, whatever the spec's power state: the host is in maintenance."""
    sensitive: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Values of the spec's `sensitive_metadata`."""

    @property
    def is_tombstone(self) -> bool:
        return self.spec is None


@dataclass(frozen=True, slots=True)
class Clearing:
    """To delete what the host told as left behind."""

    driver: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Assignments:
    cluster_id: str
    revision: int
    by_uid: Mapping[str, Assignment]
    clearings: Sequence[Clearing] = ()
    governs_leftovers: bool = False
    """The cluster's policy says when what is kept here goes, and not this host's clock."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What identifies an assignment's wish: while it stays equal, a repeated attempt is a retry."""

    epoch: int
    generation: int
    repair_seq: int
    restart_seq: int
    is_tombstone: bool
    halt: bool = False


def goal_of(assignment: Assignment) -> Goal:
    return Goal(
        epoch=assignment.epoch,
        generation=assignment.generation,
        repair_seq=assignment.repair_seq,
        restart_seq=assignment.restart_seq,
        is_tombstone=assignment.is_tombstone,
        halt=assignment.halt,
    )


def definition(cluster_id: str, assignment: Assignment) -> VMDefinition:
    """What the driver is to run. The assignment must not be a tombstone."""
    assert assignment.spec is not None
    return VMDefinition(
        cluster_id=cluster_id,
        uid=assignment.uid,
        namespace=assignment.namespace,
        name=assignment.name,
        epoch=assignment.epoch,
        generation=assignment.generation,
        labels=assignment.labels,
        spec=assignment.spec,
        sensitive=assignment.sensitive,
    )
