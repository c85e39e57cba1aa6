"""Groups: so many microVMs of one template, brought up, down and to another template by the leader (docs/adr/0184).

A member is an ordinary microVM that says which group it belongs to. What it is to be follows from the group alone, so a
member is at the group's template, or it is not: nothing is remembered of how it was made.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated

from pydantic import Field

from controlplane.model.gc import Deletion
from controlplane.model.resources import Meta
from controlplane.model.spec import MicroVMSpec, Spread
from controlplane.model.types import Integer, LabelKey, record, spec

GROUP_LABEL = "flintlock.dev/group"
"""The label that every member has, with the group's name."""
MAX_REPLICAS = 1_000


@spec
class GroupSpread:
    """At most `max_per` of the members go to one value of the host label `by` (`host` means each host)."""

    by: LabelKey = "host"
    max_per: Annotated[Integer, Field(ge=1, le=10_000)] = 1


@spec
class Rollout:
    """How members are brought to another template. One of `max_surge` and `max_unavailable` must be above 0."""

    max_surge: Annotated[Integer, Field(ge=0, le=MAX_REPLICAS)] = 1
    """So many members above `replicas` may exist meanwhile."""
    max_unavailable: Annotated[Integer, Field(ge=0, le=MAX_REPLICAS)] = 0
    """So many members below `replicas` may be ready because of it."""
    ready_deadline_s: Annotated[Integer, Field(ge=1, le=24 * 3600)] = 600
    """While a member at the present template is not ready so long after it was declared, no ready one is given up."""


@spec
class MicroVMGroupSpec:
    replicas: Annotated[Integer, Field(ge=0, le=MAX_REPLICAS)]
    template: MicroVMSpec
    """What each member is. Nothing in it may belong to one member alone, such as an address."""
    spread: GroupSpread | None = None
    """Of the members among themselves; excludes a spread in the template's own placement."""
    rollout: Rollout = field(default_factory=Rollout)


@record
class GroupStop:
    """Why the group does not get further by itself."""

    reason: str
    """CamelCase, for machines."""
    message: str
    since: int


@record
class MicroVMGroup:
    meta: Meta
    spec: MicroVMGroupSpec
    stopped: GroupStop | None = None
    deletion: Deletion | None = None
    """Who asked for its end, and why; it lives until its last member is gone."""


def group_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def member_spec(group: MicroVMGroup) -> MicroVMSpec:
    """What every member is to be."""
    template, spread = group.spec.template, group.spec.spread
    if spread is None:
        return template
    among = Spread(by=spread.by, max_per=spread.max_per, match_labels={GROUP_LABEL: group.meta.name})
    return dataclasses.replace(template, placement=dataclasses.replace(template.placement, spread=among))


def member_labels(group: MicroVMGroup) -> dict[str, str]:
    return {**group.meta.labels, GROUP_LABEL: group.meta.name}
