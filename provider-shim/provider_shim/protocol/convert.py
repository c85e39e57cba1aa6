"""Framework values to protocol messages and back: schemas, diagnostics, dynamic values, identities."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import takewhile
from typing import Any

from provider_shim.framework.codec import Codec
from provider_shim.framework.diagnostics import AttributeName, BlockName, Diagnostic, ListIndex, MapKey, Path
from provider_shim.framework.function import Function, Parameter
from provider_shim.framework.schema import Attribute, Block, Nested, Schema
from provider_shim.framework.types import STRING, ObjectOf, Type, Value, as_object, signature
from provider_shim.protocol.messages import message

_SEVERITY = {"error": 1, "warning": 2}
_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
_MARKDOWN = 1

PROVIDER_CONFIG_UNKNOWN = 2
"""Why a call is deferred, as the protocol numbers it."""


def read_value(codec: Codec, dynamic: Any) -> Value:
    """A DynamicValue message as a value; an absent one is null."""
    if dynamic.json and not dynamic.msgpack:
        return codec.decode_json(json.loads(dynamic.json))
    return codec.decode_msgpack(dynamic.msgpack)


def write_value(codec: Codec, value: Value) -> Any:
    return message("DynamicValue")(msgpack=codec.encode_msgpack(value))


def write_path(path: Path) -> Any:
    steps: list[Any] = []
    for step in path:
        match step:
            case AttributeName(name) | BlockName(name):
                steps.append(message("AttributePath.Step")(attribute_name=name))
            case MapKey(key):
                steps.append(message("AttributePath.Step")(element_key_string=key))
            case ListIndex(index):
                steps.append(message("AttributePath.Step")(element_key_int=index))
    return message("AttributePath")(steps=steps)


def _findable(path: Path) -> Path:
    """As much of a path as Terraform can find in the configuration. It looks for an attribute of an attribute among the
    blocks, and then shows the resource's first line instead of the attribute's."""
    inside = 2 if isinstance(path[0], BlockName) else 1
    return (*path[:inside], *takewhile(lambda step: not isinstance(step, AttributeName), path[inside:]))


def write_diagnostics(items: Iterable[Diagnostic]) -> list[Any]:
    return [
        message("Diagnostic")(
            severity=_SEVERITY[item.severity],
            summary=item.summary,
            detail=item.detail,
            attribute=write_path(_findable(item.path)) if item.path else None,
        )
        for item in items
    ]


def write_schema(schema: Schema) -> Any:
    block = _write_block(schema.description, schema.attributes)
    for name, inner in sorted(schema.blocks.items()):
        block.block_types.append(_write_nested_block(name, inner))
    return message("Schema")(version=schema.version, block=block)


def _write_block(description: str, attributes: Mapping[str, Attribute]) -> Any:
    return message("Schema.Block")(
        attributes=_write_attributes(attributes), description=description, description_kind=_MARKDOWN
    )


def _write_nested_block(name: str, block: Block) -> Any:
    return message("Schema.NestedBlock")(
        type_name=name, nesting=_NESTING[block.mode], block=_write_block(block.description, block.attributes)
    )


def _write_attributes(attributes: Mapping[str, Attribute]) -> list[Any]:
    return [_write_attribute(name, each) for name, each in sorted(attributes.items())]


def _write_attribute(name: str, each: Attribute) -> Any:
    written = message("Schema.Attribute")(
        name=name,
        description=each.description,
        description_kind=_MARKDOWN,
        required=each.required,
        optional=each.optional or each.default is not None,
        computed=each.computed or each.default is not None,
        sensitive=each.sensitive,
        write_only=each.write_only,
        deprecated=bool(each.deprecated),
        deprecation_message=each.deprecated,
    )
    if isinstance(each.type, Nested):
        written.nested_type.nesting = _NESTING[each.type.mode]
        written.nested_type.attributes.extend(_write_attributes(each.type.attributes))
    else:
        written.type = _write_type(each.type)
    return written


def write_function(function: Function) -> Any:
    return message("Function")(
        parameters=[_write_parameter(each) for each in function.parameters],
        variadic_parameter=_write_parameter(function.variadic) if function.variadic is not None else None,
        **{"return": message("Function.Return")(type=_write_type(function.returns))},
        summary=function.summary,
        description=function.description,
        description_kind=_MARKDOWN,
    )


def _write_parameter(each: Parameter) -> Any:
    return message("Function.Parameter")(
        name=each.name, type=_write_type(each.type), description=each.description, description_kind=_MARKDOWN
    )


def _write_type(kind: Type) -> bytes:
    return json.dumps(signature(kind)).encode()


@cache
def _identity_codec(names: tuple[str, ...]) -> Codec:
    return Codec(ObjectOf(dict.fromkeys(names, STRING)))


def write_identity_schema(identity: Mapping[str, str]) -> Any:
    return message("ResourceIdentitySchema")(
        version=0,
        identity_attributes=[
            message("ResourceIdentitySchema.IdentityAttribute")(
                name=name, type=b'"string"', required_for_import=True, description=description
            )
            for name, description in identity.items()
        ],
    )


def write_identity(identity: Mapping[str, str] | None) -> Any:
    """A ResourceIdentityData message, or None for "not known yet"."""
    if identity is None:
        return None
    return message("ResourceIdentityData")(identity_data=write_value(_identity_codec(tuple(identity)), dict(identity)))


def read_identity(names: Iterable[str], data: Any) -> dict[str, str] | None:
    """None when absent or not wholly known."""
    table = as_object(read_value(_identity_codec(tuple(names)), data.identity_data))
    return table if table is not None and all(isinstance(part, str) for part in table.values()) else None


def read_private(data: bytes) -> dict[str, Any]:
    """Private state is a JSON object of ours; anything else counts as none."""
    try:
        parsed: Any = json.loads(data) if data else {}
    except ValueError:
        parsed = {}
    return as_object(parsed) or {}


def write_private(private: Mapping[str, Any]) -> bytes:
    return json.dumps(private, sort_keys=True, separators=(",", ":")).encode() if private else b""
