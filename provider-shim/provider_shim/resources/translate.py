"""Between what a user writes and what the API stores.

Names and shapes are the same on both sides but for a few renamed fields, so one walk beside the schema serves all
resources. What the user left out is left out of the body, and the API fills in its defaults. Reading back, a value
that means the same as what the state already says is kept as the user wrote it (null against empty, a default against
nothing), so that a plan after an apply is empty; where it means something else, the API's value is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provider_shim.framework.diagnostics import AttributeName, ListIndex, MapKey, Path
from provider_shim.framework.schema import Attribute, Nested
from provider_shim.framework.types import UNKNOWN, ListOf, MapOf, SetOf, Value

BESIDE_SPEC = ("labels", "annotations", "sensitive_metadata")
"""Attributes that the API keeps beside `spec`."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The attributes of a resource that make up its intent."""

    attributes: Mapping[str, Attribute]
    renames: Mapping[str, str] = field(default_factory=dict[str, str])
    """Attribute name -> API name, at the top of the spec."""
    unset_is_empty: frozenset[str] = frozenset()
    """Objects, at any depth, that the API always has: leaving one out is the same as writing it without attributes."""

    def body(self, state: Mapping[str, Value]) -> dict[str, Any]:
        """The PUT body of a state: labels, annotations and spec, without what is null."""
        body: dict[str, Any] = {}
        spec: dict[str, Any] = {}
        for name, each in self.attributes.items():
            value = _outgoing(each, _known(state.get(name)))
            if value is None:
                continue
            (body if name in BESIDE_SPEC else spec)[self.renames.get(name, name)] = value
        body["spec"] = spec
        return body

    def merge(self, prior: Mapping[str, Value], stored: Mapping[str, Any]) -> dict[str, Value]:
        """The state's intent attributes, from the API's object; `prior` is how the user last wrote them."""
        spec: Mapping[str, Any] = stored.get("spec") or {}
        merged: dict[str, Value] = {}
        for name, each in self.attributes.items():
            source = stored if name in BESIDE_SPEC else spec
            merged[name] = self._merge_named(
                name, each, _known(prior.get(name)), source.get(self.renames.get(name, name))
            )
        return merged

    def _merge_named(self, name: str, each: Attribute, prior: Any, stored: Any) -> Value:
        if name in self.unset_is_empty and prior is None and _normal(each, stored or {}) == _normal(each, {}):
            return None
        return self._merge(each, prior, stored)

    def _merge(self, each: Attribute, prior: Any, stored: Any) -> Value:
        if prior is not None and _normal(each, prior) == _normal(each, stored):
            return prior
        if isinstance(each.type, Nested):
            return self._merge_nested(each.type, prior, stored)
        if stored is None:
            return each.default
        if prior is None and isinstance(each.type, MapOf | ListOf | SetOf) and not stored:
            return None
        return stored

    def _merge_nested(self, nested: Nested, prior: Any, stored: Any) -> Value:
        if stored is None or (not stored and prior is None and nested.mode != "single"):
            return None
        match nested.mode:
            case "single":
                return self._merge_object(nested, prior, stored)
            case "map":
                before: Mapping[str, Any] = prior or {}
                return {key: self._merge_object(nested, before.get(key), inner) for key, inner in stored.items()}
            case "list" | "set":
                earlier: list[Any] = prior or []
                return [
                    self._merge_object(nested, earlier[i] if i < len(earlier) else None, inner)
                    for i, inner in enumerate(stored)
                ]

    def _merge_object(self, nested: Nested, prior: Any, stored: Any) -> Value:
        before: Mapping[str, Any] = prior or {}
        return {
            name: self._merge_named(name, each, before.get(name), stored.get(name))
            for name, each in nested.attributes.items()
        }

    def path(self, pointer: str) -> Path:
        """The attribute that a JSON pointer into a body is about; as far as it can be followed, else empty."""
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        if parts and parts[0] == "spec":
            parts = parts[1:]
        if not parts:
            return ()
        back = {api: name for name, api in self.renames.items()}
        name = back.get(parts[0], parts[0])
        each = self.attributes.get(name)
        if each is None:
            return (AttributeName(name),) if name in ("name", "namespace") else ()
        return (AttributeName(name), *_follow(each, parts[1:]))


def _known(value: Value) -> Value:
    """A computed value that nobody has chosen yet is for the API to choose, as one that was left out."""
    return None if value is UNKNOWN else value


def _follow(each: Attribute, parts: list[str]) -> Path:
    if not parts:
        return ()
    head, rest = parts[0], parts[1:]
    if isinstance(each.type, Nested):
        match each.type.mode:
            case "single":
                inner = each.type.attributes.get(head)
                return () if inner is None else (AttributeName(head), *_follow(inner, rest))
            case "map":
                return (MapKey(head), *_follow_object(each.type, rest))
            case "list":
                return (ListIndex(int(head)), *_follow_object(each.type, rest)) if head.isdecimal() else ()
            case "set":
                return ()
    if isinstance(each.type, MapOf):
        return (MapKey(head),)
    if isinstance(each.type, ListOf) and head.isdecimal():
        return (ListIndex(int(head)),)
    return ()


def _follow_object(nested: Nested, parts: list[str]) -> Path:
    inner = nested.attributes.get(parts[0]) if parts else None
    return () if inner is None else (AttributeName(parts[0]), *_follow(inner, parts[1:]))


def _outgoing(each: Attribute, value: Any) -> Any:
    if value is None or not isinstance(each.type, Nested):
        return value
    match each.type.mode:
        case "single":
            return _outgoing_object(each.type, value)
        case "map":
            table: dict[str, Any] = value
            return {key: _outgoing_object(each.type, inner) for key, inner in table.items()}
        case "list" | "set":
            items: list[Any] = value
            return [_outgoing_object(each.type, inner) for inner in items]


def _outgoing_object(nested: Nested, value: Any) -> dict[str, Any]:
    sent = {name: _outgoing(each, value.get(name)) for name, each in nested.attributes.items()}
    return {name: inner for name, inner in sent.items() if inner is not None}


def _normal(each: Attribute, value: Any) -> Any:
    """A form in which equal intents are equal: defaults filled in, empty collections for missing ones."""
    if not isinstance(each.type, Nested):
        if value is None and each.default is None:
            return {} if isinstance(each.type, MapOf) else [] if isinstance(each.type, ListOf | SetOf) else None
        return each.default if value is None else value
    match each.type.mode:
        case "single":
            return None if value is None else _normal_object(each.type, value)
        case "map":
            table: dict[str, Any] = value or {}
            return {key: _normal_object(each.type, inner) for key, inner in table.items()}
        case "list" | "set":
            items: list[Any] = value or []
            return [_normal_object(each.type, inner) for inner in items]


def _normal_object(nested: Nested, value: Any) -> dict[str, Any]:
    return {name: _normal(each, value.get(name)) for name, each in nested.attributes.items()}
