"""What a new declaration would change, field by field, and what each change does to a running microVM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, cast

from controlplane.model.spec import MICROVM_FIELD_EFFECTS, Effect, MicroVMSpec
from controlplane.model.types import record

_ABSENT: Any = object()


@record
class FieldChange:
    pointer: str
    old: Any
    """None also where the field was not there."""
    new: Any
    effect: Effect


def diff(old: MicroVMSpec | None, new: MicroVMSpec) -> tuple[FieldChange, ...]:
    """Every leaf that differs, in order of its pointer; against nothing, every leaf that is set."""
    before: dict[str, Any] = asdict(old) if old is not None else {}
    found = [
        FieldChange(
            pointer=pointer,
            old=None if was is _ABSENT else was,
            new=None if now is _ABSENT else now,
            effect=MICROVM_FIELD_EFFECTS[pointer.split("/")[2]],
        )
        for pointer, was, now in _leaves("/spec", before, asdict(new))
    ]
    return tuple(sorted(found, key=lambda each: each.pointer))


def _leaves(pointer: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) or isinstance(new, dict):
        was = cast("dict[str, Any]", old if isinstance(old, dict) else {})
        now = cast("dict[str, Any]", new if isinstance(new, dict) else {})
        for key in sorted(was.keys() | now.keys()):
            name = key.replace("~", "~0").replace("/", "~1")
            yield from _leaves(f"{pointer}/{name}", was.get(key, _ABSENT), now.get(key, _ABSENT))
    elif old != new and not (old in (_ABSENT, None) and new in (_ABSENT, None)):
        yield pointer, old, new
