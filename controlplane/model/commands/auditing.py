"""What keeps the audit chain: that it begins, what the edge has seen, and what may be forgotten."""

from __future__ import annotations

from controlplane.model.audit import Origin
from controlplane.model.types import record


@record
class BeginAudit:
    """From here on every change is recorded in the audit chain; an older build stops here rather than go on without."""

    node: str
    """Which found that it had not begun."""


@record
class Witnessed:
    """A request that led to no command: it was refused at the edge, or what it changed is no object of the state."""

    at: int
    actor: str | None
    """None: nobody that is known."""
    action: str
    """Method and route."""
    status: int
    namespace: str | None = None
    name: str | None = None
    count: int = 1
    """So many equal ones."""
    origin: Origin = Origin()


@record
class WitnessRequests:
    """What a node's API has seen in a short time, for the audit chain."""

    node: str
    requests: list[Witnessed]


@record
class ExportedAudit:
    """A node has the chain on its disk up to `through`."""

    node: str
    through: int


@record
class DropAudit:
    """Forget the records up to `through`. Refused while a node that exports has not written them."""

    through: int
