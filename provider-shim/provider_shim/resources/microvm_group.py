"""`flintlock_microvm_group`: so many microVMs of one template. The control plane makes, rolls and ends the members."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from provider_shim.client import CancelledError, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import error
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import NUMBER, STRING, Object, Value
from provider_shim.framework.validate import between, one_of
from provider_shim.log import log
from provider_shim.resources.common import (
    annotations_attribute,
    id_attribute,
    labels_attribute,
    name_attribute,
    namespace_attribute,
    spread_fields,
    timeouts_block,
    uid_attribute,
)
from provider_shim.resources.declared import DeclaredResource
from provider_shim.resources.microvm.attributes import INTENT as MICROVM
from provider_shim.resources.problems import told_to_user
from provider_shim.resources.translate import Translation

_POLL_S = 1.0
_OF_ONE = ("labels", "annotations", "power_state", "sensitive_metadata")
"""What a microVM has that no template has."""


def _without(attribute: Attribute, *names: str) -> Attribute:
    """What may belong to one microVM alone is no part of what many have."""
    assert isinstance(attribute.type, Nested)
    kept = {name: each for name, each in attribute.type.attributes.items() if name not in names}
    return dataclasses.replace(attribute, type=Nested(attribute.type.mode, kept))


def _template() -> Nested:
    attributes = {
        **{name: each for name, each in MICROVM.items() if name not in _OF_ONE},
        "interfaces": _without(MICROVM["interfaces"], "guest_mac", "address"),
        "placement": _without(MICROVM["placement"], "host"),
    }
    driver = attributes.pop("driver")
    attributes["provider"] = dataclasses.replace(driver, description=driver.description.partition(" The API")[0])
    # A group is changed in place, whatever becomes of its members.
    return Nested(
        "single", {name: dataclasses.replace(each, on_change="live") for name, each in sorted(attributes.items())}
    )


_SPREAD = Nested("single", spread_fields("members"))
_ROLLOUT = Nested(
    "single",
    {
        "max_surge": Attribute(
            type=NUMBER,
            default=1,
            validators=(between(0, 1_000),),
            description="So many members above `replicas` may exist while others are replaced.",
        ),
        "max_unavailable": Attribute(
            type=NUMBER,
            default=0,
            validators=(between(0, 1_000),),
            description="So many members below `replicas` may be ready because others are replaced.",
        ),
        "ready_deadline_s": Attribute(
            type=NUMBER,
            default=600,
            validators=(between(1, 86_400),),
            description="While a member of the present template is not ready so long after it was declared, no ready "
            "one is given up.",
        ),
    },
)
INTENT = {
    "labels": labels_attribute("Labels of the group and of its members; live."),
    "annotations": annotations_attribute(),
    "replicas": Attribute(
        type=NUMBER, required=True, validators=(between(0, 1_000),), description="How many members there are to be."
    ),
    "template": Attribute(
        type=_template(),
        required=True,
        description="What each member is. Members are replaced when anything changes but `drift_policy`, `placement` "
        "and `recovery`.",
    ),
    "spread": Attribute(
        type=_SPREAD,
        optional=True,
        description="Keeps the members apart; excludes `template.placement.spread`. With as many values of the label "
        "as members, a member above `replicas` has no place: use `max_surge = 0`.",
    ),
    "rollout": Attribute(type=_ROLLOUT, optional=True, description="How the members are brought to another template."),
}


class MicroVMGroupResource(DeclaredResource):
    type_name = "flintlock_microvm_group"
    label = "group"
    collection = "microvmgroups"
    identity: ClassVar = {"namespace": "Namespace of the group.", "name": "Name of the group."}
    translation = Translation(INTENT, unset_is_empty=frozenset({"rollout", "placement", "recovery"}))
    schema = Schema(
        description="So many microVMs of one template. The control plane adds and ends members, and replaces them "
        "when the template changes; a template whose members do not get ready stops with most of the old ones left.",
        attributes={
            "id": id_attribute("NAMESPACE/NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("group"),
            "namespace": namespace_attribute(),
            **INTENT,
            "wait_for": Attribute(
                type=STRING,
                default="ready",
                validators=(one_of("ready", "none"),),
                description="What create and update wait for: `ready`: every member is at the template and ready; "
                "`none`: nothing. Known to Terraform alone.",
            ),
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )

    # -- naming -------------------------------------------------------------------------------------------------------

    def path(self, state: Mapping[str, Value]) -> str:
        return f"/namespaces/{segment(state['namespace'])}/microvmgroups/{segment(state['name'])}"

    def show(self, state: Mapping[str, Value]) -> str:
        return f"{state['namespace']}/{state['name']}"

    def parse_id(self, import_id: str) -> dict[str, str]:
        namespace, _, name = import_id.partition("/")
        if not namespace or not name or "/" in name:
            raise error(f'"{import_id}" names no group', f"The import id of a {self.type_name} is NAMESPACE/NAME.")
        return {"namespace": namespace, "name": name}

    # -- planning and reading -----------------------------------------------------------------------------------------

    def modify_plan(self, call: Call, prior: Object | None, planned: Object, config: Object) -> Object:
        if config.get("namespace") is None:
            planned["namespace"] = self._connection.namespace
        return super().modify_plan(call, prior, planned, config)

    def local_values(self, state: Object) -> Object:
        imported = state.get("uid") is None
        wait = self.schema.attributes["wait_for"].default if imported else state.get("wait_for")
        return {"timeouts": state.get("timeouts"), "wait_for": wait}

    # -- waiting ------------------------------------------------------------------------------------------------------

    def settle(self, call: Call, state: Object, stored: dict[str, Any], deadline: float, *, created: bool) -> None:
        # The intent is stored: from here on, state says what was declared.
        call.keep(state)
        if state.get("wait_for") == "none":
            return
        shown, told = self.show(state), ""
        operation = "create" if created else "update"
        while True:
            with told_to_user(f"wait for group {shown}", self.translation):
                group = self.client.get(self.path(state), deadline=deadline).body
            if group["generation"] > stored["generation"]:
                call.report.warn(f"group {shown} was changed by someone else meanwhile", "It is not waited for.")
                return
            if group["status"]["complete"]:
                return
            progress, paused = (_condition(group, each) for each in ("Progressing", "Paused"))
            if paused["status"] == "true":
                raise error(
                    f"group {shown} is paused: {paused['reason']}",
                    f"{paused['message']}. It stays declared; apply a template that gets ready, or the one before.",
                )
            if progress["message"] != told:
                told = progress["message"]
                log("info", f"waiting for group {shown}: {told}")
            if time.monotonic() >= deadline:
                raise error(
                    f"group {shown} is not complete after {self.timeout_text(state, operation)}",
                    f"{told}. It stays declared, and the control plane goes on; timeouts.{operation} sets how long "
                    "Terraform waits.",
                )
            if call.cancel.wait(_POLL_S):
                raise CancelledError("Terraform was interrupted")


def _condition(group: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return next(each for each in group["status"]["conditions"] if each["type"] == type_)
