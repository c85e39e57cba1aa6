"""What the documents of API v2 are made of, whatever they are about."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from controlplane.api.http.times import Timestamp
from controlplane.decide.conditions import Truth
from controlplane.model.gc import Trigger

Continue = Annotated[
    str | None,
    Field(serialization_alias="continue", description="Pass as `continue` for the next page; null on the last."),
]


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class Resource(Shape):
    """What every declared resource has."""

    name: str
    uid: str = Field(description="ULID; never reused.")
    labels: dict[str, str]
    annotations: dict[str, str]
    generation: int = Field(description="Raised by every change of the spec.")
    revision: int = Field(
        description="State revision of the last change of the intent (spec, labels, annotations): the ETag, and what"
        " `If-Match` compares. A changed status does not raise it."
    )
    status_revision: int = Field(description="State revision of the last change of this object by whatever cause.")
    created_at: Timestamp
    updated_at: Timestamp = Field(description="Last change of the intent.")
    deletion_requested_at: Timestamp | None


class ConditionShape(Shape):
    type: str
    status: Truth
    reason: str = Field(description="CamelCase, for machines.")
    message: str
    since: Timestamp | None


class DeletionShape(Shape):
    """The order that ends something."""

    actor: str
    at: Timestamp
    reason: str
    trigger: Trigger | None = Field(description="Why the garbage collector gave it; null where somebody asked for it.")


class HoldShape(Shape):
    """Somebody's word that it is to stay: it is neither collected nor deleted until it is released."""

    actor: str
    at: Timestamp
    reason: str
