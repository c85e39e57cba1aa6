"""What a user writes to declare a resource, and the command that it becomes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, SkipValidation, StringConstraints, TypeAdapter

from controlplane.model.access import RoleBindingSpec, RoleSpec
from controlplane.model.commands import (
    DeclareFailoverPolicy,
    DeclareGCPolicy,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    DeclarePlacementPolicy,
    DeclareRole,
    DeclareRoleBinding,
    Precondition,
)
from controlplane.model.groups import MicroVMGroupSpec
from controlplane.model.spec import (
    FailoverPolicySpec,
    GCPolicySpec,
    HostSpec,
    MicroVMSpec,
    NamespaceSpec,
    PlacementPolicySpec,
)
from controlplane.model.types import LINE_PATTERN, Annotations, DeviceId, Flag, Kind, Labels, Name

MAX_ITEMS = 10_000
_ALWAYS = Precondition()


# pydantic copies a plain `{}` in depth for each object, which costs as much as the rest of a small one.
_EMPTY = Field(default_factory=dict[str, str], json_schema_extra={"default": {}})


class Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Body(Input):
    """The body of a PUT; its path names the object."""

    labels: Labels = _EMPTY
    annotations: Annotations = _EMPTY


_SecretText = Annotated[SecretStr, Field(max_length=64 * 1024)]


class MicroVMBody(Body):
    spec: MicroVMSpec
    sensitive_metadata: Annotated[dict[DeviceId, _SecretText], Field(max_length=16)] = Field(
        default_factory=dict[str, SecretStr],
        description="Metadata that is kept sealed, by name. It is never shown: `spec.sensitive_metadata` has digests."
        " One whose digest is repeated there stays as it is.",
        json_schema_extra={"default": {}, "writeOnly": True},
    )

    def command(self, namespace: str, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareMicroVM:
        return DeclareMicroVM(
            namespace=namespace,
            name=name,
            uid=uid,
            spec=self.spec,
            labels=self.labels,
            annotations=self.annotations,
            when=when,
        )


class MicroVMGroupBody(Body):
    spec: MicroVMGroupSpec

    def command(self, namespace: str, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareMicroVMGroup:
        return DeclareMicroVMGroup(
            namespace=namespace,
            name=name,
            uid=uid,
            spec=self.spec,
            labels=self.labels,
            annotations=self.annotations,
            when=when,
        )


class HostBody(Body):
    spec: HostSpec = HostSpec()

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareHost:
        return DeclareHost(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


class NamespaceBody(Body):
    spec: NamespaceSpec = NamespaceSpec()

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareNamespace:
        return DeclareNamespace(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


class PlacementPolicyBody(Body):
    spec: PlacementPolicySpec = PlacementPolicySpec()

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclarePlacementPolicy:
        return DeclarePlacementPolicy(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


class FailoverPolicyBody(Body):
    spec: FailoverPolicySpec = FailoverPolicySpec()

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareFailoverPolicy:
        return DeclareFailoverPolicy(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


class GCPolicyBody(Body):
    spec: GCPolicySpec = GCPolicySpec()

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareGCPolicy:
        return DeclareGCPolicy(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


class RoleBody(Body):
    spec: RoleSpec = RoleSpec()

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareRole:
        return DeclareRole(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


class RoleBindingBody(Body):
    spec: RoleBindingSpec

    def command(self, name: str, *, uid: str, when: Precondition = _ALWAYS) -> DeclareRoleBinding:
        return DeclareRoleBinding(
            name=name, uid=uid, spec=self.spec, labels=self.labels, annotations=self.annotations, when=when
        )


# -- batches -----------------------------------------------------------------------------------------------------------


DeclaredKind = Literal[
    Kind.MICROVM,
    Kind.MICROVM_GROUP,
    Kind.HOST,
    Kind.NAMESPACE,
    Kind.PLACEMENT_POLICY,
    Kind.FAILOVER_POLICY,
    Kind.GC_POLICY,
    Kind.ROLE,
    Kind.ROLE_BINDING,
]


class Identity(BaseModel):
    """What an item is about; the rest of it is checked afterwards."""

    model_config = ConfigDict(frozen=True)

    kind: DeclaredKind
    namespace: Name | None = None
    name: Name


class MicroVMItem(MicroVMBody):
    kind: Literal[Kind.MICROVM]
    namespace: Name
    name: Name

    def declare(self, *, uid: str) -> DeclareMicroVM:
        return self.command(self.namespace, self.name, uid=uid)


class MicroVMGroupItem(MicroVMGroupBody):
    kind: Literal[Kind.MICROVM_GROUP]
    namespace: Name
    name: Name

    def declare(self, *, uid: str) -> DeclareMicroVMGroup:
        return self.command(self.namespace, self.name, uid=uid)


class HostItem(HostBody):
    kind: Literal[Kind.HOST]
    name: Name

    def declare(self, *, uid: str) -> DeclareHost:
        return self.command(self.name, uid=uid)


class NamespaceItem(NamespaceBody):
    kind: Literal[Kind.NAMESPACE]
    name: Name

    def declare(self, *, uid: str) -> DeclareNamespace:
        return self.command(self.name, uid=uid)


class PlacementPolicyItem(PlacementPolicyBody):
    kind: Literal[Kind.PLACEMENT_POLICY]
    name: Name

    def declare(self, *, uid: str) -> DeclarePlacementPolicy:
        return self.command(self.name, uid=uid)


class FailoverPolicyItem(FailoverPolicyBody):
    kind: Literal[Kind.FAILOVER_POLICY]
    name: Name

    def declare(self, *, uid: str) -> DeclareFailoverPolicy:
        return self.command(self.name, uid=uid)


class GCPolicyItem(GCPolicyBody):
    kind: Literal[Kind.GC_POLICY]
    name: Name

    def declare(self, *, uid: str) -> DeclareGCPolicy:
        return self.command(self.name, uid=uid)


class RoleItem(RoleBody):
    kind: Literal[Kind.ROLE]
    name: Name

    def declare(self, *, uid: str) -> DeclareRole:
        return self.command(self.name, uid=uid)


class RoleBindingItem(RoleBindingBody):
    kind: Literal[Kind.ROLE_BINDING]
    name: Name

    def declare(self, *, uid: str) -> DeclareRoleBinding:
        return self.command(self.name, uid=uid)


Item = (
    MicroVMItem
    | MicroVMGroupItem
    | HostItem
    | NamespaceItem
    | PlacementPolicyItem
    | FailoverPolicyItem
    | GCPolicyItem
    | RoleItem
    | RoleBindingItem
)
ITEM_OF: dict[Kind, type[Item]] = {
    Kind.MICROVM: MicroVMItem,
    Kind.MICROVM_GROUP: MicroVMGroupItem,
    Kind.HOST: HostItem,
    Kind.NAMESPACE: NamespaceItem,
    Kind.PLACEMENT_POLICY: PlacementPolicyItem,
    Kind.FAILOVER_POLICY: FailoverPolicyItem,
    Kind.GC_POLICY: GCPolicyItem,
    Kind.ROLE: RoleItem,
    Kind.ROLE_BINDING: RoleBindingItem,
}
ITEMS = TypeAdapter(list[Annotated[Item, Field(discriminator="kind")]])


class Removal(Input):
    kind: DeclaredKind
    namespace: Name | None = Field(default=None, description="Of microVMs and groups.")
    name: Name
    reason: Annotated[str, StringConstraints(max_length=1024, pattern=LINE_PATTERN)] = Field(
        default="", description="Why it is deleted; shown wherever the deletion is."
    )


class ApplyBody(Input):
    """Items are checked one by one, so that one that is wrong does not hide what is said of the others."""

    atomic: Flag = Field(default=True, description="All of them or none; otherwise each for itself.")
    resources: Annotated[list[SkipValidation[Item]], Field(max_length=MAX_ITEMS)] = []
    delete: Annotated[list[SkipValidation[Removal]], Field(max_length=MAX_ITEMS)] = []
    idempotency_key: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")] | None = None
