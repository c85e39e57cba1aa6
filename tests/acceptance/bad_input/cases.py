"""What a row of the table is, for each way into the product. `said` are texts that the answer has to contain, each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ApiCase:
    """A request; its problem has this status, code, pointer and message."""

    what: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 422
    code: str = "invalid"
    pointer: str = ""
    message: str = ""


@dataclass(frozen=True)
class HclCase:
    """A configuration; Terraform refuses it on the line that has `line`, with `summary` and `detail`."""

    what: str
    hcl: str
    summary: str
    detail: str
    line: str | None
    command: tuple[str, ...] = ("plan",)


@dataclass(frozen=True)
class CliCase:
    """A command line of flintctl, perhaps with a file `a.yaml`; its exit code, and what it says."""

    what: str
    arguments: tuple[str, ...]
    said: tuple[str, ...]
    code: int = 1
    file: str = ""


@dataclass(frozen=True)
class SettingsCase:
    """Changes to a good settings file, by dotted path; what `flintctl node|agent run --check` says."""

    what: str
    process: str
    """`n1` or `h1`."""
    change: dict[str, Any]
    said: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentCase:
    """An agent that a user starts wrongly, beside those that run; what it says. It ends by itself, or says it and goes
    on trying."""

    what: str
    said: tuple[str, ...]
    change: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Files in its state directory, before it starts."""
    ends: bool = True


ABSENT = object()
"""A change that takes a setting away."""
