"""`flintlock_placement`: where microVMs and groups would go, as the control plane would place them now.

Each is rehearsed by the API (`?dry_run=true`), for itself: nothing is declared, and of two that both fit, both may not.
What would be refused as things are is an answer; what could never be declared is an error on its line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from provider_shim.client import ApiError, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import AttributeName, MapKey, Path
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import STRING, Object
from provider_shim.resources.common import NAME, NAME_KEYS
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.microvm_group import MicroVMGroupResource
from provider_shim.resources.problems import told_to_user
from provider_shim.resources.rehearsal import AS_THINGS_ARE
from provider_shim.resources.sources import ConnectedSource, observed, observed_list
from provider_shim.resources.translate import Translation

_NOT_YET = frozenset({"namespace_not_found", "policy_not_found"})
"""Of what the same apply may make."""
_UNASKED = ("annotations", "sensitive_metadata")
"""What decides nothing of a placement."""


def _asked(translation: Translation, description: str) -> Attribute:
    attributes = {
        # Nothing is changed here, so nothing is said of what a change would do.
        name: dataclasses.replace(each, on_change="live")
        for name, each in translation.attributes.items()
        if name not in _UNASKED
    }
    return Attribute(
        type=Nested("map", dict(sorted(attributes.items()))),
        optional=True,
        validators=(NAME_KEYS,),
        description=description,
    )


class PlacementSource(ConnectedSource):
    type_name = "flintlock_placement"
    _HOST: ClassVar = {
        "host": observed("string", "Name of the host."),
        "members": observed("number", "How many would go there; of a microVM, 1."),
    }
    _REFUSAL: ClassVar = {
        "host": observed("string", "Name of the host."),
        "reason": observed("string", "Why it would not take it."),
    }
    _PLACEMENT: ClassVar = {
        "kind": observed("string", "`MicroVM` or `MicroVMGroup`."),
        "name": observed("string", "Its key in `microvms` or `groups`."),
        "outcome": observed("string", "`create`, `update`, `replace`, `none`, or `refused` as things are."),
        "fits": observed("bool", "Whether nothing is refused, and some host takes all that was looked at."),
        "hosts": observed_list("Where it would go; empty for what is placed already and stays there.", _HOST),
        "unplaced": observed("number", "How many no host would take."),
        "looked_at": observed("number", "How many were looked at: of a group's missing members, the first 64."),
        "missing": observed("number", "How many would have to be placed."),
        "reason": observed("string", "Why so, or why not."),
        "refusals": observed_list("The hosts that would not take it, as far as they were asked.", _REFUSAL),
    }
    schema = Schema(
        description="Where microVMs and groups would go if they were declared now. Each is asked about by itself, "
        "nothing is declared, and a moment later the answer may be another.",
        attributes={
            "namespace": Attribute(
                type=STRING,
                optional=True,
                validators=(NAME,),
                description="Namespace they would live in; the provider's `namespace` if unset.",
            ),
            "microvms": _asked(
                MicroVMResource.translation, "MicroVMs by name, as a `flintlock_microvm` would declare them."
            ),
            "groups": _asked(
                MicroVMGroupResource.translation, "Groups by name, as a `flintlock_microvm_group` would declare them."
            ),
            "placements": observed_list("What would become of each, microVMs first, in order of name.", _PLACEMENT),
            "fits": observed("bool", "Whether each of them fits by itself."),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        namespace = str(config.get("namespace") or self._connection.namespace)
        placements: list[Object] = []
        for argument, kind, resource in (
            ("microvms", "MicroVM", MicroVMResource),
            ("groups", "MicroVMGroup", MicroVMGroupResource),
        ):
            asked: Mapping[str, Any] = config.get(argument) or {}
            for name in sorted(asked):
                path = f"/namespaces/{segment(namespace)}/{resource.collection}/{segment(name)}"
                at = _At(argument, name, resource.translation)
                found = self._rehearsed(path, resource.translation.body(asked[name]), f"{resource.label} {name}", at)
                placements.append({"kind": kind, "name": name, **found})
        return {**config, "placements": placements, "fits": all(each["fits"] for each in placements)}

    def _rehearsed(self, path: str, body: Mapping[str, Any], what: str, at: _At) -> Object:
        with told_to_user(f"preview the placement of {what}", at):
            try:
                return _placement(self.client.send("PUT", path, body=body, query={"dry_run": "true"}).body)
            except ApiError as refusal:
                if refusal.code not in AS_THINGS_ARE | _NOT_YET:
                    raise
                return _nowhere("refused", f"{refusal.detail or refusal.title} [{refusal.code}]")


@dataclasses.dataclass(frozen=True, slots=True)
class _At:
    """Finds the attribute inside one key of `microvms` or `groups`."""

    argument: str
    name: str
    translation: Translation

    def path(self, pointer: str) -> Path:
        return (AttributeName(self.argument), MapKey(self.name), *self.translation.path(pointer))


def _nowhere(outcome: str, reason: str | None, *, fits: bool = False) -> Object:
    nothing: Object = {"hosts": [], "unplaced": 0, "looked_at": 0, "missing": 0, "refusals": []}
    return {**nothing, "outcome": outcome, "fits": fits, "reason": reason}


def _placement(answer: Mapping[str, Any]) -> Object:
    """From what the API says to a rehearsal."""
    placement, members = answer.get("placement"), answer.get("members")
    if members is not None:
        return _of_members(answer["outcome"], members)
    if placement is None:
        return _nowhere(answer["outcome"], "it is placed, or need not be", fits=True)
    host = placement["host"]
    return {
        "outcome": answer["outcome"],
        "fits": host is not None,
        "hosts": [] if host is None else [{"host": host, "members": 1}],
        "unplaced": int(host is None),
        "looked_at": 1,
        "missing": 1,
        "reason": placement["reason"],
        "refusals": _refusals(placement["bids"]),
    }


def _of_members(outcome: str, members: Mapping[str, Any]) -> Object:
    stopped = members["stopped"]
    return {
        "outcome": outcome,
        "fits": stopped is None and not members["unplaced"],
        "hosts": members["hosts"],
        "unplaced": members["unplaced"],
        "looked_at": members["looked_at"],
        "missing": members["missing"],
        "reason": f"{stopped['message']} [{stopped['reason']}]" if stopped is not None else members["reason"],
        "refusals": _refusals(members["bids"]),
    }


def _refusals(bids: list[dict[str, Any]]) -> list[Object]:
    return [{"host": each["host"], "reason": each["refused"]} for each in bids if each.get("refused")]
