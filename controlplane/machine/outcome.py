"""What the machine answers: a refusal is a value with a name and the field it is about, never an exception."""

from __future__ import annotations

from enum import StrEnum

from controlplane.model.types import Kind, record


class Code(StrEnum):
    """Why a command was refused. Stable: it is part of the API's problems."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    REVISION_CONFLICT = "revision_conflict"
    REQUIRES_REPLACEMENT = "requires_replacement"
    BEING_DELETED = "being_deleted"
    NAMESPACE_NOT_FOUND = "namespace_not_found"
    NAMESPACE_NOT_EMPTY = "namespace_not_empty"
    POLICY_NOT_FOUND = "policy_not_found"
    POLICY_IN_USE = "policy_in_use"
    POLICY_CHANGED = "policy_changed"
    """Decided by a policy that is another one by now."""
    HOST_NOT_FOUND = "host_not_found"
    HOST_IN_USE = "host_in_use"
    HOST_NOT_LOST = "host_not_lost"
    HELD = "held"
    OWNED_BY_GROUP = "owned_by_group"
    """A member of a group is declared by its group."""
    QUOTA_EXCEEDED = "quota_exceeded"
    INSUFFICIENT_CAPACITY = "insufficient_capacity"
    CONSTRAINT_VIOLATED = "constraint_violated"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    STALE = "stale"
    """Decided from a state that has changed since."""
    ROLE_NOT_FOUND = "role_not_found"
    ROLE_IN_USE = "role_in_use"
    ROLE_BUILT_IN = "role_built_in"
    JOIN_REFUSED = "join_refused"
    """By this token, this one does not join."""
    CERTIFICATE_REVOKED = "certificate_revoked"
    AUTHORITY_IN_USE = "authority_in_use"
    """Members depend on it, or another one is taking its place already."""


class Change(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@record
class Applied:
    revision: int
    """State revision after the command."""
    change: Change
    kind: Kind | None = None
    uid: str | None = None
    operation: str | None = None
    """The operation that the command started, if it started one."""
    parts: tuple[Applied, ...] = ()
    """Of a batch, the outcome of each of its commands."""


@record
class Rejected:
    code: Code
    message: str
    pointer: str | None = None
    """JSON pointer into the declaration: `/spec/vcpu`, `/namespace`, ..."""
    uid: str | None = None
    """Uid of the object that stands in the way, when there is one."""
    part: int | None = None
    """Of a batch, which of its commands was refused."""


Outcome = Applied | Rejected
