"""What the actions share: where a problem of the API belongs, and how long they wait."""

from __future__ import annotations

import time
from collections.abc import Mapping

from provider_shim.framework.action import Action
from provider_shim.framework.diagnostics import Path, attribute
from provider_shim.framework.duration import parse_duration_s, show_duration
from provider_shim.framework.schema import Attribute
from provider_shim.framework.types import STRING, Object
from provider_shim.framework.validate import duration
from provider_shim.resources.common import NAME
from provider_shim.resources.connection import Connection

DEFAULT_TIMEOUT_S = 600.0


class Locator:
    """JSON pointers of problems that are about one part of the request: `/name` is the attribute `host`."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = attributes

    def path(self, pointer: str) -> Path:
        name = self._attributes.get(pointer.strip("/").split("/")[0])
        return attribute(name) if name is not None else ()


def timeout_attribute(what: str) -> Attribute:
    return Attribute(
        type=STRING,
        optional=True,
        validators=(duration,),
        description=f"How long to wait until {what}, such as `90s` or `1h`; `10m` if unset.",
    )


def named(description: str) -> Attribute:
    return Attribute(type=STRING, required=True, validators=(NAME,), description=description)


def timeout_s(config: Object) -> float:
    return parse_duration_s(config["timeout"]) if config.get("timeout") is not None else DEFAULT_TIMEOUT_S


def deadline(config: Object) -> float:
    """A `time.monotonic()` instant."""
    return time.monotonic() + timeout_s(config)


def timeout_text(config: Object) -> str:
    return show_duration(timeout_s(config))


class ApiAction(Action):
    """An action on the control plane."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
