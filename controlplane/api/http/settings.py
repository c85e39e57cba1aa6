"""Limits and times of the HTTP edge: frozen, given by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.api.http.rates import Rate
from controlplane.decide.breaker import FailoverLimits
from controlplane.model.spec import GCPolicySpec

MIB = 1024 * 1024
IDENTITY_RATE = Rate(per_s=1000, burst=5000)
STRANGER_RATE = Rate(per_s=5, burst=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    node: str
    version: str
    addresses: Callable[[], Mapping[str, str]] = dict[str, str]
    """Gives the API addresses (`host:port`) of the nodes by name, as `GET /cluster` shows them; empty: not known."""
    gateways: Callable[[], Mapping[str, str]] = dict[str, str]
    """The same of their gateways, for who joins."""
    read_timeout_s: float = 5.0
    write_timeout_s: float = 10.0
    preview_timeout_s: float = 2.0
    """How long a dry run waits for bids."""
    console_timeout_s: float = 5.0
    presence_timeout_s: float = 2.0
    max_wait_s: float = 60.0
    heartbeat_s: float = 10.0
    watch_queue: int = 1024
    """Events that a watcher may be behind before its stream is ended."""
    max_watchers: int = 1000
    watchers_per_identity: int = 200
    identity_rate: Rate = IDENTITY_RATE
    stranger_rate: Rate = STRANGER_RATE
    """Of requests that authentication refuses, by address."""
    failover: FailoverLimits = field(default_factory=FailoverLimits)
    """As whoever leads has them: what is said here is what is decided there."""
    gc_policy: GCPolicySpec = field(default_factory=GCPolicySpec)
    gc_per_round: int = 100
    """As the collector has them: what is kept for how long where no GC policy is declared, and how much a plan collects
    at a time."""
    api_token_ttl_s: int = 30 * 86_400
    api_token_max_ttl_s: int = 365 * 86_400
    """How long an API token lasts unless its maker says otherwise, and at most."""
    providers_dir: Path | None = None
    """Releases of the Terraform provider that this node gives to whoever asks; None: it has none."""
    body_limit_bytes: int = MIB
    apply_limit_bytes: int = 16 * MIB
    body_timeout_s: float = 30.0
    """How long a client may take to send a body."""
