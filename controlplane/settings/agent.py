"""The settings of a host's agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from controlplane.identity.files import TlsFiles
from controlplane.settings.values import MAX_HEARTBEAT_S, USUAL_HEARTBEAT_S, Address, Name, Settings


class QemuDriverSettings(Settings):
    kind: Literal["qemu"]
    images_dir: Path
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    keep_local_volumes_s: Annotated[int, Field(ge=0, le=10 * 365 * 86_400)] = 86_400
    """How long the local volumes of a destroyed microVM stay on the host; 0: they go with it."""


class SimulatedDriverSettings(Settings):
    kind: Literal["simulated"]
    boot_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    """How long a pretended guest takes until it is ready."""


class FlintlockdDriverSettings(Settings):
    kind: Literal["flintlockd"]
    endpoint: Address
    token_file: Path | None = None
    tls: TlsFiles | None = None
    namespaces: list[Name] = Field(default_factory=list)
    """Looked through for microVMs that are not ours, besides those that we use."""


DriverSettings = Annotated[
    QemuDriverSettings | SimulatedDriverSettings | FlintlockdDriverSettings, Field(discriminator="kind")
]


class CapacitySettings(Settings):
    """What microVMs may use in all; what is left out is taken from the machine. `microvms` 0: as many as fit."""

    vcpu: Annotated[int, Field(ge=1, le=65536)] | None = None
    memory_in_mb: Annotated[int, Field(ge=64, le=2**30)] | None = None
    microvms: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class AgentFileSettings(Settings):
    """One host's agent."""

    host: Name
    cluster_id: Name | None = None
    """Refuse to serve another cluster; None trusts the first one that this state_dir meets."""
    state_dir: Path
    endpoints: Annotated[dict[Name, Address], Field(min_length=1)]
    """Gateways of the nodes, by node; the agent dials any of them."""
    tls: TlsFiles
    drivers: Annotated[list[DriverSettings], Field(min_length=1)]
    """The first one runs microVMs that name no provider."""
    capacity: CapacitySettings = CapacitySettings()
    heartbeat_s: Annotated[float, Field(ge=0.1, le=MAX_HEARTBEAT_S, allow_inf_nan=False)] = USUAL_HEARTBEAT_S
    resync_s: Annotated[float, Field(ge=0.5, le=3600, allow_inf_nan=False)] = 5.0
    """How often the driver is asked for everything, besides when it says that something changed."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        kinds = [driver.kind for driver in self.drivers]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                raise ValueError(f"drivers.{index}: {kind} is listed twice")
        return self
