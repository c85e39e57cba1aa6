"""`flintlock_role_binding`: gives a role to tokens, users and groups, everywhere or in some namespaces."""

from __future__ import annotations

from typing import ClassVar

from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import STRING, ListOf
from provider_shim.framework.validate import one_of
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

_SUBJECT = {
    "kind": Attribute(
        type=STRING,
        required=True,
        validators=(one_of("token", "user", "group"),),
        description="`token`, `user` or `group`, as the tokens file of the nodes has them.",
    ),
    "name": Attribute(type=STRING, required=True, description="Its name."),
}
_INTENT = {
    "labels": labels_attribute("Labels of the binding."),
    "annotations": annotations_attribute(),
    "role": Attribute(
        type=STRING,
        required=True,
        on_change="live",
        description="A `flintlock_role`, or one of the built-in `viewer`, `operator`, `provisioner`, `admin`.",
    ),
    "subjects": Attribute(
        type=Nested(mode="list", attributes=_SUBJECT), required=True, on_change="live", description="Who has it."
    ),
    "namespaces": Attribute(
        type=ListOf(STRING),
        default=["*"],
        on_change="live",
        description="Where it holds. With namespaces named, it covers nothing that is in none, such as a host.",
    ),
}


class RoleBindingResource(DeclaredResource):
    type_name = "flintlock_role_binding"
    label = "role binding"
    collection = "rolebindings"
    identity: ClassVar = {"name": "Name of the binding."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="Gives a role to tokens, users and groups, everywhere or in some namespaces. It takes effect at "
        "once at every node, and so does its end.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("binding"),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )
