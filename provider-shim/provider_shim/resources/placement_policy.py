"""`flintlock_placement_policy`: where microVMs may go, for many of them at once."""

from __future__ import annotations

from typing import ClassVar

from provider_shim.framework.schema import Schema
from provider_shim.resources.common import (
    annotations_attribute,
    host_labels_attribute,
    id_attribute,
    labels_attribute,
    name_attribute,
    spread_attribute,
    timeouts_block,
    uid_attribute,
)
from provider_shim.resources.declared import DeclaredResource
from provider_shim.resources.translate import Translation

_INTENT = {
    "labels": labels_attribute("Labels of the policy."),
    "annotations": annotations_attribute(),
    "required_host_labels": host_labels_attribute("Only hosts with all of these labels are considered."),
    "preferred_host_labels": host_labels_attribute("Hosts with these labels win over others that bid as well."),
    "spread": spread_attribute(),
}


class PlacementPolicyResource(DeclaredResource):
    type_name = "flintlock_placement_policy"
    label = "placement policy"
    collection = "placementpolicies"
    identity: ClassVar = {"name": "Name of the policy."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="Constraints that are added to those of every microVM whose `placement.policy` names it. "
        "A change holds from each microVM's next placement on; nothing is moved by it.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("policy"),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )
