"""What a host's agent does next, in an operator's words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PlanVerb(StrEnum):
    """What an agent does with one microVM next."""

    KEEP = "keep"
    RESUME = "resume"
    """Let run again what the end of the lease, or a maintenance, had stopped."""
    CREATE = "create"
    CHANGE = "change"
    """Put another intent, a restart or a repair into effect."""
    ADOPT = "adopt"
    """It is there as it was assigned, and the agent has no record of it."""
    DESTROY = "destroy"
    HALT = "halt"
    WAIT = "wait"
    """Nothing is done, although something differs or cannot be known."""
    REPORT = "report"
    """Nobody accounts for it: it is listed as unmanaged and never touched."""


@dataclass(frozen=True, slots=True)
class PlanItem:
    verb: PlanVerb
    uid: str | None
    """None of a microVM that no control plane made."""
    namespace: str | None
    name: str | None
    epoch: int | None
    driver: str
    """Empty where nothing of it is."""
    native_id: str | None
    """Of those that are reported."""
    reason: str
