"""Shared value types and the two record decorators.

A *spec* is what a user writes: a frozen stdlib dataclass whose annotations carry pydantic constraints, so that the HTTP
edge validates it and publishes its JSON Schema, while the log and the state handle it as plain data through msgspec
(docs/adr/0004). A *record* is what the state holds: the same kind of value without edge validation, a msgspec struct
that is made, compared, encoded and replaced in C (docs/adr/0091).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Protocol, TypeVar, cast, dataclass_transform

import msgspec
from pydantic import ConfigDict, Field, Strict, StringConstraints, with_config

T = TypeVar("T")

DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes of unknown origin: it lets invalid UTF-8 through as it comes, and gives up on data that
is nested deeper than the interpreter's stack."""

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

PATH_PATTERN = r"^[^\x00\n]+$"
KERNEL_ARG_NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
KERNEL_ARG_PATTERN = r"^[^\s\x00]*$"
LINE_PATTERN = r"^[^\x00-\x1f\x7f]*$"
"""What people write to be read by others, such as a reason."""
SUBJECT_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._:/@+=|~-]{0,253}[A-Za-z0-9])?$"
"""What a user or a group may be called: as other systems call them, such as `oidc:alice@example.com`."""
KEYED_DIGEST_PATTERN = r"^hmac-sha256:[0-9a-f]{64}$"
DRIVER_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"

PATTERN_WORDS = {
    NAME_PATTERN: "must be lower-case letters, digits and '-', at most 63, with no '-' at either end",
    IMAGE_PATTERN: "must be an image reference, such as registry/kernel:6.1",
    LABEL_KEY_PATTERN: "must be a label key, such as rack or example.com/rack",
    LABEL_VALUE_PATTERN: "must be letters, digits, '.', '_' and '-', at most 63, with a letter or digit at either end",
    MAC_PATTERN: "must be a MAC address, such as 02:00:00:00:00:01",
    DEVICE_PATTERN: "must be letters, digits, '.', '_' and '-', at most 32, with a letter or digit at either end",
    BRIDGE_PATTERN: "must be the name of a Linux bridge, at most 15 characters",
    PATH_PATTERN: "must be a path on one line",
    KERNEL_ARG_NAME_PATTERN: "must be letters, digits, '.', '_' and '-', at most 64",
    KERNEL_ARG_PATTERN: "must hold no space and no line break",
    LINE_PATTERN: "must be on one line, without control characters",
    SUBJECT_NAME_PATTERN: "must be letters, digits and ._:/@+=|~-, at most 255, with a letter or digit at either end",
    KEYED_DIGEST_PATTERN: "must be a digest as the API tells it; a value goes into sensitive_metadata beside the spec",
    DRIVER_PATTERN: "must be a driver, such as qemu or flintlockd",
}
"""What each pattern allows, for those who read refusals."""

Integer = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
"""What users write is taken as it is: "3" is no number, and neither is false, nor 1 a yes."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
SubjectName = Annotated[str, StringConstraints(pattern=SUBJECT_NAME_PATTERN)]
_subject_name = re.compile(SUBJECT_NAME_PATTERN)
ImageRef = Annotated[str, StringConstraints(pattern=IMAGE_PATTERN, max_length=255)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN, max_length=63)]
DeviceId = Annotated[str, StringConstraints(pattern=DEVICE_PATTERN)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Annotations = Annotated[dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=64)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def spec(cls: type[T]) -> type[T]:
    """A frozen dataclass that refuses unknown fields where users write it."""
    return with_config(ConfigDict(extra="forbid"))(dataclass(frozen=True, slots=True, kw_only=True)(cls))


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
def record(cls: type[T]) -> type[T]:
    """A frozen struct that only the machine makes: `cls` made anew, as `dataclass(slots=True)` does it.

    Records hold no cycles, so the collector need not know them.
    """
    namespace = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    made = msgspec.StructMeta(cls.__name__, (msgspec.Struct,), namespace, frozen=True, kw_only=True, gc=False)
    return cast("type[T]", made)


def is_subject_name(text: str) -> bool:
    """Whether a user or a group may be called so."""
    return _subject_name.fullmatch(text) is not None


class _Replace(Protocol):
    def __call__(self, old: T, /, **changes: Any) -> T: ...


replace = cast("_Replace", msgspec.structs.replace)
"""`dataclasses.replace`, for records."""


class Kind(StrEnum):
    """Every kind of declared resource, as the API names it."""

    HOST = "Host"
    NAMESPACE = "Namespace"
    MICROVM = "MicroVM"
    PLACEMENT_POLICY = "PlacementPolicy"
    OPERATION = "Operation"
    FAILOVER_POLICY = "FailoverPolicy"
    GC_POLICY = "GCPolicy"
    ROLE = "Role"
    ROLE_BINDING = "RoleBinding"
    MICROVM_GROUP = "MicroVMGroup"
