"""`flintlock_host`: admits an agent by name and labels it.

An agent that nobody declared stays `pending` and gets no microVM. A host may be declared before its agent is there;
nothing waits for it. Whether the machine is there, and how full it is, is observation and lives in the data source
`flintlock_hosts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import BOOL, NUMBER, STRING
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

_EVACUATION = {
    "max_parallel": Attribute(
        type=NUMBER, default=1, validators=(between(1, 100),), description="MicroVMs that are on their way at once."
    ),
    "allow_data_loss": Attribute(
        type=BOOL,
        default=False,
        description="Also move microVMs with local volumes whose `recovery.allow_data_loss` is true, without their"
        " data.",
    ),
}

_INTENT = {
    "labels": labels_attribute("Labels that placement selects and spreads by, such as `rack` or `zone`."),
    "annotations": annotations_attribute(),
    "schedulable": Attribute(
        type=BOOL,
        default=True,
        on_change="live",
        description="`false` cordons the host: what runs stays, nothing new comes.",
    ),
    "mode": Attribute(
        type=STRING,
        optional=True,
        computed=True,
        keep_state=True,
        on_change="live",
        validators=(one_of("active", "drain", "maintenance"),),
        description="`active`; `drain`: nothing new comes, and what may run elsewhere is moved there; or `maintenance`:"
        " as `drain`, and what cannot be moved is shut down meanwhile. Unset leaves it to `flintctl host drain` and"
        " `flintctl host maintenance`.",
    ),
    "evacuation": Attribute(
        type=Nested("single", _EVACUATION),
        optional=True,
        computed=True,
        keep_state=True,
        on_change="live",
        description="How the host is emptied in the modes `drain` and `maintenance`.",
    ),
}


_LOST = ("suspect", "detached", "fenced")


class HostResource(DeclaredResource):
    type_name = "flintlock_host"
    label = "host"
    collection = "hosts"
    identity: ClassVar = {"name": "Name of the host, as its agent gives it."}
    translation = Translation(_INTENT)
    schema = Schema(
        description="Admits the agent of that name to the cluster. Deletion is refused while the host holds microVMs.",
        attributes={
            "id": id_attribute("NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("host; its agent must use the same"),
            **_INTENT,
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )

    def is_adoptable(self, stored: Mapping[str, Any]) -> bool:
        return bool(stored["declared"])

    def observed(self, call: Call, stored: dict[str, Any]) -> dict[str, Any]:
        status: dict[str, Any] = stored.get("status") or {}
        if status.get("phase") in _LOST:
            told = next(
                (each["message"] for each in status.get("conditions") or () if each.get("type") == "Connected"), ""
            )
            call.report.warn(
                f"Host {self.show(stored)} is not heard: it is {status['phase']}",
                f"It stays in state as it was declared{f': {told}' if told else ''}.",
            )
        return stored
