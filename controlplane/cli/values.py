"""Reading JSON documents of the API without trusting their shape: what is missing is None, empty, or no text."""

from __future__ import annotations

from typing import Any, cast

Json = dict[str, Any]


def dig(value: Any, *path: str) -> Any:
    """The value at `path` inside nested mappings; None where anything on the way is missing."""
    for part in path:
        value = mapping(value).get(part)
    return value


def mapping(value: Any, *path: str) -> Json:
    """The mapping at `path`, empty where there is none. Keys are text, as in every JSON document."""
    found = dig(value, *path) if path else value
    return cast(Json, found) if isinstance(found, dict) else {}


def objects(value: Any, *path: str) -> list[Json]:
    """The list of mappings at `path`, empty where there is none."""
    found = dig(value, *path) if path else value
    return [mapping(item) for item in cast("list[Any]", found)] if isinstance(found, list) else []


def text(value: object) -> str:
    """A cell's text: nothing for None, `true` and `false` as the API spells them."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
