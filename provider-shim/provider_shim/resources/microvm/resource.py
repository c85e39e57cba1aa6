"""`flintlock_microvm`: intent and stable ids only. Where it runs and how it feels is in `flintlock_microvms`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from provider_shim.client import ApiError, CancelledError, UnreachableError, segment
from provider_shim.framework.call import Call
from provider_shim.framework.codec import CodecError
from provider_shim.framework.diagnostics import Report, attribute, error
from provider_shim.framework.plan import changed, replacements
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, Object, Value, as_object
from provider_shim.framework.validate import one_of
from provider_shim.log import log
from provider_shim.resources.common import (
    id_attribute,
    name_attribute,
    namespace_attribute,
    timeouts_block,
    uid_attribute,
)
from provider_shim.resources.declared import GONE_CODES, DeclaredResource
from provider_shim.resources.microvm import drift, secrets
from provider_shim.resources.microvm.attributes import INTENT
from provider_shim.resources.microvm.waiting import POLL_S, wait_for, why_not
from provider_shim.resources.problems import Locator, told_to_user
from provider_shim.resources.translate import Translation

_GROUP_LABEL = "flintlock.dev/group"
"""What the control plane gives to members of a group."""


class MicroVMResource(DeclaredResource):
    type_name = "flintlock_microvm"
    label = "microVM"
    collection = "microvms"
    identity: ClassVar = {"namespace": "Namespace of the microVM.", "name": "Name of the microVM."}
    translation = Translation(INTENT, {"driver": "provider"}, frozenset({"placement", "recovery"}))
    schema = Schema(
        description="A microVM. The control plane places it and keeps it as declared; where it runs is "
        "no part of the configuration and never shows in a plan.",
        attributes={
            "id": id_attribute("NAMESPACE/NAME"),
            "uid": uid_attribute(),
            "name": name_attribute("microVM"),
            "namespace": namespace_attribute(),
            **INTENT,
            **secrets.WRITE_ONLY,
            "wait_for": Attribute(
                type=STRING,
                default="running",
                validators=(one_of("running", "ready", "none"),),
                description="What create and update wait for: `running`: its process runs; `ready`: the guest said so; "
                "`none`: nothing. Known to Terraform alone.",
            ),
        },
        blocks={"timeouts": timeouts_block("create", "update", "delete")},
    )

    # -- naming -------------------------------------------------------------------------------------------------------

    def path(self, state: Mapping[str, Value]) -> str:
        return f"/namespaces/{segment(state['namespace'])}/microvms/{segment(state['name'])}"

    def show(self, state: Mapping[str, Value]) -> str:
        return f"{state['namespace']}/{state['name']}"

    def parse_id(self, import_id: str) -> dict[str, str]:
        namespace, _, name = import_id.partition("/")
        if not namespace or not name or "/" in name:
            raise error(f'"{import_id}" names no microVM', "The import id of a flintlock_microvm is NAMESPACE/NAME.")
        return {"namespace": namespace, "name": name}

    # -- planning -----------------------------------------------------------------------------------------------------

    def validate(self, config: Mapping[str, Value], report: Report) -> None:
        for name, volume in _volumes(config):
            sources = [volume.get(source) for source in ("container_source", "virtiofs_source")]
            if all(source is not None for source in sources):
                report.error(
                    "A volume has two sources",
                    "Give container_source or virtiofs_source, not both.",
                    attribute(name),
                )
        secrets.validate(config, report)
        recovery = as_object(config.get("recovery")) or {}
        if recovery.get("on_host_failure") == "restart_elsewhere" and recovery.get("on_detach") == "keep":
            report.error(
                "What is kept cannot be restarted elsewhere",
                "on_detach = keep lets it run on where its host is cut off, so it might run twice: choose pause, stop "
                "or shutdown, or on_host_failure = never.",
                attribute("recovery", "on_detach"),
            )

    def modify_plan(self, call: Call, prior: Object | None, planned: Object, config: Object) -> Object:
        if config.get("namespace") is None:
            planned["namespace"] = self._connection.namespace
        if prior is not None:
            self._warn_of_consequences(call.report, prior, planned)
        return super().modify_plan(call, prior, planned, config)

    def _warn_of_consequences(self, report: Report, prior: Object, planned: Object) -> None:
        shown = self.show(prior)
        if replacements(self.schema, prior, planned):
            if any(volume.get("kind") == "ephemeral" for _, volume in _volumes(prior)):
                report.warn(
                    f"microVM {shown} will be replaced, and its ephemeral volumes with it",
                    "Ephemeral volumes start from their images again; what the guest wrote to them is lost.",
                )
            return
        attributes = self.schema.attributes
        names = [name for name in changed(self.schema, prior, planned) if name in attributes]
        restarting = [name for name in names if attributes[name].on_change == "restart"]
        if restarting and planned.get("power_state") != "stopped":
            report.warn(
                f"Applying will restart the guest of microVM {shown}",
                f"Changing {', '.join(restarting)} stops the guest and starts it again with its volumes.",
                attribute(restarting[0]),
            )

    # -- reading ------------------------------------------------------------------------------------------------------

    def fetch(self, state: Mapping[str, Value], *, deadline: float | None = None) -> dict[str, Any] | None:
        shared = None
        if deadline is None:  # a refresh, which is one of many
            shared = self._connection.reads.microvm(str(state["namespace"]), str(state["name"]))
        return shared or super().fetch(state, deadline=deadline)

    def observed(self, call: Call, stored: dict[str, Any]) -> dict[str, Any]:
        drift.warn_of_silence(call.report, self.show(stored), stored)
        fields = drift.drifted_fields(stored)
        call.private.pop(drift.PRIVATE_KEY, None)
        if not fields:
            return stored
        shown = drift.with_observed(stored, fields)
        if not self._fits(shown):
            log("warn", "drift was observed in a shape that this provider does not know", microvm=stored["name"])
            shown = stored
        drift.warn(call.report, self.show(stored), fields, self.translation)
        call.private[drift.PRIVATE_KEY] = [each["pointer"] for each in fields]
        return shown

    def state_of(self, call: Call, prior: Object, stored: dict[str, Any]) -> Object:
        return super().state_of(call, *secrets.seen(call, prior, stored))

    def _fits(self, shown: dict[str, Any]) -> bool:
        try:
            self.schema.codec.encode_msgpack(self.translation.merge({}, shown))
        except (CodecError, AttributeError, TypeError):
            return False
        return True

    def is_adoptable(self, stored: Mapping[str, Any]) -> bool:
        return _GROUP_LABEL not in stored["labels"]

    def local_values(self, state: Object) -> Object:
        imported = state.get("uid") is None
        wait = self.schema.attributes["wait_for"].default if imported else state.get("wait_for")
        return {"timeouts": state.get("timeouts"), "wait_for": wait, **secrets.local_values(state)}

    # -- declaring ----------------------------------------------------------------------------------------------------

    def body(self, call: Call, prior: Object | None, planned: Object) -> dict[str, Any]:
        return secrets.with_write_only(call, prior, planned, super().body(call, prior, planned))

    def locator(self, planned: Object) -> Locator:
        return secrets.locator(planned, self.translation)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def settle(self, call: Call, state: Object, stored: dict[str, Any], deadline: float, *, created: bool) -> None:
        shown = bool(call.private.pop(drift.PRIVATE_KEY, None))
        repaired = not created and (shown or bool(drift.drifted_fields(stored)))
        if repaired:
            with told_to_user(f"repair microVM {self.show(state)}", self.translation):
                self.client.send("POST", f"{self.path(state)}/actions/repair", body={}, deadline=deadline)
        secrets.keep_digests(call, stored)
        # The intent is stored: from here on, state says what was declared.
        if not repaired:
            call.keep(state)
        targets = _targets(state, repaired=repaired)
        for target in targets:
            self._wait(call, state, stored, target, deadline, created=created)
        call.keep(state)

    def _wait(
        self, call: Call, state: Object, stored: Mapping[str, Any], target: str, deadline: float, *, created: bool
    ) -> None:
        shown = self.show(state)
        operation = "create" if created else "update"
        untaint = (
            " Terraform marks it tainted and would replace it; if it comes up after all, `terraform untaint` keeps it."
            if created
            else ""
        )
        try:
            waited = wait_for(self.client, self.path(state), target, stored["generation"], deadline)
        except CancelledError:
            call.report.warn(
                f"Interrupted while waiting for microVM {shown} to be {target}",
                "It is declared, and the control plane goes on with it.",
            )
            return
        except UnreachableError as problem:
            raise error(
                f"Lost the control plane while waiting for microVM {shown} to be {target}",
                f"It is declared. {problem}.{untaint}",
            ) from problem
        except ApiError as refusal:
            if refusal.code in GONE_CODES:
                raise error(
                    f"microVM {shown} was deleted while waiting for it", "Someone else deleted it."
                ) from refusal
            raise error(f"Cannot wait for microVM {shown}", f"{refusal}.{untaint}") from refusal
        if waited.outcome == "failed":
            raise error(f"microVM {shown} failed", f"{why_not(waited.stored)}.")
        if waited.outcome == "timeout":
            raise error(
                f"microVM {shown} is not {target} after {self.timeout_text(state, operation)}",
                f"It is {why_not(waited.stored)}. It stays declared, and the control plane keeps trying; "
                f"timeouts.{operation} sets how long Terraform waits.{untaint}",
            )

    def wait_gone(self, call: Call, prior: Object, deadline: float) -> bool:
        while True:
            slice_s = max(min(POLL_S, deadline - time.monotonic()), 0.0)
            query = {"wait_for": "gone", "wait_s": f"{slice_s:.1f}"}
            try:
                answer = self.client.get(self.path(prior), query=query, deadline=deadline, wait_s=slice_s)
            except ApiError as refusal:
                if refusal.status == 404 and refusal.code in GONE_CODES:
                    return True
                raise
            if answer.body["uid"] != prior.get("uid", answer.body["uid"]):
                return True
            if time.monotonic() >= deadline:
                return False
            log("info", f"waiting for microVM {self.show(prior)} to be gone: {why_not(answer.body)}")


def _targets(state: Object, *, repaired: bool) -> list[str]:
    """What to wait for, one after the other, by the names of the API's long poll."""
    if state.get("wait_for") == "none":
        return []
    power_state = state.get("power_state")
    final = state["wait_for"] if power_state == "running" else str(power_state)
    return ["in_sync", final] if repaired else [final]


def _volumes(config: Mapping[str, Value]) -> list[tuple[str, Object]]:
    """Name of the attribute and value, for every volume that is known."""
    root = ("root_volume", as_object(config.get("root_volume")))
    additional = (as_object(config.get("additional_volumes")) or {}).values()
    found = [root, *(("additional_volumes", as_object(each)) for each in additional)]
    return [(name, volume) for name, volume in found if volume is not None]
