"""What `/failover` is asked and answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from controlplane.api.http.cluster_shapes import OverrideShape
from controlplane.api.http.declarations import Input
from controlplane.api.http.shape import Shape
from controlplane.machine.overrides import MAX_OVERRIDE_S, MAX_REASON
from controlplane.model.types import Integer


class OverrideBody(Input):
    for_s: Annotated[Integer, Field(ge=1, le=MAX_OVERRIDE_S, description="It ends by itself after so long.")]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON, strip_whitespace=True)]


class BreakerShape(Shape):
    open: bool = Field(description="Too much was lost at once. What that holds, an override lets through.")
    stops: bool = Field(description="It is open and not overridden.")
    lost: int = Field(description="While open, of the greatest mass loss; else those that nobody confirmed as off.")
    of: int = Field(description="Hosts that there were then; while closed, that have ever connected.")
    hosts: list[str] = Field(description="Lost at once with too many others, and not confirmed as off.")
    max_unhealthy: float
    window_s: float = Field(description="Hosts that were lost within so long of each other count together.")
    message: str = Field(description="What is held, and what to do about it; empty where nothing is.")


class LostMicroVM(Shape):
    """A microVM on a lost host."""

    namespace: str
    name: str
    uid: str
    host: str
    policy: str | None = Field(description="The failover policy that it names.")
    priority: int


class HeldMicroVM(LostMicroVM):
    held: str = Field(description="Why it is not restarted elsewhere now.")


class FailoverStatus(Shape):
    revision: int
    breaker: BreakerShape
    override: OverrideShape | None = Field(description="In force now.")
    next: list[LostMicroVM] = Field(description="What is given up next, in this order.")
    held: list[HeldMicroVM] = Field(
        description="In the order in which they are to be given up once nothing holds them."
    )
    held_in_all: int = Field(description="Those included that are not listed.")
