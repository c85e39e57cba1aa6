"""Policies and access: what is declared once for the whole cluster, and named by others or obeyed by the edges.

Every kind goes the same way: declared, read, listed, watched, and refused to be deleted while something names it. What
is particular to a kind is its spec, its record, its command, a row of `POLICIES` here, and whoever obeys it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from controlplane.model.commands import (
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclarePlacementPolicy,
    DeclarePolicy,
    DeclareRole,
    DeclareRoleBinding,
)
from controlplane.model.resources import FailoverPolicy, GCPolicy, PlacementPolicy, Policy, Role, RoleBinding
from controlplane.model.spec import MicroVMSpec
from controlplane.model.types import Kind


@dataclass(frozen=True, slots=True)
class PolicyKind:
    noun: str
    """For people: `placement policy`."""
    table: str
    """Where the state holds its records, by name."""
    record: Callable[..., Policy]
    command: type[DeclarePolicy]


POLICIES: Mapping[Kind, PolicyKind] = {
    Kind.PLACEMENT_POLICY: PolicyKind("placement policy", "policies", PlacementPolicy, DeclarePlacementPolicy),
    Kind.FAILOVER_POLICY: PolicyKind("failover policy", "failover_policies", FailoverPolicy, DeclareFailoverPolicy),
    Kind.GC_POLICY: PolicyKind("GC policy", "gc_policies", GCPolicy, DeclareGCPolicy),
    Kind.ROLE: PolicyKind("role", "roles", Role, DeclareRole),
    Kind.ROLE_BINDING: PolicyKind("role binding", "role_bindings", RoleBinding, DeclareRoleBinding),
}

GC_POLICY_NAME = "default"
"""The one GC policy: it holds for the whole cluster, so nothing has to name it."""

KIND_DECLARED: Mapping[type[DeclarePolicy], Kind] = {each.command: kind for kind, each in POLICIES.items()}


@dataclass(frozen=True, slots=True)
class Reference:
    """That a spec names a policy."""

    kind: Kind
    name: str
    pointer: str
    """Of the field that does."""


def policies_named(spec: MicroVMSpec) -> Iterator[Reference]:
    if spec.placement.policy is not None:
        yield Reference(Kind.PLACEMENT_POLICY, spec.placement.policy, "/spec/placement/policy")
    if spec.recovery.policy is not None:
        yield Reference(Kind.FAILOVER_POLICY, spec.recovery.policy, "/spec/recovery/policy")
