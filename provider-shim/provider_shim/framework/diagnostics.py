"""What a user is told: errors and warnings, each with the attribute it is about.

A `Path` leads from a resource's top into its attributes; Terraform turns it into the line of HCL. Steps are an
attribute name, a map key or a list index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class AttributeName:
    name: str


@dataclass(frozen=True, slots=True)
class BlockName:
    """A nested block, such as `timeouts`; an attribute of it follows."""

    name: str


@dataclass(frozen=True, slots=True)
class MapKey:
    key: str


@dataclass(frozen=True, slots=True)
class ListIndex:
    index: int


Step: TypeAlias = AttributeName | BlockName | MapKey | ListIndex
Path: TypeAlias = tuple[Step, ...]

ROOT: Path = ()


def attribute(*names: str) -> Path:
    """The path through nested attributes, such as `attribute("kernel", "image")`."""
    return tuple(AttributeName(name) for name in names)


def show_path(path: Path) -> str:
    """As a user would write it: `interfaces["eth1"].address`."""
    text = ""
    for step in path:
        match step:
            case AttributeName(name) | BlockName(name):
                text += f".{name}" if text else name
            case MapKey(key):
                text += f'["{key}"]'
            case ListIndex(index):
                text += f"[{index}]"
    return text


@dataclass(frozen=True, slots=True)
class Diagnostic:
    severity: Literal["error", "warning"]
    summary: str
    detail: str = ""
    path: Path = ROOT


class ProviderError(Exception):
    """Stops an operation; carries what the user is told."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("; ".join(d.summary for d in self.diagnostics))


def error(summary: str, detail: str = "", path: Path = ROOT) -> ProviderError:
    """An exception with one error diagnostic."""
    return ProviderError([Diagnostic("error", summary, detail, path)])


@dataclass(slots=True)
class Report:
    """Collects the diagnostics of one call."""

    items: list[Diagnostic] = field(default_factory=list[Diagnostic])

    def error(self, summary: str, detail: str = "", path: Path = ROOT) -> None:
        self.items.append(Diagnostic("error", summary, detail, path))

    def warn(self, summary: str, detail: str = "", path: Path = ROOT) -> None:
        self.items.append(Diagnostic("warning", summary, detail, path))

    def extend(self, items: Iterable[Diagnostic]) -> None:
        self.items.extend(items)

    @property
    def failed(self) -> bool:
        return any(item.severity == "error" for item in self.items)
