"""The host: its drivers, its images and its lease."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import MicroVMSpec, PowerState


class DriverError(Exception):
    """A driver could not do what was asked.

    `code` is stable and CamelCase (`ImageNotFound`, `InsufficientMemory`, `HypervisorFailed`, ...), `pointer` names the
    field of the spec it is about when there is one, and `retryable` says whether trying again may help without a change
    of the spec or of the host.
    """

    def __init__(self, code: str, message: str, *, pointer: str | None = None, retryable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class VMDefinition:
    """One microVM as a host is to run it. Uid and epoch travel into the hypervisor, so a stale copy is known."""

    cluster_id: str
    uid: str
    namespace: str
    name: str
    epoch: int
    generation: int
    labels: Mapping[str, str]
    spec: MicroVMSpec
    sensitive: Mapping[str, str] = field(default_factory=dict[str, str], repr=False, compare=False)
    """Values of the spec's `sensitive_metadata`, by name; for the guest alone. No driver keeps them in its records."""

    def public(self) -> VMDefinition:
        """Without the secrets: what may be recorded and told."""
        return replace(self, sensitive={})


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    host_device: str
    mac_address: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A microVM that a driver found on the host, ours or not. What the driver cannot know is None."""

    uid: str | None
    """The control plane's uid; None for a microVM that no control plane made."""
    native_id: str
    """How the driver itself names it (directory, Flintlock uid, ...); stable while it exists."""
    cluster_id: str | None
    namespace: str | None
    name: str | None
    epoch: int | None
    generation: int | None
    """Generation of the definition that the present process was started from."""
    power: ObservedPower
    ready: bool
    """The guest said so since its last start."""
    vcpu: int | None
    memory_in_mb: int | None
    cause: str | None
    """Why it is not running, when known: `process exited (signal 9)`, `guest powered off`, ..."""
    details: Mapping[str, str]
    """Driver-specific facts for people, such as the pid; never secrets."""
    interfaces: Mapping[str, InterfaceStatus]


@dataclass(frozen=True, slots=True)
class Remains:
    """What a driver found of a microVM that is gone. What the thing itself does not say is None."""

    driver: str
    kind: LeftoverKind
    name: str
    """Unlike all others of the driver: `tap/fl01ab`, `trash/UID`."""
    uid: str | None = None
    cluster_id: str | None = None
    """None of a thing that is only ever this driver's, whatever cluster it served."""
    microvm: str | None = None
    """NAMESPACE/NAME."""
    epoch: int | None = None
    bytes: int = 0
    """On disk."""
    marked: bool = False
    """It says by itself that this driver made it: without that, it is never deleted."""


@dataclass(frozen=True, slots=True)
class DriverInfo:
    name: str
    version: str
    simulated: bool
    accelerator: str | None
    """`kvm`, `tcg` or None where it means nothing."""
    fences: bool = False
    """It ends by itself what may run only under a lease, whatever becomes of the agent."""


LEASE_ENDED = "the host's lease ended"
"""The cause that a driver gives of a microVM that it halted or ended for that reason."""

MAINTENANCE = "its host is in maintenance"
"""The cause that an agent gives of a microVM that it shut down for that reason."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The host's right to run what may move, until a time on CLOCK_BOOTTIME."""

    ends_s: float
    """Seconds on CLOCK_BOOTTIME."""
    grace_s: float
    """How long after that what is only paused is kept."""
    ttl_s: float = 0.0
    """How long it lives, from when the heartbeat that it answers was sent; 0: not known."""


class HostDriver(Protocol):
    """One technology that runs microVMs on this host. Every call is idempotent and keyed by uid.

    All calls raise DriverError. `create`, `update` and `set_power` on a uid that exists with a higher epoch are refused
    with code `StaleEpoch`.
    """

    @property
    def info(self) -> DriverInfo: ...

    async def start(self) -> None:
        """Open what the driver needs and find the microVMs that outlived the agent."""
        ...

    async def stop(self) -> None:
        """Close the driver; microVMs keep running."""
        ...

    async def check(self, spec: MicroVMSpec) -> None:
        """Raise DriverError when this host could not run `spec` (image missing, feature unsupported): used for bids."""
        ...

    async def list(self) -> Sequence[Instance]:
        """Everything the driver can see. Raises rather than return a partial list."""
        ...

    async def create(self, vm: VMDefinition) -> None:
        """Make it exist in its desired power state; repeating with the same epoch completes a broken attempt."""
        ...

    async def update(self, vm: VMDefinition) -> None:
        """Make an existing one match `vm`, restarting the guest when its configuration must; volumes are kept."""
        ...

    async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
        """Start, stop (asking the guest first, for `grace_s`), pause or resume. `stopped` keeps the volumes."""
        ...

    async def destroy(self, uid: str, *, grace_s: float) -> None:
        """Stop it and remove every trace: process, taps, disks, files; verified. Absent is success."""
        ...

    async def definition(self, uid: str) -> VMDefinition | None:
        """What the microVM `uid` was told to be when it was made or changed last; None when there is no such microVM
        here, or no trace of that.
        """
        ...

    async def leftovers(self, uid: str | None = None) -> Sequence[Remains]:
        """What is still here of the microVM `uid` (process, taps, disks, files), but for what is kept on purpose; empty
        once nothing is. Without a uid: of all microVMs that `list` does not show any more, what is kept on purpose
        among it, as far as the driver can tell it from what is not its own.
        """
        ...

    async def clear(self, name: str) -> None:
        """Delete what `leftovers()` calls `name`; absent is success, and so is what is no leftover any more. What does
        not carry the driver's mark is refused with code `NotOurs`.
        """
        ...

    async def keep_until_told(self) -> None:
        """From now on, and after every restart: what is kept on purpose goes by `clear`, and no more by this host's
        clock. Only a disk that is nearly full may still need it earlier.
        """
        ...

    async def renew(self, lease: Lease) -> None:
        """Let microVMs whose `on_detach` is not `keep` run until the lease ends, and no longer: at its end they are
        paused or killed as their definition says, even if this process is gone or frozen by then. What an earlier
        lease's end paused goes on. The lease counts once this returns; before the first one nothing of that kind runs.

        Drivers whose `info.fences` is false never run such microVMs (`check` refuses them) and do nothing here.
        """
        ...

    async def held(self) -> Lease | None:
        """The lease that what is here may run under, as whoever ends it at its end knows it; None where there is none.

        Also one that an earlier agent handed over.
        """
        ...

    async def console(self, uid: str, *, offset: int, limit: int) -> tuple[int, bytes]:
        """Serial console from `offset` bytes since creation (negative: from the end); gives (next offset, bytes)."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yields whenever something may have changed; it only wakes the agent, which then lists."""
        ...


class ImageStore(Protocol):
    """The host's local images: named trees of files that hold kernels, initrds and root disks."""

    def resolve(self, image: str, filename: str | None, *, role: str) -> Path:
        """The file that `image` means for `role` (`kernel`, `initrd` or `disk`).

        Raises DriverError with code `ImageNotFound` or `ImageFileNotFound`, naming what exists instead.
        """
        ...
