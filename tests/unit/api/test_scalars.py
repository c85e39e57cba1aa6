"""Numbers and flags in bodies are taken as they are: no text and no flag counts as a number, nothing else as a flag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import controlplane.api.http.app  # noqa: F401 - every body is there once the application is
from controlplane.api.http.declarations import ITEMS, Input

SCALARS = {"int", "bool", "float"}


def bodies(model: type[BaseModel] = Input) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from bodies(each)


def lax(schema: Any, at: str = "") -> Iterator[str]:
    """Where a core schema has a scalar that would be converted."""
    if isinstance(schema, dict):
        if schema.get("type") in SCALARS and not schema.get("strict"):
            yield at
        name = schema.get("name") or schema.get("schema_ref") or ""
        for key, inner in schema.items():
            if key not in ("serialization", "metadata"):
                yield from lax(inner, f"{at}/{name or key}")
    elif isinstance(schema, list | tuple):
        for inner in schema:
            yield from lax(inner, at)


@pytest.mark.parametrize("model", [*bodies(), ITEMS], ids=lambda each: getattr(each, "__name__", "batch"))
def test_no_scalar_of_a_body_is_converted(model: type[BaseModel] | TypeAdapter[Any]) -> None:
    schema = model.core_schema if isinstance(model, TypeAdapter) else model.__pydantic_core_schema__
    assert list(lax(schema)) == []


@pytest.mark.parametrize("wrong", [True, "3", 3.5, 3.0], ids=str)
def test_what_is_no_number_is_refused_by_its_field(wrong: object) -> None:
    item = {"kind": "Namespace", "name": "a", "spec": {"max_vcpu": wrong}}
    with pytest.raises(ValidationError, match="max_vcpu"):
        ITEMS.validate_python([item])
