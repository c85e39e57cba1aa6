"""What the leader's runner does for groups."""

from __future__ import annotations

from msgspec import field

from controlplane.model.types import record


@record
class NewMember:
    name: str
    uid: str


@record
class Stall:
    """Why the group does not get further by itself, as the runner sees it."""

    reason: str
    message: str


@record
class StepGroup:
    """The next few changes of a group's members. What a member is to be, the machine reads in the group itself."""

    namespace: str
    name: str
    uid: str
    generation: int
    """The group's, when this was decided; in another one it is refused."""
    end: list[str] = field(default_factory=list[str])
    """Uids of members to end."""
    renew: list[str] = field(default_factory=list[str])
    """Uids of members to declare anew, which disturbs no guest."""
    add: list[NewMember] = field(default_factory=list[NewMember])
    reason: str = ""
    """Why members are ended."""
    stall: Stall | None = None
