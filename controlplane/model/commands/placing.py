"""Where microVMs run: placed, unplaced, restarted elsewhere, moved away."""

from __future__ import annotations

from msgspec import field

from controlplane.model.resources import Bid
from controlplane.model.types import record


@record
class Resurrect:
    """Give up the copy of `epoch` on a fenced host, and place the microVM anew. Refused in another term."""

    uid: str
    epoch: int
    host: str
    term: int
    reason: str


@record
class Evict:
    """Let the host end its copy of `epoch`, and place the microVM anew once that is confirmed."""

    host: str
    uid: str
    epoch: int


@record
class MarkStaying:
    """Nothing moves the copy of `epoch` off the host that is to be emptied."""

    host: str
    uid: str
    epoch: int
    reason: str
    halt: bool = False
    """Shut its guest down there; only in maintenance."""


@record
class Place:
    """The scheduler's choice, decided from `generation` of the microVM; verified against present capacity."""

    uid: str
    generation: int
    host: str
    score: float
    bids: list[Bid]


@record
class MarkUnplaced:
    """The scheduler found no host."""

    uid: str
    generation: int
    reason: str
    message: str
    bids: list[Bid] = field(default_factory=list[Bid])
