"""Drift: what the API classes as `drifted` stands in state in place of the intent, so that a plan shows it.

Everything else that differs (a microVM on its way, a host that is not heard, a move by the control plane, a restart on
another host) is not drift and shows no difference. The private state remembers that drift was shown, so that an apply
repairs it even when the intent did not change.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from provider_shim.framework.diagnostics import Report
from provider_shim.framework.types import as_object
from provider_shim.resources.translate import Translation

PRIVATE_KEY = "drift_shown"


def drifted_fields(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    status: dict[str, Any] = stored.get("status") or {}
    drift: dict[str, Any] = status.get("drift") or {}
    return list(drift.get("fields") or ()) if drift.get("class") == "drifted" else []


def with_observed(stored: dict[str, Any], fields: list[dict[str, Any]]) -> dict[str, Any]:
    """A copy of the object with each drifted field as it was observed."""
    shown = copy.deepcopy(stored)
    for each in fields:
        _put(shown, each["pointer"], observed_value(each))
    return shown


def observed_value(entry: Mapping[str, Any]) -> Any:
    """A guest that is absent is shown as stopped: `absent` is no power state that a user can write."""
    observed = entry.get("observed")
    if entry["pointer"] == "/spec/power_state" and observed in (None, "absent"):
        return "stopped"
    return observed


def warn(report: Report, shown_name: str, fields: list[dict[str, Any]], translation: Translation) -> None:
    for each in fields:
        since = f" since {each['since']}" if each.get("since") else ""
        cause = f": {each['cause']}" if each.get("cause") else ""
        pointer = each["pointer"]
        path = translation.path(pointer)
        report.warn(
            f"microVM {shown_name} has drifted",
            f"{pointer.removeprefix('/spec/')} is {_quote(each.get('observed'))} instead of "
            f"{_quote(each.get('desired'))}{since}{cause}. Applying asks the control plane to repair it.",
            path,
        )


def warn_of_silence(report: Report, shown_name: str, stored: Mapping[str, Any]) -> None:
    """What is on a host that is not heard is not known: that is said, and changes nothing."""
    status: dict[str, Any] = stored.get("status") or {}
    found: dict[str, Any] = status.get("drift") or {}
    if found.get("class") != "unreachable":
        return
    told = next((each["message"] for each in status.get("conditions") or () if each.get("type") == "Running"), "")
    report.warn(
        f"Host {status.get('host')} is not heard: what runs there is not known",
        f"microVM {shown_name} stays in state as it was declared{f': {told}' if told else ''}.",
    )


def _quote(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else "nothing" if value is None else str(value)


def _put(target: dict[str, Any], pointer: str, value: Any) -> None:
    """Set (or, for null in a table of ids, remove) what a JSON pointer names. What does not exist is left alone."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    inner: dict[str, Any] | None = target
    for part in parts[:-1]:
        inner = None if inner is None else as_object(inner.get(part))
    if inner is None or not parts:
        return
    if value is None and len(parts) == 3:
        inner.pop(parts[-1], None)
    else:
        inner[parts[-1]] = value
