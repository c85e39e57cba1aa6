"""Documents of what happened lately."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.shape import Continue, Shape
from controlplane.api.http.times import Timestamp
from controlplane.model.event_records import Reason
from controlplane.model.types import Kind

EventClass = Literal["normal", "warning"]


class EventShape(Shape):
    id: str = Field(description="Its place, `REVISION.NUMBER`: the same at every node, and a `continue` to go on from.")
    revision: int = Field(description="State revision of the command that brought it about.")
    at: Timestamp = Field(description="On the clock of the node that proposed the command.")
    kind: Kind
    namespace: str | None
    name: str
    uid: str
    host: str | None = Field(description="The host that it is about, or that the object is or was on.")
    type: EventClass
    reason: Reason
    message: str
    actor: str = Field(description="Whose command it came with: a user, or a part of the product.")


class EventList(Shape):
    items: list[EventShape]
    complete: bool = Field(
        description="Nothing that was asked for is forgotten: everything after `continue`, `from` or `since` is still"
        " held, or everything since the cluster began where none of them is given."
    )
    more: bool = Field(description="More match than `items` holds: later ones, or earlier ones with `newest`.")
    held: int = Field(description="So many events are held, of all kinds.")
    held_at_most: int = Field(description="Beyond it the oldest are forgotten.")
    oldest_at: Timestamp | None = Field(description="Of the oldest event that is held.")
    forgotten_revision: int = Field(description="Revision of the newest event that is not held; 0: none was forgotten.")
    revision: int
    continue_: Continue
