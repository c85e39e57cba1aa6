"""Groups as documents."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.shape import ConditionShape, Continue, DeletionShape, Resource, Shape
from controlplane.model.groups import MicroVMGroupSpec
from controlplane.model.types import Kind


class MicroVMGroupStatus(Shape):
    phase: Literal["active", "deleting"]
    replicas: int = Field(description="Members that are not being ended.")
    updated: int = Field(description="Of these, at the present template.")
    ready: int = Field(description="Of these, ready, on hosts that are heard.")
    unavailable: int = Field(description="How many ready ones are missing.")
    ending: int = Field(description="Members whose hosts have yet to confirm that nothing is left of them.")
    drifted: int = Field(description="Members that their hosts observed to differ from the intent.")
    complete: bool = Field(description="All of it is as declared, and ready.")
    deletion: DeletionShape | None = Field(description="Who asked for its end, and why.")
    conditions: list[ConditionShape]


class MicroVMGroupResource(Resource):
    kind: Literal[Kind.MICROVM_GROUP] = Kind.MICROVM_GROUP
    namespace: str
    spec: MicroVMGroupSpec
    status: MicroVMGroupStatus


class MicroVMGroupList(Shape):
    items: list[MicroVMGroupResource]
    revision: int
    continue_: Continue
