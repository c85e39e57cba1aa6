"""How to reach a Flintlock host, and how patient to be with it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class FlintlockdSettings:
    """Raises ValueError naming the field that cannot be."""

    endpoint: str
    """`host:port` of the host's gRPC API, 9090 by default upstream."""
    state_dir: Path
    """Where the journal lives; one directory per Flintlock host."""
    token: str = field(default="", repr=False)
    """Basic token; empty when the host wants none."""
    ca_file: Path | None = None
    """Given: TLS, and the host's certificate must be of this CA."""
    cert_file: Path | None = None
    key_file: Path | None = None
    """Client certificate and key, for hosts that ask for one."""
    namespaces: tuple[str, ...] = ("default",)
    """Namespaces to look into besides those that we have used: the API lists one namespace at a time."""
    provider: str | None = None
    """Flintlock's microVM provider (`firecracker`, `cloudhypervisor`); none means the host's default."""
    call_timeout_s: float = 10.0
    settle_timeout_s: float = 30.0
    """How long a create or a delete may take in the background before the order fails for now."""
    doubt_s: float = 3.0
    """How long to look for the outcome of a create that was not answered, before another may be tried."""
    tombstone_s: float = 3600.0
    """How long an unanswered create may still turn up after its microVM was destroyed; it is deleted then."""
    poll_s: float = 2.0
    """How often to look for changes: the API sends none."""

    def __post_init__(self) -> None:
        host, _, port = self.endpoint.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"endpoint: {self.endpoint!r} is not host:port")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file: give both or neither")
        if self.cert_file is not None and self.ca_file is None:
            raise ValueError("ca_file: a client certificate needs TLS, so the host's CA must be given too")
        if self.token and self.ca_file is None and not _is_loopback(self.endpoint):
            raise ValueError("token: it would cross the network in the clear; give ca_file to use TLS")
        for name in ("call_timeout_s", "settle_timeout_s", "poll_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0")
        for name in ("doubt_s", "tombstone_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be negative")
        if not all(self.namespaces):
            raise ValueError("namespaces: a namespace cannot be empty")
