"""What is declared once for the whole cluster, as documents: namespaces, policies, roles and bindings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.host_shapes import AllocatedShape
from controlplane.api.http.shape import Continue, Resource, Shape
from controlplane.model.access import RoleBindingSpec, RoleSpec
from controlplane.model.spec import FailoverPolicySpec, GCPolicySpec, NamespaceSpec, PlacementPolicySpec
from controlplane.model.types import Kind


class NamespaceStatus(Shape):
    phase: Literal["active", "deleting"]
    used: AllocatedShape


class NamespaceResource(Resource):
    kind: Literal[Kind.NAMESPACE] = Kind.NAMESPACE
    spec: NamespaceSpec
    status: NamespaceStatus


class PolicyStatus(Shape):
    phase: Literal["active", "deleting"]
    used_by: int = Field(description="MicroVMs that name it.")


class PlacementPolicyResource(Resource):
    kind: Literal[Kind.PLACEMENT_POLICY] = Kind.PLACEMENT_POLICY
    spec: PlacementPolicySpec
    status: PolicyStatus


class FailoverPolicyResource(Resource):
    kind: Literal[Kind.FAILOVER_POLICY] = Kind.FAILOVER_POLICY
    spec: FailoverPolicySpec
    status: PolicyStatus


class GCPolicyStatus(Shape):
    phase: Literal["active", "deleting"]


class GCPolicyResource(Resource):
    kind: Literal[Kind.GC_POLICY] = Kind.GC_POLICY
    spec: GCPolicySpec
    status: GCPolicyStatus


class AccessStatus(Shape):
    phase: Literal["active"] = "active"


class RoleResource(Resource):
    kind: Literal[Kind.ROLE] = Kind.ROLE
    spec: RoleSpec
    status: AccessStatus = AccessStatus()


class RoleBindingResource(Resource):
    kind: Literal[Kind.ROLE_BINDING] = Kind.ROLE_BINDING
    spec: RoleBindingSpec
    status: AccessStatus = AccessStatus()


class NamespaceList(Shape):
    items: list[NamespaceResource]
    revision: int
    continue_: Continue


class PlacementPolicyList(Shape):
    items: list[PlacementPolicyResource]
    revision: int
    continue_: Continue


class FailoverPolicyList(Shape):
    items: list[FailoverPolicyResource]
    revision: int
    continue_: Continue


class GCPolicyList(Shape):
    items: list[GCPolicyResource]
    revision: int
    continue_: Continue


class RoleList(Shape):
    items: list[RoleResource]
    revision: int
    continue_: Continue


class RoleBindingList(Shape):
    items: list[RoleBindingResource]
    revision: int
    continue_: Continue
