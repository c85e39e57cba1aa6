"""What the records hold about the end of things: why, by whom, and what keeps one from it.

Times are milliseconds since the Unix epoch, stamped by the proposer of the command that set them.
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.model.types import record


class Trigger(StrEnum):
    """Why the garbage collector ends something. The policy's fields are called after them."""

    FAILED_MICROVM = "failed_microvm"
    """Its host says that it cannot run the spec, and nobody changed it."""
    UNMANAGED_MICROVM = "unmanaged_microvm"
    """A copy of ours on a host, of a microVM that nobody declares any more."""
    LOST_HOST = "lost_host"
    """Confirmed as off, and nothing is left that waits for it but tombstones."""
    LOST_TOMBSTONE = "lost_tombstone"
    """A microVM that is to end on a host which is confirmed as off, and confirms nothing any more."""
    LEFTOVER = "leftover"
    """What a host has of microVMs that are gone."""
    QUARANTINED_VOLUMES = "quarantined_volumes"
    """Local volumes of a destroyed microVM, which its host keeps for a while."""
    FINISHED_OPERATION = "finished_operation"
    AUDIT_RECORDS = "audit_records"
    """The oldest day of the audit chain, which every node that exports it has in its files."""


@record
class Deletion:
    """The order that ends something."""

    actor: str
    at: int
    reason: str
    trigger: Trigger | None = None
    """None: somebody asked for it."""


@record
class Held:
    """Somebody's word that this is to stay: neither collected nor deleted until it is released."""

    actor: str
    at: int
    reason: str


class SubjectKind(StrEnum):
    MICROVM = "MicroVM"
    HOST = "Host"
    OPERATION = "Operation"
    UNMANAGED = "Unmanaged"
    LEFTOVER = "Leftover"
    AUDIT = "Audit"


class LeftoverKind(StrEnum):
    """What kind of thing is left."""

    INSTANCE = "instance"
    """What the driver's own service runs."""
    PROCESS = "process"
    TAP = "tap"
    FOLDER = "folder"
    VOLUMES = "volumes"
    """Local volumes in quarantine."""


@record
class Leftover:
    """What is on a host of a microVM that is gone there."""

    driver: str
    kind: LeftoverKind
    name: str
    """How its driver names it, unlike everything else that this driver has: `tap/fl01ab`, `quarantine/UID-EPOCH`."""
    uid: str | None = None
    """Of the microVM, as far as the thing itself says so; so are `microvm` and `epoch`."""
    microvm: str | None = None
    """NAMESPACE/NAME."""
    epoch: int | None = None
    bytes: int = 0
    """On the host's disk, when something else about what is left was told last."""
    ours: bool = False
    """It carries the mark of this host's agent, and of no other cluster; nothing else may ever be deleted."""
    since: int = 0
    """When it was first told."""

    @property
    def key(self) -> str:
        """Names it among all that was found on its host."""
        return f"{self.driver}/{self.name}"


@record
class Subject:
    """What a collection is about."""

    kind: SubjectKind
    name: str
    """Its name; an operation's id; how its driver names what was found on a host."""
    namespace: str | None = None
    uid: str | None = None
    host: str | None = None
    driver: str | None = None

    def __str__(self) -> str:
        place = f" on {self.host}" if self.host is not None else ""
        name = f"{self.namespace}/{self.name}" if self.namespace is not None else self.name
        return f"{self.kind.value} {name}{place}"


@record
class Tally:
    """How much was collected for one trigger since the cluster began, and what last."""

    collected: int
    at: int
    subject: str
    reason: str
