"""`flintlock_role`: rules of what may be done with what, and where."""

from __future__ import annotations

from typing import ClassVar

from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import STRING, ListOf, MapOf
from provider_shim.resources.common import (
    annotations_attribute,
    id_attribute,
    labels_attribute,
    name_attribute,
    timeouts_block,
    uid_attribute,
)
from provider_shim.resources.declared import DeclaredResource
from provider_shim.resources.translate import Translation

_RULE = {
    "verbs": Attribute(
        type=ListOf(STRING),
        required=True,
        description="`read`, `declare`, `delete`, `act`, `hold`, `console`, `confirm`; `*` is all of them.",
    ),
    "kinds": Attribute(
        type=ListOf(STRING),
        required=True,
        description="`MicroVM`, `Host`, `Namespace`, `PlacementPolicy`, `FailoverPolicy`, `Operation`, `Role`, "
        "`RoleBinding`, `Cluster`, `Snapshot`, `Collection`; `*` is all of them. To change roles and bindings only "
        "the built-in role `admin` allows.",
    ),
    "namespaces": Attribute(
        type=ListOf(STRING),
        default=["*"],
        description="Where it holds. What is in no namespace, such as a host, is only covered by `*`.",
    ),
    "names": Attribute(type=ListOf(STRING), optional=True, description="Only objects of these names; unset means all."),
    "labels": Attribute(
        type=MapOf(STRING), optional=True, description="Only objects that have all of these labels, and keep them."
    ),
}
_INTENT = {
    "labels": labels_attribute("Labels of the role."),
    "annotations": annotations_attribute(),
    "rules": Attribute(
        type=Nested(mode="list", attributes=_RULE),
        required=True,
        on_change="live",
        description="What it allows: each rule all of its verbs on all of its kinds. What no rule allows is refused.",
    ),
}


class RoleResource(DeclaredResource):
    type_name = "flintlock_role"
    label = "role"
    collection = "roles"
    identity: ClassVar = {"name": "Name of the role."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="A role: what may be done with what, and where. Built in are `viewer`, `operator`, `admin` and "
        "`provisioner`; a `flintlock_role_binding` gives either to somebody.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("role"),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )
