"""`flintlock_gc_policy`: how long what nobody needs is kept before it is collected."""

from __future__ import annotations

from typing import ClassVar

from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import NUMBER, STRING
from provider_shim.framework.validate import between, one_of
from provider_shim.resources.common import (
    annotations_attribute,
    id_attribute,
    labels_attribute,
    timeouts_block,
    uid_attribute,
)
from provider_shim.resources.declared import DeclaredResource
from provider_shim.resources.translate import Translation

_TEN_YEARS_S = 10 * 365 * 86_400
_KEPT = "Seconds for which {} is kept; unset means for ever."


def _kept_for(what: str) -> Attribute:
    return Attribute(
        type=NUMBER,
        optional=True,
        on_change="live",
        validators=(between(0, _TEN_YEARS_S),),
        description=_KEPT.format(what),
    )


def _kept_unless_told(default: int, what: str) -> Attribute:
    return Attribute(
        type=NUMBER,
        default=default,
        on_change="live",
        validators=(between(0, _TEN_YEARS_S),),
        description=f"Seconds for which {what}.",
    )


_INTENT = {
    "labels": labels_attribute("Labels of the policy."),
    "annotations": annotations_attribute(),
    "failed_microvm_after_s": _kept_for("a microVM whose host says that it cannot run the spec"),
    "unmanaged_microvm_after_s": _kept_for("a copy of ours on a host, of a microVM that nobody declares"),
    "lost_host_after_s": _kept_for("a lost host that is confirmed off; leave it unset for hosts of Terraform"),
    "lost_tombstone_after_s": _kept_for("a deleted microVM that waits for a lost host which is confirmed off"),
    "leftover_after_s": _kept_for("what a host has of microVMs that are gone (taps, folders)"),
    "quarantined_volumes_after_s": _kept_unless_told(
        86_400, "local volumes of a destroyed microVM are kept on their host"
    ),
    "finished_operation_after_s": _kept_unless_told(7 * 86_400, "an operation that ended is kept"),
    "audit_records_after_s": _kept_for("a day of the audit chain in the cluster's state"),
}


class GCPolicyResource(DeclaredResource):
    type_name = "flintlock_gc_policy"
    label = "GC policy"
    collection = "gcpolicies"
    identity: ClassVar = {"name": "Name of the policy: `default`."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="How long what nobody needs is kept before it is collected. There is one for the whole cluster; "
        "without it the settings of the nodes hold, and while it is declared these have no say.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": Attribute(
                type=STRING,
                default="default",
                on_change="replace",
                validators=(one_of("default"),),
                description="Name of the policy; there is only `default`.",
            ),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )
