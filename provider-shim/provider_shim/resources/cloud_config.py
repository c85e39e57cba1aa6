"""Documents of cloud-init's `#cloud-config` format: read, laid over each other, written.

PyYAML is imported when a document is read, because most providers never read one and all of them have to start fast.
Anchors are refused: an alias of an alias makes a small document a huge one.
"""

from __future__ import annotations

from typing import Any

from provider_shim.framework.types import as_list, as_object

HEADER = "#cloud-config"
LIMIT = 1 << 20
_DEPTH = 50


class CloudConfigError(ValueError):
    """One sentence about what is wrong with a document."""


def parse(text: str) -> dict[str, Any]:
    """Raises CloudConfigError."""
    import yaml

    if text.split("\n", 1)[0].rstrip() != HEADER:
        raise CloudConfigError(f"the first line must be {HEADER}")
    if len(text) > LIMIT:
        raise CloudConfigError(f"is over {LIMIT} characters")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if getattr(event, "anchor", None) is not None:
                raise CloudConfigError(f"{_place(event.start_mark)}anchors and aliases are not allowed")
        found: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        told = getattr(error, "problem", None) or "is not YAML"
        raise CloudConfigError(f"{_place(getattr(error, 'problem_mark', None))}{told}") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, CloudConfigError):
            raise
        raise CloudConfigError("is not YAML that cloud-init reads") from None
    table = as_object({} if found is None else found)
    if table is None:
        raise CloudConfigError("must be a mapping")
    return table


def _place(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}: "


def merge(below: Any, above: Any, depth: int = 0) -> Any:
    """Mappings key by key, lists appended, everything else from `above`. Raises CloudConfigError."""
    if depth > _DEPTH:
        raise CloudConfigError(f"is nested more than {_DEPTH} levels deep")
    old, new = as_object(below), as_object(above)
    if old is not None and new is not None:
        return {
            **old,
            **{key: merge(old[key], value, depth + 1) if key in old else value for key, value in new.items()},
        }
    first, second = as_list(below), as_list(above)
    if first is not None and second is not None:
        return [*first, *second]
    return above


def write(document: dict[str, Any]) -> str:
    import yaml

    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000) if document else "{}\n"
    return f"{HEADER}\n{text}"
