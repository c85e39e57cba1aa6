"""What a user declares.

Field names are Flintlock's (`vcpu`, `memory_in_mb`, `root_volume`, ...); volumes and interfaces are maps by id. Every
field of a microVM has an *effect*, published by the API and used by `machine` to decide what an update does: `live`
(takes effect at once), `restart` (the guest is stopped and started again with its volumes) or `replace` (a different
microVM: delete and create).
"""

from __future__ import annotations

import ipaddress
from dataclasses import field
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from controlplane.model.secrets import SecretDigest
from controlplane.model.types import (
    BRIDGE_PATTERN,
    DRIVER_PATTERN,
    KERNEL_ARG_NAME_PATTERN,
    KERNEL_ARG_PATTERN,
    MAC_PATTERN,
    PATH_PATTERN,
    DeviceId,
    Flag,
    ImageRef,
    Integer,
    LabelKey,
    Labels,
    Name,
    spec,
)


class PowerState(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


class DriftPolicy(StrEnum):
    REPAIR = "repair"
    """The agent repairs what it finds changed, at once."""
    REPORT = "report"
    """Drift is shown and left alone until someone asks for a repair."""


class HostFailure(StrEnum):
    NEVER = "never"
    RESTART_ELSEWHERE = "restart_elsewhere"


class Restart(StrEnum):
    """When a failover policy lets what may be restarted elsewhere be restarted."""

    IMMEDIATE = "immediate"
    DELAYED = "delayed"
    """Once its host has been fenced for `delay_s` and is not back."""
    NEVER = "never"


class OnDetach(StrEnum):
    """What a host does with a microVM when its lease ends (docs/adr/0100)."""

    PAUSE = "pause"
    """Halted at once, killed after the lease's grace."""
    STOP = "stop"
    """Killed at once."""
    SHUTDOWN = "shutdown"
    """Asked to power off when half of the lease has passed without a grant; killed at its end."""
    KEEP = "keep"
    """Runs on. Never resurrected without an operator's word."""


class HostMode(StrEnum):
    """What a host is kept for (docs/adr/0106)."""

    ACTIVE = "active"
    DRAIN = "drain"
    """Nothing new comes, and what may move is moved; the rest runs on."""
    MAINTENANCE = "maintenance"
    """As `drain`, and what cannot move is shut down where it is, until the host is active again."""


class VolumeKind(StrEnum):
    EPHEMERAL = "ephemeral"
    """Filled from its source when the microVM is created or regenerated; worth nothing afterwards."""
    LOCAL = "local"
    """Lives on one host and is worth keeping."""
    SHARED = "shared"
    """Reachable from every host."""


class InterfaceType(StrEnum):
    TAP = "tap"
    MACVTAP = "macvtap"


class Effect(StrEnum):
    LIVE = "live"
    RESTART = "restart"
    REPLACE = "replace"


def _check_cidr(value: str) -> str:
    prefix = value.partition("/")[2]
    if not (prefix.isascii() and prefix.isdigit()):  # ipaddress also takes a netmask there
        raise ValueError("must be an address with a prefix length, such as 10.0.0.2/24")
    ipaddress.ip_interface(value)
    return value


def _check_ip(value: str) -> str:
    ipaddress.ip_address(value)
    return value


Cidr = Annotated[str, StringConstraints(max_length=64), AfterValidator(_check_cidr)]
IpAddress = Annotated[str, StringConstraints(max_length=64), AfterValidator(_check_ip)]
Path = Annotated[str, StringConstraints(max_length=255, pattern=PATH_PATTERN)]
KernelArgName = Annotated[str, StringConstraints(pattern=KERNEL_ARG_NAME_PATTERN)]
MetadataValue = Annotated[str, StringConstraints(max_length=64 * 1024)]
KernelArg = Annotated[str, StringConstraints(max_length=256, pattern=KERNEL_ARG_PATTERN)]


@spec
class Kernel:
    image: ImageRef
    filename: Path | None = None
    cmdline: Annotated[dict[KernelArgName, KernelArg], Field(max_length=64)] = field(default_factory=dict[str, str])
    add_network_config: Flag = False


@spec
class Initrd:
    image: ImageRef
    filename: Path | None = None


@spec
class Volume:
    kind: VolumeKind = VolumeKind.EPHEMERAL
    container_source: ImageRef | None = None
    virtiofs_source: Path | None = None
    is_read_only: Flag = False
    mount_point: Path | None = None
    partition_id: Annotated[str, StringConstraints(max_length=64)] | None = None
    size_in_mb: Annotated[Integer, Field(ge=1, le=16 * 1024 * 1024)] | None = None


@spec
class StaticAddress:
    address: Cidr
    gateway: IpAddress | None = None
    nameservers: Annotated[list[IpAddress], Field(max_length=8)] = field(default_factory=list[str])


@spec
class Interface:
    type: InterfaceType = InterfaceType.TAP
    guest_mac: Annotated[str, StringConstraints(pattern=MAC_PATTERN)] | None = None
    address: StaticAddress | None = None
    bridge_name: Annotated[str, StringConstraints(pattern=BRIDGE_PATTERN)] | None = None


@spec
class Spread:
    """At most `max_per` of the microVMs that match go to one value of the host label `by` (`host` means each host)."""

    by: LabelKey = "host"
    max_per: Annotated[Integer, Field(ge=1, le=10_000)] = 1
    match_labels: Labels = field(default_factory=dict[str, str])


@spec
class PlacementPolicySpec:
    required_host_labels: Labels = field(default_factory=dict[str, str])
    preferred_host_labels: Labels = field(default_factory=dict[str, str])
    spread: Spread | None = None


@spec
class FailoverPolicySpec:
    """When, in what order and how fast what `restart_elsewhere` allows is done, for the microVMs that name it.

    What a host does when its lease ends is no part of it: that stays in each microVM's own recovery.
    """

    restart: Restart = Restart.IMMEDIATE
    delay_s: Annotated[Integer, Field(ge=1, le=7 * 24 * 3600)] | None = None
    """Since the host was fenced; `delayed` needs it, and nothing else has it."""
    priority: Annotated[Integer, Field(ge=-1000, le=1000)] = 0
    """The higher, the earlier; of equal ones, the oldest microVM first."""
    max_per_minute: Annotated[Integer, Field(ge=1, le=100_000)] | None = None
    """None: as many as there are."""


@spec
class Placement:
    """Constraints of one microVM; `policy` names a PlacementPolicy whose constraints are added."""

    host: Name | None = None
    policy: Name | None = None
    required_host_labels: Labels = field(default_factory=dict[str, str])
    spread: Spread | None = None


@spec
class Recovery:
    """What becomes of a microVM whose host is lost. `restart_elsewhere` excludes `on_detach = keep`."""

    on_host_failure: HostFailure = HostFailure.NEVER
    on_detach: OnDetach | None = None
    """None: `pause` with `restart_elsewhere`, `keep` with `never`."""
    allow_data_loss: Flag = False
    """Restart elsewhere although it has a local volume, without what is on it."""
    policy: Name | None = None
    """Names a FailoverPolicy that says when and in what order; None: at once, the oldest first."""


@spec
class MicroVMSpec:
    vcpu: Annotated[Integer, Field(ge=1, le=64)]
    memory_in_mb: Annotated[Integer, Field(ge=64, le=1024 * 1024)]
    kernel: Kernel
    initrd: Initrd | None = None
    root_volume: Volume | None = None
    additional_volumes: Annotated[dict[DeviceId, Volume], Field(max_length=16)] = field(
        default_factory=dict[str, Volume]
    )
    interfaces: Annotated[dict[DeviceId, Interface], Field(max_length=8)] = field(default_factory=dict[str, Interface])
    metadata: Annotated[dict[DeviceId, MetadataValue], Field(max_length=16)] = field(default_factory=dict[str, str])
    sensitive_metadata: Annotated[dict[DeviceId, SecretDigest], Field(max_length=16)] = field(
        default_factory=dict[str, str]
    )
    """Digests of further metadata, whose values are given beside the spec and never shown (docs/adr/0172)."""
    provider: Annotated[str, StringConstraints(pattern=DRIVER_PATTERN)] | None = None
    """Driver to use (`qemu`, `flintlockd`, `simulated`); none means whatever the host offers."""
    power_state: PowerState = PowerState.RUNNING
    drift_policy: DriftPolicy = DriftPolicy.REPAIR
    placement: Placement = field(default_factory=Placement)
    recovery: Recovery = field(default_factory=Recovery)


def detach_action(spec: MicroVMSpec) -> OnDetach:
    """What the intent asks a host to do when its lease ends."""
    if spec.recovery.on_detach is not None:
        return spec.recovery.on_detach
    return OnDetach.KEEP if spec.recovery.on_host_failure is HostFailure.NEVER else OnDetach.PAUSE


MICROVM_FIELD_EFFECTS: dict[str, Effect] = {
    "vcpu": Effect.RESTART,
    "memory_in_mb": Effect.RESTART,
    "kernel": Effect.RESTART,
    "initrd": Effect.RESTART,
    "root_volume": Effect.REPLACE,
    "additional_volumes": Effect.REPLACE,
    "interfaces": Effect.RESTART,
    "metadata": Effect.RESTART,
    "sensitive_metadata": Effect.RESTART,
    "provider": Effect.REPLACE,
    "power_state": Effect.LIVE,
    "drift_policy": Effect.LIVE,
    "placement": Effect.LIVE,
    "recovery": Effect.LIVE,
}
"""What changing a top-level field of the spec does. A changed placement holds from the next placement on."""


@spec
class Evacuation:
    """How a host is emptied in the modes `drain` and `maintenance`."""

    max_parallel: Annotated[Integer, Field(ge=1, le=100)] = 1
    """So many microVMs at once are on their way; each until its next host has started it."""
    allow_data_loss: Flag = False
    """Also move those with local volumes that allow it themselves (`recovery.allow_data_loss`), without their data."""


@spec
class HostSpec:
    """Admits an agent by name. `schedulable = false` cordons: what runs stays, nothing new comes."""

    schedulable: Flag = True
    mode: HostMode = HostMode.ACTIVE
    evacuation: Evacuation = field(default_factory=Evacuation)


GraceSeconds = Annotated[Integer, Field(ge=0, le=10 * 365 * 86_400)]
_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S


@spec
class GCPolicySpec:
    """How long what nobody needs is kept before it is collected, in seconds since it is so; none means for ever.

    What only a person can judge (a failed microVM, one that nobody declared, a lost host and what waits for it, what a
    host has of microVMs that are gone) is kept unless told otherwise.
    """

    failed_microvm_after_s: GraceSeconds | None = None
    unmanaged_microvm_after_s: GraceSeconds | None = None
    lost_host_after_s: GraceSeconds | None = None
    lost_tombstone_after_s: GraceSeconds | None = None
    leftover_after_s: GraceSeconds | None = None
    quarantined_volumes_after_s: GraceSeconds | None = _DAY_S
    finished_operation_after_s: GraceSeconds | None = _WEEK_S
    audit_records_after_s: GraceSeconds | None = None


@spec
class NamespaceSpec:
    """Quotas; none means unlimited."""

    max_microvms: Annotated[Integer, Field(ge=0, le=10_000_000)] | None = None
    max_vcpu: Annotated[Integer, Field(ge=0, le=100_000_000)] | None = None
    max_memory_in_mb: Annotated[Integer, Field(ge=0, le=2**50)] | None = None
