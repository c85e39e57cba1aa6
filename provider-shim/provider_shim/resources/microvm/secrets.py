"""Sensitive metadata: what the API never shows, in Terraform's hands.

The API tells a digest of each value, which only it can make. The digests of what was declared last stay in the private
state; a value whose digest is another one by now was changed elsewhere, and stands in state as `CHANGED`, so that a
plan shows the difference and an apply declares the user's again.

`sensitive_metadata` is in Terraform's state as it is written. Its write-only twin is in no plan and no state, so
nothing tells there whether it changed: it is declared when its version is another one than in state. Until then the
digests are declared, by which the API keeps what it has. What was changed elsewhere takes the version out of state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import AttributeName, Path, Report, attribute, error
from provider_shim.framework.schema import Attribute
from provider_shim.framework.types import NUMBER, Object, Value, as_object
from provider_shim.framework.validate import between
from provider_shim.resources.microvm.attributes import INTENT
from provider_shim.resources.problems import Locator

PRIVATE_KEY = "sensitive_digests"
CHANGED = "(changed elsewhere)"
_PLAIN, _WRITTEN, _VERSION = "sensitive_metadata", "sensitive_metadata_wo", "sensitive_metadata_wo_version"
_MAX_VERSION = 2**53
"""Terraform's numbers are exact far beyond; those of what reads its JSON are not."""

WRITE_ONLY: Mapping[str, Attribute] = {
    _WRITTEN: dataclasses.replace(
        INTENT[_PLAIN],
        write_only=True,
        on_change=None,
        description="As `sensitive_metadata`, in its place, and in no plan and no state of Terraform's either (1.11 "
        "on): it may come from an ephemeral resource or variable. It is declared when "
        "`sensitive_metadata_wo_version` changes.",
    ),
    _VERSION: Attribute(
        type=NUMBER,
        optional=True,
        on_change="restart",
        validators=(between(0, _MAX_VERSION),),
        description="Of `sensitive_metadata_wo`: another number declares its values again. Not in state while they "
        "are others than those that were declared.",
    ),
}


def validate(config: Mapping[str, Value], report: Report) -> None:
    """Values may be null or UNKNOWN."""
    if config.get(_WRITTEN) is None:
        if config.get(_VERSION) is not None:
            report.error("A version of nothing", f"Give {_WRITTEN}, too, or no version of it.", attribute(_VERSION))
        return
    if config.get(_VERSION) is None:
        detail = f"Give {_VERSION}, too: a change of it is what declares the values again."
        report.error(f"{_WRITTEN} has no version", detail, attribute(_WRITTEN))
    if config.get(_PLAIN) is not None:
        report.error("Sensitive metadata twice", f"Give {_PLAIN} or {_WRITTEN}, not both.", attribute(_WRITTEN))


def with_write_only(call: Call, prior: Object | None, planned: Object, body: dict[str, Any]) -> dict[str, Any]:
    """`body` with the values if they are to be declared, else with their digests. Raises ProviderError."""
    version = planned.get(_VERSION)
    if version is None:
        return body
    digests: Mapping[str, str] | None = call.private.get(PRIVATE_KEY)
    if digests is not None and prior is not None and prior.get(_VERSION) == version:
        return {**body, "spec": {**body["spec"], _PLAIN: dict(digests)}}
    if (values := call.config.get(_WRITTEN)) is None:
        raise error(f"{_WRITTEN} has no value", "It came out as null, which declares nothing.", attribute(_WRITTEN))
    return {**body, _PLAIN: values}


def keep_digests(call: Call, stored: Mapping[str, Any]) -> None:
    """Of what was just declared."""
    call.private.pop(PRIVATE_KEY, None)
    if found := _digests(stored):
        call.private[PRIVATE_KEY] = found


def seen(call: Call, prior: Object, stored: dict[str, Any]) -> tuple[Object, dict[str, Any]]:
    """State and object as a read is to take them: with the values that state has of the secrets that are as they were
    declared, without the version of those that are not.
    """
    digests = _digests(stored)
    known: Mapping[str, str] = call.private.get(PRIVATE_KEY) or {}
    if prior.get(_VERSION) is not None:
        if digests == known:
            return prior, stored
        prior = {**prior, _VERSION: None}
    values = as_object(prior.get(_PLAIN)) or {}
    shown = {
        name: values[name] if name in values and known.get(name) == digest else CHANGED
        for name, digest in digests.items()
    }
    return prior, {**stored, _PLAIN: shown} if shown else stored


def local_values(state: Mapping[str, Value]) -> Object:
    """What is in state and not in the API."""
    return {_WRITTEN: None, _VERSION: state.get(_VERSION)}


@dataclass(frozen=True, slots=True)
class _Written:
    """Of a body whose secrets are the write-only ones."""

    others: Locator

    def path(self, pointer: str) -> Path:
        found = self.others.path(pointer)
        return (AttributeName(_WRITTEN), *found[1:]) if found[:1] == (AttributeName(_PLAIN),) else found


def locator(planned: Mapping[str, Value], others: Locator) -> Locator:
    """Finds what the API says in the attributes that the user wrote."""
    return others if planned.get(_VERSION) is None else _Written(others)


def _digests(stored: Mapping[str, Any]) -> dict[str, str]:
    spec: Mapping[str, Any] = stored.get("spec") or {}
    found: Mapping[str, str] = spec.get(_PLAIN) or {}
    return dict(found)
