"""What may be done for one microVM: values that the plan makes and the executor carries out.

`before` is journaled before the driver is called, `after` once the effect was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.agent.journal import Record
from controlplane.model.spec import PowerState
from controlplane.ports import VMDefinition


@dataclass(frozen=True, slots=True)
class Create:
    uid: str
    driver: str
    reason: str
    vm: VMDefinition
    before: Record
    """Journaled before the driver is called."""
    after: Record
    then_update: bool = False
    """The broken attempt that this completes may have been of another generation."""
    drift: str | None = None
    """What had changed behind our back, when that is why."""


@dataclass(frozen=True, slots=True)
class Update:
    uid: str
    driver: str
    reason: str
    vm: VMDefinition
    after: Record
    drift: str | None = None


@dataclass(frozen=True, slots=True)
class SetPower:
    uid: str
    driver: str
    reason: str
    power: PowerState
    after: Record
    drift: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    uid: str
    driver: str
    reason: str
    power: PowerState
    """Where it is to end: running or paused."""
    after: Record


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The lease is about to end: the guest may still do in good order what is else done to it."""

    uid: str
    driver: str
    reason: str
    before: Record


@dataclass(frozen=True, slots=True)
class Destroy:
    uid: str
    driver: str
    reason: str
    epoch: int
    before: Record


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Nothing to do on the host; the journal takes note."""

    uid: str
    driver: str
    reason: str
    after: Record


@dataclass(frozen=True, slots=True)
class Forget:
    """A record of something that neither the host nor the control plane knows any more."""

    uid: str
    reason: str


Step = Create | Update | SetPower | Restart | ShutDown | Destroy | Acknowledge | Forget
