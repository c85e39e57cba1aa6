"""What each kind of resource shows in a list. Pure: a resource as the API gives it, to cells."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.cli.values import Json, dig, mapping, objects, text

Cell = Callable[[Json, int], str]
"""Gets the resource and the present time (ms)."""


@dataclass(frozen=True, slots=True)
class Column:
    header: str
    cell: Cell
    wide: bool = False


def at(*path: str) -> Cell:
    return lambda resource, _: text(dig(resource, *path))


def age(timestamp: object, now_ms: int) -> str:
    """How long ago an RFC 3339 time was: `5s`, `3m`, `2h`, `4d`."""
    if not isinstance(timestamp, str):
        return ""
    try:
        then = datetime.datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    seconds = max(0, now_ms // 1000 - int(then.timestamp()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def labels(resource: Json, _now_ms: int) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(mapping(resource, "labels").items()))


def _age_of(*path: str) -> Cell:
    return lambda resource, now_ms: age(dig(resource, *path), now_ms)


def _ready(resource: Json, _now_ms: int) -> str:
    return "yes" if dig(resource, "status", "ready") else "no"


def _power(resource: Json, _now_ms: int) -> str:
    observed, wanted = dig(resource, "status", "power_state"), dig(resource, "spec", "power_state")
    if observed is None or observed == wanted:
        return text(observed or (wanted and f"({wanted})"))
    return f"{observed} (wanted: {wanted})"


def _drift(resource: Json, _now_ms: int) -> str:
    fields = objects(resource, "status", "drift", "fields")
    kind = text(dig(resource, "status", "drift", "class"))
    return kind if not fields else f"{kind}: {', '.join(field.get('pointer', '') for field in fields)}"


def _used(unit: str) -> Cell:
    def cell(resource: Json, _now_ms: int) -> str:
        allocated, capacity = dig(resource, "status", "allocated", unit), dig(resource, "status", "capacity", unit)
        return f"{text(allocated) or '0'}/{text(capacity) or '?'}"

    return cell


def _quota(unit: str, limit: str) -> Cell:
    def cell(resource: Json, _now_ms: int) -> str:
        used, most = dig(resource, "status", "used", unit), dig(resource, "spec", limit)
        return f"{text(used) or '0'}/{'unlimited' if most is None else most}"

    return cell


def _schedulable(resource: Json, _now_ms: int) -> str:
    if resource.get("declared") is False:
        return "not admitted"
    availability = text(dig(resource, "status", "availability"))
    return "yes" if availability == "open" else availability.replace("_", " ")


def _last_seen(resource: Json, now_ms: int) -> str:
    """Of a host that is heard, the API knows no time: its heartbeats are in no log."""
    conditions = objects(resource, "status", "conditions")
    if any(each.get("type") == "Connected" and each.get("status") == "true" for each in conditions):
        return "now"
    return age(dig(resource, "status", "last_seen_at"), now_ms)


def _reprovision(resource: Json, _now_ms: int) -> str:
    return "yes" if dig(resource, "status", "ready_for_reprovisioning") else "no"


def _reason(resource: Json, _now_ms: int) -> str:
    """Why a host is not heard, and who said that it is off."""
    reason, by = text(dig(resource, "status", "reason")), text(dig(resource, "status", "confirmed_by"))
    return "; ".join(filter(None, (reason, f"off, says {by}" if by else "")))


def _driver(resource: Json, _now_ms: int) -> str:
    driver = text(dig(resource, "status", "driver"))
    return f"{driver} (simulated)" if dig(resource, "status", "simulated") and driver != "simulated" else driver


MICROVM = [
    Column("NAMESPACE", at("namespace")),
    Column("NAME", at("name")),
    Column("PHASE", at("status", "phase")),
    Column("POWER", _power),
    Column("READY", _ready),
    Column("HOST", at("status", "host")),
    Column("VCPU", at("spec", "vcpu")),
    Column("MEMORY-MB", at("spec", "memory_in_mb")),
    Column("DRIFT", _drift),
    Column("AGE", _age_of("created_at")),
    Column("DRIVER", _driver, wide=True),
    Column("KERNEL", at("spec", "kernel", "image"), wide=True),
    Column("GENERATION", at("generation"), wide=True),
    Column("EPOCH", at("status", "epoch"), wide=True),
    Column("ON-DETACH", at("status", "on_detach"), wide=True),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
GROUP = [
    Column("NAMESPACE", at("namespace")),
    Column("NAME", at("name")),
    Column("READY", lambda group, _: f"{dig(group, 'status', 'ready')}/{dig(group, 'spec', 'replicas')}"),
    Column("UPDATED", at("status", "updated")),
    Column("ENDING", at("status", "ending")),
    Column("PROGRESS", lambda group, _: _progress(objects(group, "status", "conditions"))),
    Column("DRIFTED", at("status", "drifted")),
    Column("AGE", _age_of("created_at")),
    Column("KERNEL", at("spec", "template", "kernel", "image"), wide=True),
    Column("GENERATION", at("generation"), wide=True),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
HOST = [
    Column("NAME", at("name")),
    Column("PHASE", at("status", "phase")),
    Column("SCHEDULABLE", _schedulable),
    Column("DRIVER", _driver),
    Column("MICROVMS", at("status", "allocated", "microvms")),
    Column("VCPU", _used("vcpu")),
    Column("MEMORY-MB", _used("memory_in_mb")),
    Column("LAST-SEEN", _last_seen),
    Column("REASON", _reason),
    Column("ORDERS", lambda host, _: str(len(dig(host, "status", "stale") or [])), wide=True),
    Column("LEASE-S", at("status", "lease_ttl_s"), wide=True),
    Column("NODE", at("status", "connected_to"), wide=True),
    Column("VERSION", at("status", "agent_version"), wide=True),
    Column("REPROVISION", _reprovision, wide=True),
    Column("UNMANAGED", lambda host, _: str(len(dig(host, "status", "unmanaged") or [])), wide=True),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
NAMESPACE = [
    Column("NAME", at("name")),
    Column("PHASE", at("status", "phase")),
    Column("MICROVMS", _quota("microvms", "max_microvms")),
    Column("VCPU", _quota("vcpu", "max_vcpu")),
    Column("MEMORY-MB", _quota("memory_in_mb", "max_memory_in_mb")),
    Column("AGE", _age_of("created_at")),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
POLICY = [
    Column("NAME", at("name")),
    Column("USED-BY", at("status", "used_by")),
    Column("REQUIRES", lambda policy, _: _selector(dig(policy, "spec", "required_host_labels"))),
    Column("PREFERS", lambda policy, _: _selector(dig(policy, "spec", "preferred_host_labels"))),
    Column("SPREAD", lambda policy, _: _spread(dig(policy, "spec", "spread"))),
    Column("AGE", _age_of("created_at")),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
FAILOVER_POLICY = [
    Column("NAME", at("name")),
    Column("USED-BY", at("status", "used_by")),
    Column("RESTART", at("spec", "restart")),
    Column("DELAY", lambda policy, _: _seconds(dig(policy, "spec", "delay_s"))),
    Column("PRIORITY", at("spec", "priority")),
    Column("PER-MINUTE", at("spec", "max_per_minute")),
    Column("AGE", _age_of("created_at")),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
GC_POLICY = [
    Column("NAME", at("name")),
    Column("FAILED-MICROVM", lambda policy, _: _kept(dig(policy, "spec", "failed_microvm_after_s"))),
    Column("UNMANAGED-MICROVM", lambda policy, _: _kept(dig(policy, "spec", "unmanaged_microvm_after_s"))),
    Column("LOST-HOST", lambda policy, _: _kept(dig(policy, "spec", "lost_host_after_s"))),
    Column("LEFTOVER", lambda policy, _: _kept(dig(policy, "spec", "leftover_after_s")), wide=True),
    Column("VOLUMES", lambda policy, _: _kept(dig(policy, "spec", "quarantined_volumes_after_s"))),
    Column("LOST-TOMBSTONE", lambda policy, _: _kept(dig(policy, "spec", "lost_tombstone_after_s")), wide=True),
    Column("FINISHED-OPERATION", lambda policy, _: _kept(dig(policy, "spec", "finished_operation_after_s"))),
    Column("AUDIT-RECORDS", lambda policy, _: _kept(dig(policy, "spec", "audit_records_after_s")), wide=True),
    Column("AGE", _age_of("created_at")),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
ROLE = [
    Column("NAME", at("name")),
    Column("RULES", lambda role, _: str(len(dig(role, "spec", "rules") or []))),
    Column("AGE", _age_of("created_at")),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
ROLE_BINDING = [
    Column("NAME", at("name")),
    Column("ROLE", at("spec", "role")),
    Column("SUBJECTS", lambda binding, _: _subjects(objects(binding, "spec", "subjects"))),
    Column("NAMESPACES", lambda binding, _: ",".join(dig(binding, "spec", "namespaces") or [])),
    Column("AGE", _age_of("created_at")),
    Column("UID", at("uid"), wide=True),
    Column("LABELS", labels, wide=True),
]
OPERATION = [
    Column("ID", at("id")),
    Column("KIND", at("kind")),
    Column("TARGET", lambda operation, _: target_name(operation.get("target") or {})),
    Column("PHASE", at("phase")),
    Column("STARTED", _age_of("started_at")),
    Column("MESSAGE", at("message")),
    Column("FINISHED", _age_of("finished_at"), wide=True),
    Column("UID", at("target", "uid"), wide=True),
]


def target_name(resource: Json) -> str:
    """`MicroVM demo/web-a`, `Host h1`, ..."""
    name = resource.get("name") or f"uid {resource.get('uid') or 'unknown'}"
    prefix = f"{resource['namespace']}/" if resource.get("namespace") else ""
    return f"{resource.get('kind', '')} {prefix}{name}".strip()


def _progress(conditions: list[Json]) -> str:
    return next((text(each.get("reason")) for each in conditions if each.get("type") == "Progressing"), "")


def _kept(seconds: object) -> str:
    return "for ever" if seconds is None else f"{seconds} s"


def _subjects(subjects: list[Json]) -> str:
    return ",".join(f"{each.get('kind')}/{each.get('name')}" for each in subjects)


def _seconds(seconds: object) -> str:
    return "" if seconds is None else f"{seconds} s"


def _selector(required: Mapping[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((required or {}).items()))


def _spread(spread: Mapping[str, object] | None) -> str:
    return "" if not spread else f"{spread.get('max_per')} per {spread.get('by')}"
