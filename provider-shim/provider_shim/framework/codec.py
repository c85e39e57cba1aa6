"""Values to and from the two encodings that Terraform uses: msgpack on the wire, JSON in state files.

An unknown is msgpack extension 0 (or 12, which refines it; refinements that come in are dropped). Whole numbers become
`int`, others `float`; a number too long for msgpack travels as a decimal string. A `dynamic` is `[type, value]` in
msgpack and `{"type", "value"}` in JSON. Input that does not fit its type raises `CodecError`, which names the place.

A type is looked at once, when its `Codec` is made: that puts together functions, each of which converts what is at one
place of the type. Both directions are made in the same manner, of other `_Leaves`. What runs for every value of every
resource of a plan neither asks what type it has nor writes down where it is; an error collects its place on its way up.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

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
    Unknown,
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

Convert: TypeAlias = Callable[[Any], Any]


class CodecError(ValueError):
    """A value that does not fit its type; `place` is a dotted path, empty at the top."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place or 'value'}: {message}")
        self.message = message
        self.place = place

    def inside(self, outer: str) -> CodecError:
        """The same of what this was found in; `outer` names it there."""
        dot = "." if self.place and not self.place.startswith("[") else ""
        return CodecError(self.message, f"{outer}{dot}{self.place}")


class Codec:
    """The values of one type."""

    def __init__(self, kind: Type) -> None:
        self._of_msgpack = _converter(kind, _OF_MSGPACK)
        self._of_json = _converter(kind, _OF_JSON)
        self._to_msgpack = _converter(kind, _TO_MSGPACK)

    def decode_msgpack(self, data: bytes) -> Value:
        """A DynamicValue's msgpack bytes as a value; empty bytes are null. Raises CodecError."""
        if not data:
            return None
        try:
            raw: Any = _msgpack.unpackb(data, ext_hook=_extension, raw=False, strict_map_key=True)
        except (ValueError, TypeError, _msgpack.exceptions.UnpackException) as error:
            raise CodecError(f"is not msgpack: {error}") from error
        return self._of_msgpack(raw)

    def decode_json(self, raw: Any) -> Value:
        """A parsed JSON value (as in state) as a value of the type. Raises CodecError."""
        return self._of_json(raw)

    def encode_msgpack(self, value: Value) -> bytes:
        """Raises CodecError."""
        return _msgpack.packb(self._to_msgpack(value), use_bin_type=True)


def _extension(code: int, _data: bytes) -> Any:
    if code in _UNKNOWN_EXTENSIONS:
        return UNKNOWN
    raise ValueError(f"extension type {code} is not known")


# -- what a type is put together of ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Leaves:
    """How one direction converts what holds nothing else."""

    number: Convert
    dynamic: Convert
    unknown: Convert


def _converter(kind: Type, leaves: _Leaves) -> Convert:
    inner = _known(kind, leaves)
    unknown = leaves.unknown

    def convert(value: Any) -> Any:
        if value is None:
            return None
        return unknown(value) if isinstance(value, Unknown) else inner(value)

    return convert


def _known(kind: Type, leaves: _Leaves) -> Convert:
    match kind:
        case Primitive("dynamic"):
            return leaves.dynamic
        case Primitive("string"):
            return _string
        case Primitive("bool"):
            return _bool
        case Primitive():
            return leaves.number
        case ListOf(element) | SetOf(element):
            return _each(_converter(element, leaves))
        case TupleOf(elements):
            return _one_by_one([_converter(element, leaves) for element in elements])
        case MapOf(element):
            return _by_key(_converter(element, leaves))
        case ObjectOf(attributes):
            return _by_name({name: _converter(each, leaves) for name, each in attributes.items()})


def _each(convert: Convert) -> Convert:
    def converted(value: Any) -> list[Any]:
        items: list[Any] = _expect(value, list, "a list")
        done: list[Any] = []
        try:
            for item in items:
                done.append(convert(item))
        except CodecError as error:
            raise error.inside(f"[{len(done)}]") from None
        return done

    return converted


