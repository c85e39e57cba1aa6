"""`flintlock_namespace`: a room for microVMs, with quotas."""

from __future__ import annotations

from typing import ClassVar

from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import NUMBER
from provider_shim.framework.validate import between
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


def _quota(what: str, most: int) -> Attribute:
    return Attribute(
        type=NUMBER,
        optional=True,
        on_change="live",
        validators=(between(0, most),),
        description=f"Most {what} that the namespace may hold; unset means no limit.",
    )


_INTENT = {
    "labels": labels_attribute("Labels of the namespace."),
    "annotations": annotations_attribute(),
    "max_microvms": _quota("microVMs", 10_000_000),
    "max_vcpu": _quota("vCPUs, summed over its microVMs,", 100_000_000),
    "max_memory_in_mb": _quota("memory in MB, summed over its microVMs,", 2**50),
}


class NamespaceResource(DeclaredResource):
    type_name = "flintlock_namespace"
    label = "namespace"
    collection = "namespaces"
    identity: ClassVar = {"name": "Name of the namespace."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="A namespace: microVMs live in one, and its quotas bound what they take together.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("namespace"),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )
