"""Field-by-field difference of two JSON documents, as JSON pointers. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from controlplane.cli.values import mapping

MISSING = object()


def changes(before: Any, after: Any, pointer: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(pointer, before, after) for every leaf that differs; MISSING where a side has nothing."""
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = mapping(before), mapping(after)
        for key in sorted({*old, *new}):
            escaped = key.replace("~", "~0").replace("/", "~1")
            yield from changes(old.get(key, MISSING), new.get(key, MISSING), f"{pointer}/{escaped}")
    elif before != after:
        yield pointer or "/", before, after


def shown(value: Any) -> str:
    """Short text of a value for a diff line."""
    if value is MISSING:
        return "(none)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
