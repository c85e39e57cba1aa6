"""From a configuration and the prior state to what will be: pure, so that the same plan comes out every time.

What the configuration says wins. Where it says nothing, a default is filled in; else a computed value is kept from the
prior state if it is known not to change (`keep_state`) or if nothing else changes, and is unknown otherwise. A plan
that differs nowhere is exactly the prior state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provider_shim.framework.diagnostics import Path, attribute
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import UNKNOWN, UNKNOWN_NOT_NULL, Object, SetOf, Value, as_list, as_object


def propose(schema: Schema, prior: Mapping[str, Value] | None, config: Mapping[str, Value]) -> Object:
    """The planned state; `prior` is None when the resource is to be created."""
    planned = _attributes(schema.attributes, prior, config)
    for name, block in schema.blocks.items():
        planned[name] = _inside(block.nested, None if prior is None else prior.get(name), config.get(name))
    if prior is not None and planned != prior:
        for name, each in schema.attributes.items():
            if each.computed and each.default is None and not each.keep_state and config.get(name) is None:
                planned[name] = UNKNOWN
    return planned


def changed(schema: Schema, prior: Mapping[str, Value], planned: Mapping[str, Value]) -> list[str]:
    """Names of the top-level attributes and blocks that differ, in the schema's order."""
    return [name for name in (*schema.attributes, *schema.blocks) if prior.get(name) != planned.get(name)]


def replacements(schema: Schema, prior: Mapping[str, Value], planned: Mapping[str, Value]) -> list[Path]:
    """The attributes whose change makes another thing of it."""
    return [
        attribute(name)
        for name in changed(schema, prior, planned)
        if name in schema.attributes and schema.attributes[name].on_change == "replace"
    ]


def _attributes(
    attributes: Mapping[str, Attribute], prior: Mapping[str, Value] | None, config: Mapping[str, Value]
) -> Object:
    return {
        name: _attribute(each, None if prior is None else prior.get(name), config.get(name), fresh=prior is None)
        for name, each in attributes.items()
    }


def refined(schema: Schema, planned: Object) -> Object:
    """The plan as it is sent: what is unknown and will certainly be there is said to be so."""
    return {
        name: UNKNOWN_NOT_NULL
        if value is UNKNOWN and name in schema.attributes and schema.attributes[name].never_null
        else value
        for name, value in planned.items()
    }


def _attribute(each: Attribute, prior: Any, config: Any, *, fresh: bool) -> Value:
    if each.write_only:
        return None
    if config is None:
        if each.default is not None:
            return each.default
        if each.computed:
            return UNKNOWN if fresh else prior
        return None
    if isinstance(each.type, Nested):
        return _inside(each.type, prior, config)
    if isinstance(each.type, SetOf) and _same_set(prior, config):
        return prior
    return config


def _inside(nested: Nested, prior: Any, config: Any) -> Value:
    if config is None or config is UNKNOWN:
        return config
    match nested.mode:
        case "single":
            return _attributes(nested.attributes, as_object(prior), config)
        case "map":
            before = as_object(prior) or {}
            return {key: _element(nested, before.get(key), inner) for key, inner in config.items()}
        case "list" | "set":
            earlier = as_list(prior) or []
            return [_element(nested, earlier[i] if i < len(earlier) else None, inner) for i, inner in enumerate(config)]


def _element(nested: Nested, prior: Any, config: Any) -> Value:
    inner = as_object(config)
    return config if inner is None else _attributes(nested.attributes, as_object(prior), inner)


def _same_set(left: Any, right: Any) -> bool:
    """Whether two lists hold the same elements in any order."""
    before, after = as_list(left), as_list(right)
    if before is None or after is None:
        return False
    return len(before) == len(after) and all(item in after for item in before)
