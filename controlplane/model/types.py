"""Shared value types and the two record decorators.

A *spec* is what a user writes: a frozen stdlib dataclass whose annotations carry pydantic constraints, so that the HTTP
edge validates it and publishes its JSON Schema, while the log and the state handle it as plain data through msgspec
(docs/adr/0004). A *record* is what the state holds: the same kind of dataclass without edge validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, with_config

T = TypeVar("T")

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""RFC 1123 label: what a namespace, host, policy or microVM may be called."""

IMAGE_PATTERN = r"^[a-z0-9]+([._/:-][a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
MAC_PATTERN = r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"
DEVICE_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,30}[A-Za-z0-9])?$"
"""What a volume, an interface or a metadata key may be called."""
BRIDGE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$"
"""A Linux interface name: at most 15 characters."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
ImageRef = Annotated[str, StringConstraints(pattern=IMAGE_PATTERN, max_length=255)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
DeviceId = Annotated[str, StringConstraints(pattern=DEVICE_PATTERN)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=64)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def spec(cls: type[T]) -> type[T]:
    """A frozen dataclass that refuses unknown fields and lax conversions where users write it."""
    return with_config(ConfigDict(extra="forbid", strict=False))(dataclass(frozen=True, slots=True, kw_only=True)(cls))


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass that only the machine makes."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


class Kind(StrEnum):
    """Every kind of declared resource, as the API names it."""

    HOST = "Host"
    NAMESPACE = "Namespace"
    MICROVM = "MicroVM"
    PLACEMENT_POLICY = "PlacementPolicy"
    OPERATION = "Operation"


def check_unique(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("values must be unique")
    return values


UniqueNames = Annotated[list[Name], Field(max_length=256), AfterValidator(check_unique)]
