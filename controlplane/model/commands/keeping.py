"""What is kept and what goes: holds, garbage that is collected, and what is adopted."""

from __future__ import annotations

from enum import StrEnum

from controlplane.model.commands.declaring import DeclareMicroVM
from controlplane.model.gc import Subject, Trigger
from controlplane.model.types import record


class HoldKind(StrEnum):
    MICROVM = "MicroVM"
    HOST = "Host"
    """And with it whatever is found there."""
    FOUND = "Found"
    """A microVM that a host reports and nobody declared."""


@record
class Hold:
    """Neither collect nor delete this until it is released."""

    kind: HoldKind
    name: str
    """Of what was found, how its driver names it."""
    reason: str
    namespace: str | None = None
    host: str | None = None
    """Where it was found."""


@record
class Release:
    """The end of a hold."""

    kind: HoldKind
    name: str
    namespace: str | None = None
    host: str | None = None


@record
class Collect:
    """The end of one thing that the policy, or somebody, keeps no longer. Refused unless it still is as it was when
    this was decided, and nobody holds it."""

    trigger: Trigger
    subject: Subject
    since: int
    """Of what is true of it: the phase, the report, the end."""
    reason: str
    epoch: int = 0
    """Of a microVM's copy: the order covers it and every one before it."""
    policy: str | None = None
    """The declared policy that it was decided by; None: there was none, and the node's settings said so."""
    policy_revision: int | None = None
    """Of that policy's intent."""


@record
class Adopt:
    """An operator declares a copy that a host told of and nobody declared; it stays as it runs there. Refused unless it
    is the only one, and still what was looked at."""

    host: str
    key: str
    """Of the copy among all that was found there."""
    epoch: int
    generation: int
    """Put into effect there."""
    declaration: DeclareMicroVM
    """With the uid of the copy."""
    repair_seq: int = 0
    """Of the last request that was carried out there; so is the next."""
    restart_seq: int = 0
