"""How results are printed: aligned columns for people, JSON or YAML for programs.

Columns are plain text, so that `| grep` and `| awk` work; colour appears on a terminal only, unless NO_COLOR is set.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer
import yaml


class OutputFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print the result.", show_default=True)]

_GOOD = {
    "running",
    "ready",
    "active",
    "true",
    "in_sync",
    "succeeded",
    "leader",
    "follower",
    "ok",
    "created",
    "up",
    "yes",
}
_BAD = {"failed", "drifted", "unreachable", "detached", "fenced", "refused", "down", "absent", "FAILED", "no"}
_WAITING = {
    "pending",
    "placed",
    "expected",
    "progressing",
    "suspect",
    "rejoining",
    "deleting",
    "unmanaged",
    "changed",
    "unknown",
    "stopped",
    "paused",
}


def machine_readable(output: OutputFormat) -> bool:
    return output in (OutputFormat.JSON, OutputFormat.YAML)


def dump(value: object, output: OutputFormat) -> None:
    """Print `value` as JSON or YAML."""
    print(dumped(value, output))


def dumped(value: object, output: OutputFormat) -> str:
    """`value` as JSON or YAML, without a line break at its end."""
    if output is OutputFormat.YAML:
        text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
        return text.removesuffix("\n")
    return json.dumps(value, indent=2, ensure_ascii=False)


class _Dumper(yaml.SafeDumper):
    """Text of several lines in block style, which people can read and edit."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _represent_text)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Aligned columns; `empty` goes to stderr when there is no row, so that a pipe gets nothing."""
    if not rows:
        print(empty, file=sys.stderr)
        return
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(_width(header), *(_width(row[index]) for row in clean)) for index, header in enumerate(headers)]
    print(_padded(headers, widths))
    for row in clean:
        print(_padded(row, widths, colour=use_colour()))


def pairs(entries: Sequence[tuple[str, str]]) -> None:
    """`Key: value`, with the values aligned."""
    width = max((len(key) for key, _ in entries), default=0) + 1
    for key, value in entries:
        shown = value.replace("\n", "\n" + " " * (width + 2))
        print(f"{key + ':':<{width}}  {paint(shown) if use_colour() else shown}".rstrip())


def alarm(text: str) -> None:
    """A line that nobody is to overlook."""
    print(f"\x1b[1;31m{text}\x1b[0m\n" if use_colour() else f"{text}\n")


def use_colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(text: str) -> str:
    code = "32" if text in _GOOD else "31" if text in _BAD else "33" if text in _WAITING else None
    return text if code is None else f"\x1b[{code}m{text}\x1b[0m"


def _padded(cells: Sequence[str], widths: Sequence[int], *, colour: bool = False) -> str:
    padded: list[str] = []
    for cell, width in zip(cells, widths, strict=True):
        padded.append((paint(cell) if colour else cell) + " " * (width - _width(cell)))
    return "   ".join(padded).rstrip()


def one_line(cell: str) -> str:
    """Control characters from a guest or an error must not reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in cell) or "-"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
