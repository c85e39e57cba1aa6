"""Documents of the audit chain. Its records appear as they are hashed, so that whoever reads them can verify them."""

from __future__ import annotations

from pydantic import Field

from controlplane.api.http.shape import Continue, Shape
from controlplane.model.audit import AuditOutcome


class AuditRecordShape(Shape):
    """One link of the chain; null members are no part of what is hashed, nor is `count` where it is 1."""

    sequence: int = Field(description="Counts from 1 without a gap.")
    at: int = Field(description="Milliseconds since the Unix epoch.")
    actor: str | None = Field(description="Null: nobody that is known.")
    action: str = Field(description="The command, or the method and route of a request that led to none.")
    outcome: AuditOutcome
    command: str | None = Field(description="Id of the command in the log.")
    kind: str | None
    namespace: str | None
    name: str | None
    uid: str | None
    before: str | None = Field(description="Digest of the object before; null: it was not there.")
    after: str | None
    reason: str | None
    code: str | None = Field(description="Why it was refused.")
    status: int | None = Field(description="HTTP status of a request that led to no command.")
    pointer: str | None
    part: int | None = Field(description="Which part of a batch it is, or was refused for.")
    count: int = Field(description="So many equal requests within a short time.")
    node: str | None = Field(description="Where a request was answered that led to no command.")
    address: str | None
    request: str | None
    trace: str | None
    agent: str | None
    previous: str = Field(description="Hash of the record before.")
    hash: str = Field(description="SHA-256 of the canonical JSON of this record without its hash.")


class AuditHead(Shape):
    sequence: int
    hash: str


class AuditList(Shape):
    items: list[AuditRecordShape]
    head: AuditHead | None = Field(description="The newest record of the chain; null before it begins.")
    first: int = Field(description="The oldest record that is held here; earlier ones are in the nodes' exports.")
    revision: int
    following: Continue
