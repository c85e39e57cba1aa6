"""The types of Terraform values, and how they look in a schema.

A value in Python is `None` (null), `UNKNOWN`, `str`, `bool`, `int`/`float`, a `list` (lists and sets) or a `dict` (maps
and objects). A type says how such a value is named on the wire (`signature`) and what it consists of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast


class Unknown:
    """The type of `UNKNOWN`: a value that Terraform learns only during apply."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Unknown:
        return self


UNKNOWN: Final = Unknown()

UNKNOWN_NOT_NULL: Final = Unknown()
"""What `plan.refined` puts in place of `UNKNOWN` on the way to Terraform; nothing else gives or takes it."""

Value: TypeAlias = Any
"""None, UNKNOWN, str, bool, int, float, list[Value] or dict[str, Value]."""

Object: TypeAlias = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Primitive:
    """`string`, `number`, `bool`; `dynamic` carries its own type beside the value."""

    name: str


@dataclass(frozen=True, slots=True)
class ListOf:
    element: Type


@dataclass(frozen=True, slots=True)
class SetOf:
    element: Type


@dataclass(frozen=True, slots=True)
class MapOf:
    element: Type


@dataclass(frozen=True, slots=True)
class ObjectOf:
    attributes: Mapping[str, Type]


@dataclass(frozen=True, slots=True)
class TupleOf:
    """Occurs only inside dynamic values."""

    elements: tuple[Type, ...]


Type: TypeAlias = Primitive | ListOf | SetOf | MapOf | ObjectOf | TupleOf

STRING: Final = Primitive("string")
NUMBER: Final = Primitive("number")
BOOL: Final = Primitive("bool")
DYNAMIC: Final = Primitive("dynamic")


def signature(kind: Type) -> Any:
    """The JSON shape by which Terraform names the type, such as `["map", "string"]`."""
    match kind:
        case Primitive(name):
            return name
        case ListOf(element):
            return ["list", signature(element)]
        case SetOf(element):
            return ["set", signature(element)]
        case MapOf(element):
            return ["map", signature(element)]
        case ObjectOf(attributes):
            return ["object", {name: signature(inner) for name, inner in attributes.items()}]
        case TupleOf(elements):
            return ["tuple", [signature(element) for element in elements]]


def from_signature(shape: Any) -> Type:
    """The inverse of `signature`. Raises ValueError for a shape that names no type."""
    match shape:
        case "string" | "number" | "bool" | "dynamic":
            return Primitive(shape)
        case ["list", element]:
            return ListOf(from_signature(element))
        case ["set", element]:
            return SetOf(from_signature(element))
        case ["map", element]:
            return MapOf(from_signature(element))
        case ["object", attributes] if (table := as_object(attributes)) is not None:
            return ObjectOf({name: from_signature(inner) for name, inner in table.items()})
        case ["tuple", elements] if (items := as_list(elements)) is not None:
            return TupleOf(tuple(from_signature(element) for element in items))
        case _:
            raise ValueError(f"{shape!r} names no Terraform type")


def as_object(value: Value) -> Object | None:
    """The value if it is a map or an object, else None (also for null and UNKNOWN)."""
    return cast("Object", value) if isinstance(value, dict) else None


def as_list(value: Value) -> list[Value] | None:
    """The value if it is a list or a set, else None (also for null and UNKNOWN)."""
    return cast("list[Value]", value) if isinstance(value, list) else None


def is_wholly_known(value: Value) -> bool:
    if value is UNKNOWN:
        return False
    inner = as_list(value) or (as_object(value) or {}).values()
    return all(map(is_wholly_known, inner))


def without_unknowns(value: Value) -> Value:
    """The same value with null wherever something is unknown: state must be wholly known, even after a failure."""
    if value is UNKNOWN:
        return None
    if (table := as_object(value)) is not None:
        return {name: without_unknowns(inner) for name, inner in table.items()}
    if (items := as_list(value)) is not None:
        return [without_unknowns(inner) for inner in items]
    return value
