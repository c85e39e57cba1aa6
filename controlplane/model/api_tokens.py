"""API tokens in the replicated state: whom one speaks for, how far, and until when.

Of the secret there is only its SHA-256: it is 256 random bits, so the digest is as hard to guess as the secret itself.
A token gives nothing by itself. What it may do is what bindings give to `token/NAME`, its user and its groups, less
what its limits take away (docs/adr/0136).

Times are milliseconds since the Unix epoch, stamped by the proposer of the command that set them.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field, StringConstraints

from controlplane.model.access import AccessLimit
from controlplane.model.types import LINE_PATTERN, SubjectName, record, spec

MAX_GROUPS = 64
MAX_DESCRIPTION = 256
"""Characters."""


@spec
class ApiTokenSpec:
    """Whom a token speaks for, and how far."""

    user: SubjectName | None = None
    groups: Annotated[list[SubjectName], Field(max_length=MAX_GROUPS)] = field(default_factory=list[SubjectName])
    limit: AccessLimit = AccessLimit()
    description: Annotated[str, StringConstraints(pattern=LINE_PATTERN, max_length=MAX_DESCRIPTION)] = ""


@record
class RetiredSecret:
    """The secret before a rotation, which is still good for a while."""

    sha256: str
    until: int


@record
class ApiToken:
    name: str
    uid: str
    """Never reused: another token of the same name is another one."""
    spec: ApiTokenSpec
    sha256: str
    created_at: int
    created_by: str
    """The actor."""
    expires_at: int
    inherited: list[AccessLimit]
    """The limits of the token that made it, which hold for it too."""
    rotated_at: int | None = None
    retired: RetiredSecret | None = None
    last_used_at: int | None = None
    """To some minutes: see `NoteApiTokenUses`."""
    revision: int = 0
    """Of the last change by somebody."""

    @property
    def limits(self) -> tuple[AccessLimit, ...]:
        """All of them hold."""
        return (self.spec.limit, *self.inherited)
