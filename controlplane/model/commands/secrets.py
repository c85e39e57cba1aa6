"""The data keys, and values that are sealed anew."""

from __future__ import annotations

from controlplane.model.credentials import Sealed
from controlplane.model.secrets import SealedValue
from controlplane.model.types import record


@record
class AddDataKey:
    """From now on another data key encrypts."""

    id: str
    key: Sealed
    replaces: str | None
    """The one that did when this was decided; None: there was none."""


@record
class Reseal:
    """The same values under another data key, by uid of their microVM and by name. What has changed meanwhile stays."""

    values: dict[str, dict[str, Resealed]]


@record
class Resealed:
    digest: str
    """Of the value that was sealed anew."""
    sealed: SealedValue


@record
class DropDataKey:
    """An earlier data key that nothing is sealed with any more."""

    id: str
