"""One function per thing that Terraform asks of a resource, over plain values.

Each catches `ProviderError` only: what it raised is told to the user, and the state it kept is saved. Anything else
is a bug of the provider and is reported as such by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provider_shim.framework import plan as planning
from provider_shim.framework.call import Call
from provider_shim.framework.codec import CodecError
from provider_shim.framework.diagnostics import Path, ProviderError, Report, error
from provider_shim.framework.resource import Resource
from provider_shim.framework.schema import Attribute, Nested, Schema
from provider_shim.framework.types import Object, Value, as_list, as_object, without_unknowns
from provider_shim.framework.validate import check


@dataclass(frozen=True, slots=True)
class Plan:
    planned: Object | None
    replace: list[Path]


def validate(resource: Resource, config: Object, report: Report) -> None:
    report.extend(check(resource.schema, config))
    resource.validate(config, report)


def plan(resource: Resource, call: Call, prior: Object | None, config: Object | None) -> Plan:
    if config is None:
        return Plan(None, [])
    planned = planning.propose(resource.schema, prior, config)
    try:
        planned = resource.modify_plan(call, prior, planned, config)
    except ProviderError as problem:
        call.report.extend(problem.diagnostics)
    replace = [] if prior is None else planning.replacements(resource.schema, prior, planned)
    return Plan(planned, replace)


def apply(resource: Resource, call: Call, prior: Object | None, planned: Object | None) -> Object | None:
    """The new state; on failure what was kept, else what was there before."""
    call.kept = prior
    try:
        if planned is None:
            assert prior is not None
            resource.delete(call, prior)
            return None
        if prior is None:
            return without_unknowns(resource.create(call, planned))
        return without_unknowns(resource.update(call, prior, planned))
    except ProviderError as problem:
        call.report.extend(problem.diagnostics)
        return without_unknowns(call.kept)


def read(resource: Resource, call: Call, state: Object) -> Object | None:
    try:
        return resource.read(call, state)
    except ProviderError as problem:
        call.report.extend(problem.diagnostics)
        return state


def import_state(resource: Resource, call: Call, import_id: str, identity: dict[str, str] | None) -> Object | None:
    try:
        return resource.imported(identity if identity is not None else resource.parse_id(import_id))
    except ProviderError as problem:
        call.report.extend(problem.diagnostics)
        return None


def upgrade_state(resource: Resource, version: int, raw_json: bytes) -> Object:
    """Stored state of any earlier version in today's shape: what is missing gets its default, what is no more is
    dropped.
    """
    if version > resource.schema.version:
        raise error(
            f"State of {resource.type_name} was written by a newer provider",
            f"It has schema version {version}; this provider knows up to {resource.schema.version}. Use the newer one.",
        )
    raw = _parse_object(raw_json)
    return _fit(resource, resource.upgrade(version, raw))


def upgrade_identity(resource: Resource, raw_json: bytes) -> dict[str, str]:
    raw = _parse_object(raw_json)
    missing = [name for name in resource.identity if not isinstance(raw.get(name), str)]
    if missing:
        raise error(f"Stored identity of {resource.type_name} has no {missing[0]}", "Import the object again.")
    return {name: raw[name] for name in resource.identity}


def move_state(resource: Resource, source_type: str, source_provider: str, raw_json: bytes) -> Object:
    raw = _parse_object(raw_json)
    if source_type == resource.type_name:
        return _fit(resource, raw)
    return _fit(resource, resource.move(source_type, source_provider, raw))


def config_from_state(schema: Schema, state: Object) -> Object:
    """What a user would write to get this state: without computed values."""
    config: Object = {
        name: state.get(name) if each.required or each.optional else None for name, each in schema.attributes.items()
    }
    config.update({name: state.get(name) for name in schema.blocks})
    return config


def _parse_object(raw_json: bytes) -> dict[str, Any]:
    try:
        raw: Any = json.loads(raw_json)
    except ValueError as problem:
        raise error("Stored state is not JSON", str(problem)) from problem
    table = as_object(raw)
    if table is None:
        raise error("Stored state is not an object", f"It is a {type(raw).__name__}.")
    return table


def _fit(resource: Resource, raw: dict[str, Any]) -> Object:
    try:
        return resource.schema.codec.decode_json(_prune(resource.schema, raw))
    except CodecError as problem:
        raise error(
            f"Stored state of {resource.type_name} does not fit",
            f"{problem}. Remove it from state and import it again.",
        ) from problem


def _prune(schema: Schema, raw: dict[str, Any]) -> dict[str, Any]:
    kept = _prune_object(schema.attributes, raw)
    kept.update(
        {name: _prune_nested(block.nested, raw.get(name, block.absent)) for name, block in schema.blocks.items()}
    )
    return kept


def _prune_object(attributes: Mapping[str, Attribute], raw: Any) -> Any:
    table = as_object(raw)
    if table is None:
        return raw
    return {name: _prune_attribute(each, table.get(name, each.default)) for name, each in attributes.items()}


def _prune_attribute(each: Attribute, raw: Any) -> Value:
    return _prune_nested(each.type, raw) if isinstance(each.type, Nested) else raw


def _prune_nested(nested: Nested, raw: Any) -> Value:
    inner = nested.attributes
    if nested.mode == "single":
        return _prune_object(inner, raw)
    if (table := as_object(raw)) is not None:
        return {key: _prune_object(inner, value) for key, value in table.items()}
    if (items := as_list(raw)) is not None:
        return [_prune_object(inner, value) for value in items]
    return raw
