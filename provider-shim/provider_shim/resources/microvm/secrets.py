"""Sensitive metadata: what the API never shows, in Terraform's state.

The API tells a digest of each value, which only it can make. The digests of what was declared last stay in the private
state; a value whose digest is another one by now was changed elsewhere, and stands in state as `CHANGED`, so that a
plan shows the difference and an apply declares the user's again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provider_shim.framework.call import Call
from provider_shim.framework.types import as_object

PRIVATE_KEY = "sensitive_digests"
CHANGED = "(changed elsewhere)"


def keep_digests(call: Call, stored: Mapping[str, Any]) -> None:
    """Of what was just declared."""
    call.private.pop(PRIVATE_KEY, None)
    if found := _digests(stored):
        call.private[PRIVATE_KEY] = found


def with_values(call: Call, prior: Mapping[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """The object with the values that `prior` has of the secrets that are as they were declared."""
    digests = _digests(stored)
    if not digests:
        return stored
    known: Mapping[str, str] = call.private.get(PRIVATE_KEY) or {}
    values = as_object(prior.get("sensitive_metadata")) or {}
    shown = {
        name: values[name] if name in values and known.get(name) == digest else CHANGED
        for name, digest in digests.items()
    }
    return {**stored, "sensitive_metadata": shown}


def _digests(stored: Mapping[str, Any]) -> dict[str, str]:
    spec: Mapping[str, Any] = stored.get("spec") or {}
    found: Mapping[str, str] = spec.get("sensitive_metadata") or {}
    return dict(found)