def _one_by_one(converts: Sequence[Convert]) -> Convert:
    def converted(value: Any) -> list[Any]:
        items: list[Any] = _expect(value, list, "a list")
        if len(items) != len(converts):
            raise CodecError(f"must have {len(converts)} elements, not {len(items)}")
        done: list[Any] = []
        try:
            for convert, item in zip(converts, items, strict=True):
                done.append(convert(item))
        except CodecError as error:
            raise error.inside(f"[{len(done)}]") from None
        return done

    return converted


def _by_key(convert: Convert) -> Convert:
    def converted(value: Any) -> dict[str, Any]:
        table: dict[Any, Any] = _expect(value, dict, "a map")
        if not all(isinstance(key, str) for key in table):
            raise CodecError("must have strings as keys")
        done: dict[str, Any] = {}
        key = ""
        try:
            for key in sorted(table):
                done[key] = convert(table[key])
        except CodecError as error:
            raise error.inside(key) from None
        return done

    return converted


def _by_name(converts: Mapping[str, Convert]) -> Convert:
    members = tuple(converts.items())
    names = converts.keys()

    def converted(value: Any) -> dict[str, Any]:
        table: dict[Any, Any] = _expect(value, dict, "an object")
        if not table.keys() <= names:
            raise CodecError("is not an attribute of this type", min(map(str, table.keys() - names)))
        done: dict[str, Any] = {}
        name = ""
        try:
            for name, convert in members:
                inner = table.get(name)
                done[name] = None if inner is None else convert(inner)
        except CodecError as error:
            raise error.inside(name) from None
        return done

    return converted


# -- leaves ------------------------------------------------------------------------------------------------------------


def _string(value: Any) -> str:
    return value if isinstance(value, str) else _refuse(value, "a string")


def _bool(value: Any) -> bool:
    return value if isinstance(value, bool) else _refuse(value, "a bool")


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise CodecError("must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CodecError("must be a number")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _packed_number(value: Any) -> int | float | str:
    number = _number(value)
    return number if isinstance(number, float) or -(2**63) <= number < 2**64 else str(number)


def _unchanged(unknown: Unknown) -> Unknown:
    return unknown


def _packed_unknown(unknown: Unknown) -> Any:
    return _msgpack.ExtType(12, _NOT_NULL) if unknown is UNKNOWN_NOT_NULL else _msgpack.ExtType(0, b"\x00")


def _dynamic_of_msgpack(value: Any) -> Value:
    pair = as_list(value)
    if pair is None or len(pair) != 2:
        raise CodecError("a dynamic value must be a pair of type and value")
    shape, inner = pair
    parsed = json.loads(shape) if isinstance(shape, str | bytes) else shape
    return _converter(from_signature(parsed), _OF_MSGPACK)(inner)


def _dynamic_of_json(value: Any) -> Value:
    table = as_object(value)
    if table is None or set(table) != {"type", "value"}:
        raise CodecError("a dynamic value must have type and value")
    return _converter(from_signature(table["type"]), _OF_JSON)(table["value"])


def _dynamic_to_msgpack(value: Value) -> list[Any]:
    guessed = _guess(value)
    shape = json.dumps(signature(guessed), separators=(",", ":")).encode()
    return [shape, _converter(guessed, _TO_MSGPACK)(value)]


_OF_MSGPACK = _Leaves(number=_number, dynamic=_dynamic_of_msgpack, unknown=_unchanged)
_OF_JSON = _Leaves(number=_number, dynamic=_dynamic_of_json, unknown=_unchanged)
_TO_MSGPACK = _Leaves(number=_packed_number, dynamic=_dynamic_to_msgpack, unknown=_packed_unknown)


def _guess(value: Value) -> Type:
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
        return TupleOf(tuple(_guess(item) for item in items))
    if (table := as_object(value)) is not None:
        return ObjectOf({name: _guess(item) for name, item in table.items()})
    raise CodecError(f"{type(value).__name__} is no Terraform value")


def _expect(value: Any, python_type: type, words: str) -> Any:
    return value if isinstance(value, python_type) else _refuse(value, words)


def _refuse(value: Any, words: str) -> NoReturn:
    raise CodecError(f"must be {words}, not {type(value).__name__}")
