"""Checks of a configuration before anything is asked of the API.

`check` walks a configuration beside its schema and calls each attribute's validators with known, non-null values.
What a user may write is decided by the API; these checks only say the obvious early, on the line it is about.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from provider_shim.framework.diagnostics import AttributeName, BlockName, Diagnostic, ListIndex, MapKey, Path, show_path
from provider_shim.framework.duration import parse_duration_s
from provider_shim.framework.schema import Attribute, Nested, Schema, Validator
from provider_shim.framework.types import UNKNOWN, Value, as_list, as_object


def check(schema: Schema, config: Mapping[str, Value]) -> Iterator[Diagnostic]:
    yield from _check_attributes(schema.attributes, config, ())
    for name, block in schema.blocks.items():
        inner: Any = config.get(name)
        if inner is not None and inner is not UNKNOWN:
            yield from _check_nested(block.nested, inner, (BlockName(name),))


def _check_attributes(
    attributes: Mapping[str, Attribute], values: Mapping[str, Value], at: Path
) -> Iterator[Diagnostic]:
    for name, attribute in attributes.items():
        value: Any = values.get(name)
        if value is None or value is UNKNOWN:
            continue
        path = (*at, AttributeName(name))
        for validator in attribute.validators:
            yield from validator(path, value)
        if isinstance(attribute.type, Nested):
            yield from _check_nested(attribute.type, value, path)


def _check_nested(nested: Nested, value: Any, path: Path) -> Iterator[Diagnostic]:
    match nested.mode:
        case "single":
            yield from _check_attributes(nested.attributes, value, path)
        case "map":
            for key, inner in value.items():
                yield from _check_attributes(nested.attributes, as_object(inner) or {}, (*path, MapKey(key)))
        case "list" | "set":
            for i, inner in enumerate(value):
                yield from _check_attributes(nested.attributes, as_object(inner) or {}, (*path, ListIndex(i)))


def check_write_only(schema: Schema, config: Mapping[str, Value]) -> Iterator[Diagnostic]:
    """For a Terraform that would write such values into its state: that none is given."""
    for name, each in schema.attributes.items():
        if each.write_only and config.get(name) is not None:
            path = (AttributeName(name),)
            yield Diagnostic(
                "error", f"{name} needs Terraform 1.11", "Older ones would write it into their state.", path
            )


def _refuse(path: Path, detail: str) -> Diagnostic:
    return Diagnostic("error", f"Invalid {show_path(path)}", detail, path)


def one_of(*choices: str) -> Validator:
    words = ", ".join(f'"{choice}"' for choice in choices)

    def validate(path: Path, value: Value) -> Iterable[Diagnostic]:
        if value not in choices:
            yield _refuse(path, f'"{value}" is not one of {words}.')

    return validate


def each_of(*choices: str) -> Validator:
    """As `one_of`, for each element of a set or list."""
    known = one_of(*choices)

    def validate(path: Path, value: Value) -> Iterable[Diagnostic]:
        for each in value:
            if each is not UNKNOWN:
                yield from known(path, each)

    return validate


def between(low: int, high: int) -> Validator:
    def validate(path: Path, value: Value) -> Iterable[Diagnostic]:
        if not isinstance(value, int) or not low <= value <= high:
            yield _refuse(path, f"{value} is not a whole number between {low} and {high}.")

    return validate


def matches(pattern: str, words: str) -> Validator:
    """The whole string must match; `words` says in English what is allowed."""
    compiled = re.compile(pattern)

    def validate(path: Path, value: Value) -> Iterable[Diagnostic]:
        if not compiled.fullmatch(value):
            yield _refuse(path, f'"{value}" is not {words}.')

    return validate


def keys_match(pattern: str, words: str) -> Validator:
    compiled = re.compile(pattern)

    def validate(path: Path, value: Value) -> Iterable[Diagnostic]:
        for key in value:
            if not compiled.fullmatch(key):
                yield _refuse((*path, MapKey(key)), f'The key "{key}" is not {words}.')

    return validate


def at_most(count: int) -> Validator:
    def validate(path: Path, value: Value) -> Iterable[Diagnostic]:
        if len(value) > count:
            yield _refuse(path, f"has {len(value)} elements; at most {count} are allowed.")

    return validate


def cidr(path: Path, value: Value) -> Iterable[Diagnostic]:
    try:
        ipaddress.ip_interface(value)
    except ValueError as problem:
        yield _refuse(path, f"{problem}.")
    else:
        # ipaddress also takes a netmask there, and the API does not.
        if not value.partition("/")[2].isdecimal():
            yield _refuse(path, f'"{value}" needs a prefix length, such as 10.0.0.2/24.')


def ip_address(path: Path, value: Value) -> Iterable[Diagnostic]:
    """For one address, or for each element of a list of them."""
    items = as_list(value)
    for i, each in enumerate([value] if items is None else items):
        if not isinstance(each, str):
            continue
        try:
            ipaddress.ip_address(each)
        except ValueError as problem:
            yield _refuse(path if items is None else (*path, ListIndex(i)), f"{problem}.")


def duration(path: Path, value: Value) -> Iterable[Diagnostic]:
    try:
        parse_duration_s(value)
    except ValueError as problem:
        yield _refuse(path, f"{problem}.")
