"""The values that settings are made of, and what is said when one cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from controlplane.model.types import NAME_PATTERN


@dataclass(frozen=True, slots=True)
class Problem:
    """`field` is a dotted path, empty when the whole file is at fault."""

    field: str
    message: str


class SettingsError(Exception):
    """The file cannot be used; every problem that was found is listed."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(": ".join(filter(None, (source, p.field, p.message))) for p in problems))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or (":" in host and not bracketed):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:7101 or [::1]:7101")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return host.strip("[]"), int(port)


def _check_address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


MIN_CLEANUP_S = 300.0
USUAL_HEARTBEAT_S = 1.0
MAX_HEARTBEAT_S = 3.0
"""The shortest lease outlives two lost heartbeats at the usual pace, the default one nearly three at the slowest."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
