"""The classes of what a report finds, and what each means to whoever reads it in a pipeline.

Five are the API's. Two come from a Terraform plan: what Terraform noticed to be changed outside of it, and what it
means to change. Only some can be what a run fails on: an unreachable host is a warning, since what runs there is not
known, and nothing that moved is drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Class(StrEnum):
    DRIFTED = "drifted"
    UNMANAGED = "unmanaged"
    CHANGED_OUTSIDE = "changed_outside"
    UNREACHABLE = "unreachable"
    PROGRESSING = "progressing"
    PLANNED = "planned"
    IN_SYNC = "in_sync"


class FailOn(StrEnum):
    """The classes that can make `--exit-code` answer 2."""

    DRIFTED = Class.DRIFTED.value
    UNMANAGED = Class.UNMANAGED.value
    CHANGED_OUTSIDE = Class.CHANGED_OUTSIDE.value
    PROGRESSING = Class.PROGRESSING.value
    PLANNED = Class.PLANNED.value


FAIL_ON_DEFAULT = frozenset({Class.DRIFTED, Class.CHANGED_OUTSIDE})
FROM_PLAN = frozenset({Class.CHANGED_OUTSIDE, Class.PLANNED})
WARNINGS = frozenset({Class.UNMANAGED, Class.UNREACHABLE})
"""What is worth a look even where it fails nothing."""


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    """A heading over the findings of a class."""
    meaning: str
    """One sentence."""
    advice: str
    """What to do about it."""


WORDS = {
    Class.DRIFTED: Words(
        "Drifted",
        "A host did what was asked, and something else is there now.",
        "With drift_policy = repair it heals by itself; with report, `terraform apply` or `flintctl vm repair` "
        "repairs it. If the change was meant, declare it.",
    ),
    Class.UNMANAGED: Words(
        "Unmanaged",
        "A microVM was found on a host, and nobody declared it.",
        "Declare and import it, or end it there; `flintctl gc plan` shows whether it will be collected.",
    ),
    Class.CHANGED_OUTSIDE: Words(
        "Changed outside of Terraform",
        "Terraform's state and what it reads now differ, and Terraform did not do it.",
        "`terraform apply` puts the declared value back; change the configuration if the new one was meant.",
    ),
    Class.UNREACHABLE: Words(
        "Unreachable",
        "The host cannot be asked, so what runs there is not known. That is no drift.",
        "See to the host: `flintctl host show NAME` says since when it is silent and what happens next.",
    ),
    Class.PROGRESSING: Words(
        "In progress",
        "The control plane is at work on it: being placed, started, moved or repaired.",
        "Wait and look again; `flintctl vm why NAME` says what it waits for.",
    ),
    Class.PLANNED: Words(
        "Planned by Terraform",
        "The configuration asks for something that is not so yet.",
        "Review the plan, and apply the saved one.",
    ),
    Class.IN_SYNC: Words("In sync", "It is as it was declared.", "Nothing is to be done."),
}
