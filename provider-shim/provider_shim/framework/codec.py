"""Values to and from the two encodings that Terraform uses: msgpack on the wire, JSON in state files.

An unknown is msgpack extension 0 (or 12, which refines it; refinements that come in are dropped). Whole numbers become
`int`, others `float`; a number too long for msgpack travels as a decimal string. A `dynamic` is `[type, value]` in
msgpack and `{"type", "value"}` in JSON. Input that does not fit its type raises `CodecError`, which names the place.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from provider_shim.framework.types import (
    BOOL,
    DYNAMIC,
    NUMBER,
    STRING,
    UNKNOWN,
    UNKNOWN_NOT_NULL,
    ListOf,
    MapOf,
    ObjectOf,
    Primitive,
    SetOf,
    TupleOf,
    Type,
    Value,
    as_list,
    as_object,
    from_signature,
    signature,
)

_msgpack: Any = importlib.import_module("msgpack")
"""Carries no types: imported as a plain value."""

_UNKNOWN_EXTENSIONS = (0, 12)
_NOT_NULL = b"\x81\x01\xc2"
"""The refinement "nullness (1) is false", a msgpack map in itself."""


class CodecError(ValueError):
    """A value that does not fit its type; `place` is a dotted path, empty at the top."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place or 'value'}: {message}")
        self.place = place


def decode_msgpack(kind: Type, data: bytes) -> Value:
    """A DynamicValue's msgpack bytes as a value; empty bytes are null."""
    if not data:
        return None
    try:
        raw: Any = _msgpack.unpackb(data, ext_hook=_extension, raw=False, strict_map_key=True)
    except (ValueError, TypeError, _msgpack.exceptions.UnpackException) as error:
        raise CodecError("", f"is not msgpack: {error}") from error
    return _shape(kind, raw, "", dynamic=_dynamic_msgpack)


def decode_json(kind: Type, raw: Any) -> Value:
    """A parsed JSON value (as in state) as a value of the type."""
    return _shape(kind, raw, "", dynamic=_dynamic_json)


def encode_msgpack(kind: Type, value: Value) -> bytes:
    return _msgpack.packb(_wire(kind, value, ""), use_bin_type=True)


def _extension(code: int, _data: bytes) -> Any:
    if code in _UNKNOWN_EXTENSIONS:
        return UNKNOWN
    raise ValueError(f"extension type {code} is not known")


Dynamic = Callable[[Any, str], Value]


def _dynamic_msgpack(raw: Any, place: str) -> Value:
    pair = as_list(raw)
    if pair is None or len(pair) != 2:
        raise CodecError(place, "a dynamic value must be a pair of type and value")
    shape, value = pair
    parsed = json.loads(shape) if isinstance(shape, str | bytes) else shape
    return _shape(from_signature(parsed), value, place, dynamic=_dynamic_msgpack)


def _dynamic_json(raw: Any, place: str) -> Value:
    table = as_object(raw)
    if table is None or set(table) != {"type", "value"}:
        raise CodecError(place, "a dynamic value must have type and value")
    return _shape(from_signature(table["type"]), table["value"], place, dynamic=_dynamic_json)


def _shape(kind: Type, raw: Any, place: str, *, dynamic: Dynamic) -> Value:
    if raw is None or raw is UNKNOWN:
        return raw
    match kind:
        case Primitive("dynamic"):
            return dynamic(raw, place)
        case Primitive("string"):
            return _expect(raw, str, place, "a string")
        case Primitive("bool"):
            return _expect(raw, bool, place, "a bool")
        case Primitive():
            return _number(raw, place)
        case ListOf(element) | SetOf(element):
            items: list[Any] = _expect(raw, list, place, "a list")
            return [_shape(element, item, f"{place}[{i}]", dynamic=dynamic) for i, item in enumerate(items)]
        case TupleOf(elements):
            items = _expect(raw, list, place, "a list")
            if len(items) != len(elements):
                raise CodecError(place, f"must have {len(elements)} elements, not {len(items)}")
            return [
                _shape(inner, item, f"{place}[{i}]", dynamic=dynamic)
                for i, (inner, item) in enumerate(zip(elements, items, strict=True))
            ]
        case MapOf(element):
            table = _table(raw, place, "a map")
            return {key: _shape(element, item, _join(place, key), dynamic=dynamic) for key, item in table.items()}
        case ObjectOf(attributes):
            table = _table(raw, place, "an object")
            stray = sorted(set(table) - set(attributes))
            if stray:
                raise CodecError(_join(place, stray[0]), "is not an attribute of this type")
            return {
                name: _shape(inner, table.get(name), _join(place, name), dynamic=dynamic)
                for name, inner in attributes.items()
            }


def _wire(kind: Type, value: Value, place: str) -> Any:
    if value is None:
        return None
    if value is UNKNOWN:
        return _msgpack.ExtType(0, b"\x00")
    if value is UNKNOWN_NOT_NULL:
        return _msgpack.ExtType(12, _NOT_NULL)
    match kind:
        case Primitive("dynamic"):
            guessed = _guess(value, place)
            return [json.dumps(signature(guessed), separators=(",", ":")).encode(), _wire(guessed, value, place)]
        case Primitive("string"):
            return _expect(value, str, place, "a string")
        case Primitive("bool"):
            return _expect(value, bool, place, "a bool")
        case Primitive():
            number = _number(value, place)
            return number if isinstance(number, float) or -(2**63) <= number < 2**64 else str(number)
        case ListOf(element) | SetOf(element):
            items: list[Any] = _expect(value, list, place, "a list")
            return [_wire(element, item, f"{place}[{i}]") for i, item in enumerate(items)]
        case TupleOf(elements):
            items = _expect(value, list, place, "a list")
            return [_wire(inner, item, place) for inner, item in zip(elements, items, strict=True)]
        case MapOf(element):
            table = _table(value, place, "a map")
            return {key: _wire(element, table[key], _join(place, key)) for key in sorted(table)}
        case ObjectOf(attributes):
            table = _table(value, place, "an object")
            stray = sorted(set(table) - set(attributes))
            if stray:
                raise CodecError(_join(place, stray[0]), "is not an attribute of this type")
            return {name: _wire(inner, table.get(name), _join(place, name)) for name, inner in attributes.items()}


def _guess(value: Value, place: str) -> Type:
    """The type of a value that has none of its own."""
    if value is None or value is UNKNOWN:
        return DYNAMIC
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int | float):
        return NUMBER
    if isinstance(value, str):
        return STRING
    if (items := as_list(value)) is not None:
        return TupleOf(tuple(_guess(item, place) for item in items))
    if (table := as_object(value)) is not None:
        return ObjectOf({name: _guess(item, _join(place, name)) for name, item in table.items()})
    raise CodecError(place, f"{type(value).__name__} is no Terraform value")


def _number(raw: Any, place: str) -> int | float:
    if isinstance(raw, str):
        try:
            raw = int(raw)
        except ValueError:
            try:
                raw = float(raw)
            except ValueError:
                raise CodecError(place, "must be a number") from None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise CodecError(place, "must be a number")
    return int(raw) if isinstance(raw, float) and raw.is_integer() else raw


def _expect(raw: Any, python_type: type, place: str, words: str) -> Any:
    if not isinstance(raw, python_type):
        raise CodecError(place, f"must be {words}, not {type(raw).__name__}")
    return raw


def _table(raw: Any, place: str, words: str) -> dict[str, Any]:
    table: dict[Any, Any] = _expect(raw, dict, place, words)
    if not all(isinstance(key, str) for key in table):
        raise CodecError(place, "must have strings as keys")
    return table


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
