"""A Terraform plan beside the drift: the output of `terraform show -json PLAN`, read strictly as far as it is used.

`resource_drift` is what Terraform noticed to differ from its state; `resource_changes` is what it means to do, and
names every microVM that it manages, so that drift is shown with its address. Values that Terraform marks as sensitive
are never shown, and neither is anything of a list or object that holds one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from controlplane.cli.diff import MISSING, changes
from controlplane.cli.drift.classes import Class
from controlplane.cli.drift.report import Difference, Finding, clean
from controlplane.cli.errors import CliError
from controlplane.cli.values import Json, mapping, text

LIMIT_BYTES = 64 << 20
MICROVM = "flintlock_microvm"
_HINT = "write it with `terraform show -json PLAN > plan.json`"
_HIDDEN = "(sensitive)"
_UNKNOWN = "(known after apply)"


class Change(msgspec.Struct):
    actions: list[str]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    before_sensitive: Any = None
    after_sensitive: Any = None
    after_unknown: Any = None


class ResourceChange(msgspec.Struct):
    address: str
    type: str
    change: Change
    mode: str = "managed"


class Document(msgspec.Struct):
    format_version: str
    resource_changes: list[ResourceChange] = []
    resource_drift: list[ResourceChange] = []
    errored: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    findings: tuple[Finding, ...]
    addresses: dict[str, str]
    """Uid of every microVM that Terraform manages -> its address."""


def read(path: Path) -> Plan:
    """Raises CliError, with the JSON pointer of what does not fit."""
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > LIMIT_BYTES:
        raise CliError(f"{path}: is over {LIMIT_BYTES >> 20} MiB")
    try:
        document = msgspec.json.decode(raw, type=Document)
    except msgspec.ValidationError as error:
        raise CliError(f"{path}: {_with_pointer(str(error))}", hint=_HINT) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CliError(f"{path}: is not JSON: {error}", hint=_HINT) from None
    if document.format_version.partition(".")[0] != "1":
        version = clean(document.format_version)
        raise CliError(f"{path}: /format_version: {version!r} is not known; 1.x is", hint=_HINT)
    if document.errored:
        raise CliError(f"{path}: /errored: the plan failed, so it does not tell everything", hint="plan again")
    return Plan(tuple(_findings(document)), _addresses(document))


def as_document(plan: Plan) -> Json:
    """What the plan adds, for formats that are read by programs."""
    return {
        "addresses": plan.addresses,
        **{
            klass.value: [_plain(each) for each in plan.findings if each.klass is klass]
            for klass in (Class.CHANGED_OUTSIDE, Class.PLANNED)
        },
    }


def _plain(finding: Finding) -> Json:
    fields = [{"pointer": d.pointer, "desired": d.desired, "observed": d.observed} for d in finding.differences]
    return {"address": finding.address, "actions": list(finding.actions), "fields": fields}


def _findings(document: Document) -> Iterator[Finding]:
    for each in document.resource_drift:
        yield _finding(each, Class.CHANGED_OUTSIDE)
    for each in document.resource_changes:
        if each.mode == "managed" and not {"no-op", "read"} & set(each.change.actions):
            yield _finding(each, Class.PLANNED)


def _finding(each: ResourceChange, klass: Class) -> Finding:
    address = clean(each.address)
    return Finding(
        klass=klass,
        resource=f"{address} ({clean(' and '.join(each.change.actions))})",
        identity=address,
        address=address,
        actions=tuple(map(clean, each.change.actions)),
        differences=tuple(_differences(each.change, klass)),
    )


def _differences(change: Change, klass: Class) -> Iterator[Difference]:
    """For what was changed outside, `before` is what is meant to be; for what is planned, it is what there is."""
    if change.before is None or change.after is None:
        return  # made or gone as a whole: every field would say the same
    for pointer, before, after in changes(change.before, change.after):
        hidden = _holds(change.before_sensitive, pointer) or _holds(change.after_sensitive, pointer)
        old = _HIDDEN if hidden else _shown(before)
        unknown = _holds(change.after_unknown, pointer)
        new = _UNKNOWN if unknown else _HIDDEN if hidden else _shown(after)
        if klass is Class.CHANGED_OUTSIDE:
            yield Difference(pointer=clean(pointer), desired=old, observed=new)
        else:
            yield Difference(pointer=clean(pointer), desired=new, observed=old)


def _holds(marks: Any, pointer: str) -> bool:
    """Whether a mark is on the way to `pointer`, on it, or below it. `marks` has the value's shape, with true on what
    is marked.
    """
    for part in pointer.removeprefix("/").split("/"):
        if not isinstance(marks, dict):
            break
        marks = mapping(marks).get(part.replace("~1", "/").replace("~0", "~"))
    return _any(marks)


def _any(marks: Any) -> bool:
    if isinstance(marks, dict):
        return any(_any(each) for each in mapping(marks).values())
    if isinstance(marks, list):
        return any(_any(each) for each in marks)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return marks is True


def _shown(value: Any) -> str:
    if value is MISSING or value is None:
        return ""
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _addresses(document: Document) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in document.resource_changes:
        uid = text(mapping(each.change.before).get("uid"))
        if each.type == MICROVM and uid:
            found[uid] = clean(each.address)
    return found


def _with_pointer(message: str) -> str:
    """msgspec's `... - at `$.resource_changes[0].address`` as `/resource_changes/0/address: ...`."""
    told, _, path = message.partition(" - at `$")
    pointer = path.rstrip("`").replace("[", "/").replace("]", "").replace(".", "/")
    return f"{pointer or '/'}: {told[0].lower()}{told[1:]}"
