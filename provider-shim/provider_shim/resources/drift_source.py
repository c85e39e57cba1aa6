"""`flintlock_drift`: what differs from the intent, for checks, alerts and conditions in a configuration."""

from __future__ import annotations

from typing import Any, ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, Object, SetOf
from provider_shim.framework.validate import each_of
from provider_shim.resources.common import NAME
from provider_shim.resources.sources import ConnectedSource, observed, observed_list, pick

_CLASSES = ("drifted", "unmanaged", "unreachable", "progressing", "in_sync")


class DriftSource(ConnectedSource):
    type_name = "flintlock_drift"
    _FIELD: ClassVar = {
        "pointer": observed("string", "JSON pointer of the field, such as `/spec/power_state`."),
        "desired": observed("string", "Declared value, as text."),
        "observed": observed("string", "Observed value, as text."),
        "since": observed("string", "Since when."),
        "cause": observed("string", "Why, as far as it is known."),
    }
    _ITEM: ClassVar = {
        "class": observed("string", "`drifted`, `unmanaged`, `unreachable`, `progressing` or `in_sync`."),
        "namespace": observed("string", "Namespace of the microVM."),
        "name": observed("string", "Name of the microVM."),
        "uid": observed("string", "Its identity."),
        "host": observed("string", "Host it is on, or was found on."),
    }
    schema = Schema(
        description="What differs from the intent. `unreachable` is no drift: the host cannot be asked.",
        attributes={
            "namespace": Attribute(
                type=STRING, optional=True, validators=(NAME,), description="Only this namespace; unset means all."
            ),
            "classes": Attribute(
                type=SetOf(STRING),
                optional=True,
                validators=(each_of(*_CLASSES),),
                description="Only microVMs of these classes; unset means all but `in_sync`.",
            ),
            "summary": observed("numbers", "Number of microVMs by class, whatever `classes` says."),
            "microvms": observed_list(
                "The microVMs, sorted by namespace and name.",
                {**_ITEM, "fields": observed_list("What differs, field by field.", _FIELD)},
            ),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        chosen = config.get("classes")
        query: dict[str, Any] = {"class": sorted(_CLASSES[:-1] if chosen is None else chosen)}
        if config.get("namespace") is not None:
            query["namespace"] = config["namespace"]
        with self.asking():
            found = self.client.get("/drift", query=query).body
        listed = [self._item(each) for each in found["items"] if chosen is None or each["class"] in chosen]
        return {**config, "summary": found["summary"], "microvms": listed}

    def _item(self, stored: dict[str, Any]) -> Object:
        fields = [{name: _text(each.get(name)) for name in self._FIELD} for each in stored.get("fields") or ()]
        return {**pick(self._ITEM, stored), "fields": fields}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
