"""YAML as people write it, read strictly.

Safe types only; a repeated key, an anchor or an alias is an error instead of a surprise; size is bounded; errors say
the line. JSON is YAML, so both kinds of file are read by the same code.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, cast

import yaml

MAX_BYTES = 16 * 1024 * 1024


class YamlError(Exception):
    """`line` counts from 1; None when the whole text is at fault."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.line = line


class _Mark(Protocol):
    """A place in the text, as either of PyYAML's scanners gives it."""

    @property
    def line(self) -> int: ...


class _StrictLoader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:  # type: ignore[override]
        event = cast(yaml.Event, self.peek_event())  # pyright: ignore[reportUnknownMemberType]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlError("anchors and aliases (& and *) are not supported", _line(event.start_mark))
        return super().compose_node(parent, index)  # pyright: ignore[reportArgumentType]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = cast(Hashable, self.construct_object(key_node, deep=True))  # pyright: ignore[reportUnknownMemberType]
            if not isinstance(key, str):
                raise YamlError(f"key {key!r} is not a string; put it in quotes", _line(key_node.start_mark))
            if key in seen:
                raise YamlError(f"key {key!r} appears twice", _line(key_node.start_mark))
            seen.add(key)
        return cast(dict[Hashable, object], super().construct_mapping(node, deep=deep))


# Timestamps stay text: no field of ours is a YAML date, and JSON has none.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_all(text: str) -> list[object]:
    """Every document in `text`; empty ones are left out. Raises YamlError."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"over {MAX_BYTES} bytes")
    try:
        documents = list(yaml.load_all(text, Loader=_StrictLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(error.problem or error.context or "not YAML", None if mark is None else mark.line + 1) from None
    except yaml.YAMLError as error:
        raise YamlError(str(error).splitlines()[0]) from None
    except ValueError as error:
        # A date that is none, or a number of thousands of digits.
        raise YamlError(f"a value that is none: {error}") from None
    except RecursionError:
        raise YamlError("nested too deeply") from None
    return [document for document in documents if document is not None]


def load_one(text: str) -> object:
    """The only document in `text`; None when there is none. Raises YamlError."""
    documents = load_all(text)
    if len(documents) > 1:
        raise YamlError(f"{len(documents)} documents where one is expected")
    return documents[0] if documents else None


def _line(mark: _Mark | None) -> int | None:
    return None if mark is None else mark.line + 1
