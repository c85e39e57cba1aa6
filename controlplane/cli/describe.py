"""One resource for people: what it is, what was asked of it, what was seen of it, and what is wrong with it."""

from __future__ import annotations

import json
from typing import cast

from controlplane.cli import output
from controlplane.cli.columns import age, target_name
from controlplane.cli.values import Json, dig, mapping, objects, text

_SKIPPED = {"conditions", "drift", "unmanaged", "left_behind", "stale", "bids"}


def show(resource: Json, now_ms: int) -> None:
    entries = [("Resource", target_name(resource)), ("UID", text(resource.get("uid")))]
    if "spec" not in resource:  # an operation
        entries = [("Operation", text(resource.get("id")))]
        entries += _flat({key: value for key, value in resource.items() if key != "id"}, "")
        output.pairs(entries)
        return
    if resource.get("declared") is False:
        entries.append(("Declared", "no: admit it with `flintctl host admit`"))
    for title, field in (("Labels", "labels"), ("Annotations", "annotations")):
        values = mapping(resource, field)
        entries += [(title, "\n".join(f"{key}={value}" for key, value in sorted(values.items())))] if values else []
    entries.append(("Generation", f"{text(resource.get('generation'))} (revision {text(resource.get('revision'))})"))
    entries.append(("Created", f"{text(resource.get('created_at'))} ({age(resource.get('created_at'), now_ms)} ago)"))
    if resource.get("deletion_requested_at"):
        entries.append(("Deletion requested", text(resource["deletion_requested_at"])))
    output.pairs([entry for entry in entries if entry[1]])
    for title, part in (("Spec", mapping(resource, "spec")), ("Status", mapping(resource, "status"))):
        flat = _flat({key: value for key, value in part.items() if key not in _SKIPPED}, "")
        if flat:
            print(f"\n{title}")
            output.pairs([(f"  {key}", value) for key, value in flat])
    _tables(resource, now_ms)


def _tables(resource: Json, now_ms: int) -> None:
    conditions = objects(resource, "status", "conditions")
    if conditions:
        print("\nConditions")
        rows = [
            [
                text(c.get("type")),
                text(c.get("status")),
                text(c.get("reason")),
                age(c.get("since"), now_ms),
                text(c.get("message")),
            ]
            for c in conditions
        ]
        output.table(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows, empty="")
    drift = drift_rows(objects(resource, "status", "drift", "fields"), now_ms)
    if drift:
        print(f"\nDrift ({text(dig(resource, 'status', 'drift', 'class'))})")
        output.table(["FIELD", "DESIRED", "OBSERVED", "SINCE", "CAUSE"], drift, empty="")
    stale = objects(resource, "status", "stale")
    if stale:
        print("\nOrders to destroy copies here, not yet confirmed")
        rows = [
            [text(order.get("uid")), text(order.get("epoch")), text(dig(order, "deletion", "reason"))]
            for order in stale
        ]
        output.table(["UID", "EPOCH", "REASON"], rows, empty="")
    unmanaged = objects(resource, "status", "unmanaged")
    if unmanaged:
        print("\nUnmanaged microVMs (reported; `flintctl gc plan` says what becomes of them)")
        rows = [[text(vm.get("uid")), text(vm.get("name")), text(vm.get("power_state"))] for vm in unmanaged]
        output.table(["UID", "NAME", "POWER"], rows, empty="")

    left = objects(resource, "status", "left_behind")
    if left:
        print("\nLeft behind by microVMs that are gone (`flintctl gc plan` says what becomes of it)")
        rows = [
            [
                text(each.get("name")),
                text(each.get("microvm")),
                text(each.get("bytes")),
                age(each.get("since"), now_ms),
                _fate(each),
            ]
            for each in left
        ]
        output.table(["NAME", "MICROVM", "BYTES", "FOR", "WHAT BECOMES OF IT"], rows, empty="")


def _fate(left: Json) -> str:
    if order := text(dig(left, "deletion", "reason")):
        return f"ordered to go: {order}"
    if hold := text(dig(left, "hold", "reason")):
        return f"held: {hold}"
    return "" if left.get("ours") else "only its owner can delete it"


def drift_rows(fields: list[Json], now_ms: int) -> list[list[str]]:
    return [
        [
            text(f.get("pointer")),
            text(f.get("desired")),
            text(f.get("observed")),
            age(f.get("since"), now_ms),
            text(f.get("cause")),
        ]
        for f in fields
    ]


def _flat(value: Json, prefix: str) -> list[tuple[str, str]]:
    """Nested fields as `kernel.image`; what is empty is left out."""
    entries: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            entries += _flat(mapping(value, key), f"{name}.")
        elif isinstance(item, list):
            entries += [(name, ", ".join(json.dumps(part) for part in cast("list[object]", item)))] if item else []
        elif item is not None and item != "":
            entries.append((name, text(item)))
    return entries
