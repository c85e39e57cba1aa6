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
    FINISHED_OPERATION = "finished_operation"


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
