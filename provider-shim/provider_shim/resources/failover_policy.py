"""`flintlock_failover_policy`: when, in what order and how fast microVMs of lost hosts are restarted elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from provider_shim.framework.diagnostics import Report, attribute
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import NUMBER, STRING, Value
from provider_shim.framework.validate import between, one_of
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

_INTENT = {
    "labels": labels_attribute("Labels of the policy."),
    "annotations": annotations_attribute(),
    "restart": Attribute(
        type=STRING,
        default="immediate",
        on_change="live",
        validators=(one_of("immediate", "delayed", "never"),),
        description="`immediate`: as soon as the lost host is fenced; `delayed`: once it has been fenced for `delay_s` "
        "and is not back; `never`: they wait for their host.",
    ),
    "delay_s": Attribute(
        type=NUMBER,
        optional=True,
        on_change="live",
        validators=(between(1, 7 * 24 * 3600),),
        description="Seconds for which a fenced host is waited for; goes with `delayed`, which needs it.",
    ),
    "priority": Attribute(
        type=NUMBER,
        default=0,
        on_change="live",
        validators=(between(-1000, 1000),),
        description="The higher, the earlier; of equal ones, the oldest microVM comes first.",
    ),
    "max_per_minute": Attribute(
        type=NUMBER,
        optional=True,
        on_change="live",
        validators=(between(1, 100_000),),
        description="How many of the policy's microVMs are restarted in any minute; unset means no limit.",
    ),
}


class FailoverPolicyResource(DeclaredResource):
    type_name = "flintlock_failover_policy"
    label = "failover policy"
    collection = "failoverpolicies"
    identity: ClassVar = {"name": "Name of the policy."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="When, in what order and how fast the microVMs whose `recovery.policy` names it are restarted on "
        "other hosts when theirs is lost. Whether they may be, and what a host does when it is cut off, stays in the "
        "`recovery` of each.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("policy"),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )

    def validate(self, config: Mapping[str, Value], report: Report) -> None:
        delayed = config.get("restart") == "delayed"
        if delayed and config.get("delay_s") is None:
            report.error("How long?", "restart = delayed needs delay_s.", attribute("delay_s"))
