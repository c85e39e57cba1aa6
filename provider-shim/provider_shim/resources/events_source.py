"""`flintlock_events`: what happened lately, for checks, notes in a pipeline and conditions in a configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import attribute, error
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import NUMBER, STRING, Object, SetOf
from provider_shim.framework.validate import between, matches, one_of
from provider_shim.resources.common import NAME
from provider_shim.resources.sources import ConnectedSource, observed, observed_list, pick

_TIME = matches(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)",
    'an RFC 3339 time, such as 2026-11-27T08:00:00Z; timeadd(plantimestamp(), "-1h") is one',
)
_LIMIT = 100


class EventsSource(ConnectedSource):
    type_name = "flintlock_events"
    _EVENT: ClassVar = {
        "id": observed("string", "Its place, `REVISION.NUMBER`; the same at every node."),
        "revision": observed("number", "Revision of the state that it came with."),
        "at": observed("string", "When."),
        "kind": observed("string", "Kind of the object, such as `MicroVM`."),
        "namespace": observed("string", "Namespace of the object."),
        "name": observed("string", "Name of the object."),
        "uid": observed("string", "Identity of the object."),
        "host": observed("string", "Host that it is about, or that the object is or was on."),
        "type": observed("string", "`normal` or `warning`."),
        "reason": observed("string", "What came about, as one word, such as `Placed`, `Drifted` or `Detached`."),
        "message": observed("string", "The same as a sentence."),
        "actor": observed("string", "Whose command it came with: a user, or a part of the control plane."),
    }
    schema = Schema(
        description="What happened lately: placed, running, drifted, lost, moved, and why. The control plane remembers "
        "the newest ten thousand events; `complete` says whether that covers what was asked for.",
        attributes={
            "kind": Attribute(type=STRING, optional=True, description="Only about this kind, such as `MicroVM`."),
            "namespace": Attribute(
                type=STRING, optional=True, validators=(NAME,), description="Only in this namespace; unset means all."
            ),
            "name": Attribute(type=STRING, optional=True, validators=(NAME,), description="Only about this name."),
            "host": Attribute(
                type=STRING,
                optional=True,
                validators=(NAME,),
                description="Only about this host, and what is or was on it.",
            ),
            "reasons": Attribute(type=SetOf(STRING), optional=True, description="Only of these reasons."),
            "type": Attribute(
                type=STRING,
                optional=True,
                validators=(one_of("normal", "warning"),),
                description="`normal` or `warning`; unset means both.",
            ),
            "since": Attribute(type=STRING, optional=True, validators=(_TIME,), description="Only of this time on."),
            "from_revision": Attribute(
                type=NUMBER,
                optional=True,
                validators=(between(0, 2**53),),
                description="Only above this revision of the state.",
            ),
            "limit": Attribute(
                type=NUMBER,
                optional=True,
                validators=(between(1, 5_000),),
                description=f"The newest so many of those that match; {_LIMIT} if unset.",
            ),
            "events": observed_list("The events, the oldest first.", _EVENT),
            "complete": observed(
                "bool", "Whether nothing that was asked for is forgotten already; see `more` for what `limit` cut off."
            ),
            "more": observed("bool", "Whether earlier events match, too, that `limit` left out."),
            "oldest_at": observed("string", "When the oldest event came about that is remembered, of whatever kind."),
        },
    )

    def read(self, call: Call, config: Object) -> Object:
        if config.get("reasons") == []:
            # None of no reasons is asked for; the API would take it for all of them.
            return {**config, "events": [], "complete": True, "more": False, "oldest_at": None}
        query: dict[str, Any] = {"newest": "true", "limit": config.get("limit") or _LIMIT}
        query |= {name: config[name] for name in ("kind", "namespace", "name", "host", "type") if config.get(name)}
        if config.get("reasons"):
            query["reason"] = sorted(config["reasons"])
        if config.get("from_revision") is not None:
            query["from"] = config["from_revision"]
        if config.get("since") is not None:
            query["since"] = _milliseconds(config["since"])
        with self.asking():
            found = self.client.get("/events", query=query).body
        events = [pick(self._EVENT, each) for each in found["items"]]
        return {
            **config,
            "events": events,
            "complete": found["complete"],
            "more": found["more"],
            "oldest_at": found["oldest_at"],
        }


def _milliseconds(text: str) -> int:
    """Since the Unix epoch. Raises ProviderError for a time that no calendar has."""
    try:
        return int(datetime.fromisoformat(text.upper()).timestamp() * 1000)
    except ValueError as problem:
        raise error(f'"{text}" is no time', f"{problem}.", attribute("since")) from problem
