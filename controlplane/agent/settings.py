"""What one agent needs to know, checked when it is made: a value that cannot work is named before anything starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from controlplane.agent.pacing import Backoff
from controlplane.identity.files import TlsFiles
from controlplane.model.types import NAME_PATTERN

_NAME = re.compile(NAME_PATTERN)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):([0-9]{1,5})")


class AgentSettingsError(ValueError):
    """`field: what is wrong with it`."""


def _own_version() -> str:
    try:
        return version("flintlock-controlplane")
    except PackageNotFoundError:  # run from a source tree
        return "0"


@dataclass(frozen=True)
class AgentSettings:
    """Seconds throughout. Raises AgentSettingsError when made of values that cannot work."""

    host: str
    state_dir: Path
    """The agent's own: its lock, its cluster and its journal. One agent at a time."""
    endpoints: Mapping[str, str]
    """Gateways that may be dialled: node to HOST:PORT."""
    tls: TlsFiles
    cluster_id: str | None = None
    """Serve this cluster only; None trusts the first one met, and remembers it."""
    default_driver: str | None = None
    """For microVMs that name no provider; None: the first of the drivers."""
    vcpu: int | None = None
    """What microVMs may use in all; None: the CPUs times `vcpu_per_cpu`."""
    memory_in_mb: int | None = None
    """The same; None: the memory less `reserved_memory_in_mb`."""
    microvms: int = 0
    """0: as many as fit."""
    vcpu_per_cpu: float = 4.0
    reserved_memory_in_mb: int = 512
    version: str = field(default_factory=_own_version)
    heartbeat_s: float = 1.0
    unresponsive_s: float = 2.5
    """Without an acknowledgement for this long, another node is dialled."""
    grantless_s: float = 2.0
    """Without a grant for this long although heartbeats are acknowledged, another node is dialled (see `patience`)."""
    renew_timeout_s: float = 2.0
    """The longest that a driver may take to put a lease into effect."""
    connect_timeout_s: float = 5.0
    """From dialling to being welcomed."""
    reconnect_base_s: float = 0.2
    reconnect_cap_s: float = 5.0
    complete_report_s: float = 15.0
    """A complete report is repeated this often, so that nothing depends on an old one having arrived."""
    resync_s: float = 5.0
    concurrency: int = 8
    """Microvms that are acted on at the same time."""
    driver_timeout_s: float = 120.0
    grace_s: float = 10.0
    reservation_s: float = 2.0
    backoff: Backoff = field(default_factory=Backoff)

    def __post_init__(self) -> None:
        _require("host", _NAME.fullmatch(self.host) is not None, f"{self.host!r} is not a host name ({NAME_PATTERN})")
        _require("state_dir", self.state_dir.is_absolute(), f"{self.state_dir} is not an absolute path")
        _require("endpoints", bool(self.endpoints), "is empty; name at least one node's gateway")
        for node, address in self.endpoints.items():
            found = _ADDRESS.fullmatch(address)
            good = found is not None and 1 <= int(found[2]) <= 65535
            _require(f"endpoints.{node}", good, f"{address!r} is not HOST:PORT")
        for name in ("ca", "certificate", "key"):
            path: Path = getattr(self.tls, name)
            _require(f"tls.{name}", path.is_file(), f"{path} is not a file")
        for name in (
            "heartbeat_s",
            "unresponsive_s",
            "grantless_s",
            "renew_timeout_s",
            "connect_timeout_s",
            "reconnect_base_s",
            "reconnect_cap_s",
            "complete_report_s",
            "resync_s",
            "driver_timeout_s",
            "reservation_s",
        ):
            value: float = getattr(self, name)
            _require(name, 0 < value <= 3600, f"{value} is not between 0 and 3600 seconds")
        _require("grace_s", 0 <= self.grace_s <= 3600, f"{self.grace_s} is not between 0 and 3600 seconds")
        _require("concurrency", 1 <= self.concurrency <= 1024, f"{self.concurrency} is not between 1 and 1024")
        for name in ("unresponsive_s", "grantless_s"):
            limit: float = getattr(self, name)
            _require(
                name,
                limit > 1.5 * self.heartbeat_s,
                f"{limit:g} leaves no room for one lost heartbeat of {self.heartbeat_s:g} s",
            )
        for name in ("vcpu", "memory_in_mb"):
            amount: int | None = getattr(self, name)
            _require(name, amount is None or amount > 0, f"{amount} is not positive")
        _require("microvms", self.microvms >= 0, f"{self.microvms} is negative")
        _require("vcpu_per_cpu", 0 < self.vcpu_per_cpu <= 1024, f"{self.vcpu_per_cpu} is not between 0 and 1024")
        _require("reserved_memory_in_mb", self.reserved_memory_in_mb >= 0, f"{self.reserved_memory_in_mb} is negative")


def _require(name: str, holds: bool, message: str) -> None:
    if not holds:
        raise AgentSettingsError(f"{name}: {message}")
