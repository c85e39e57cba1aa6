"""The settings of a node, and what must hold between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from controlplane.identity.files import TlsFiles
from controlplane.identity.oidc import OidcIssuer
from controlplane.model.spec import GCPolicySpec
from controlplane.settings.values import (
    MIN_CLEANUP_S,
    USUAL_HEARTBEAT_S,
    Address,
    Name,
    Seconds,
    Settings,
    split_address,
)


class ListenSettings(Settings):
    """A server of the node. `advertise` is what others dial when it differs from `listen`."""

    listen: Address
    advertise: Address | None = None
    peers: dict[Name, Address] = Field(default_factory=dict)
    """The other nodes by name, without this one."""

    @property
    def address(self) -> str:
        return self.advertise or self.listen


class RaftServerSettings(ListenSettings):
    """The log. `peers` found the cluster with this node, or are the members that a joining node turns to; once there is
    a log, its configuration says who belongs, and `peers` count for nothing.
    """

    join: bool = False
    """Begin as nobody, and wait to be added by the members in `peers`."""

    dead_server_cleanup_s: Annotated[float, Field(ge=0, le=2_592_000, allow_inf_nan=False)] = 0.0
    """The leader removes a member that could not be reached for so long, for good; 0: nobody is removed."""

    snapshot_entries: Annotated[int, Field(ge=100, le=10_000_000)] = 20_000
    snapshot_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 34)] = 64 << 20
    snapshot_age_s: Annotated[float, Field(ge=1, le=2_592_000, allow_inf_nan=False)] = 3_600.0
    """A snapshot is taken after so many entries, so many bytes of them, or so long, whichever comes first."""

    @model_validator(mode="after")
    def _patient(self) -> Self:
        if 0 < self.dead_server_cleanup_s < MIN_CLEANUP_S:
            raise ValueError(
                f"dead_server_cleanup_s: 0 (never) or at least {MIN_CLEANUP_S:g} s; a removed node's id never comes "
                "back, so a restart or an update of the machine must fit in"
            )
        return self

    @model_validator(mode="after")
    def _joins_someone(self) -> Self:
        if self.join and not self.peers:
            raise ValueError("join needs the existing members in raft.peers, one of them at least")
        return self


class LimitSettings(Settings):
    """What a node takes of its API's clients."""

    identity_per_s: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 1000.0
    """Requests of one token in the long run; 0: no limit."""
    identity_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 5000
    """And at once."""
    stranger_per_s: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] = 5.0
    """Requests that authentication refuses, by address, before nothing from there is looked at; 0: no limit."""
    stranger_burst: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    connections: Annotated[int, Field(ge=16, le=65_536)] = 4096
    connections_per_address: Annotated[int, Field(ge=1, le=65_536)] = 1024
    head_timeout_s: Seconds = 15.0
    """How long a client may take for the head of a request, the first one's TLS aside."""
    watchers: Annotated[int, Field(ge=1, le=65_536)] = 1000
    watchers_per_identity: Annotated[int, Field(ge=1, le=65_536)] = 200


class HttpSettings(Settings):
    """API v2. `peers` are the other nodes' API addresses, only to be shown; what is not listed is not shown."""

    listen: Address
    advertise: Address | None = None
    peers: dict[Name, Address] = Field(default_factory=dict)
    limits: LimitSettings = LimitSettings()

    @property
    def address(self) -> str:
        return self.advertise or self.listen


class ElectionSettings(Settings):
    """A follower that hears nothing for a time drawn between these two stands for election."""

    min_s: Seconds = 0.5
    max_s: Seconds = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_s < self.min_s * 1.5:
            raise ValueError(
                f"max_s ({self.max_s}) must be at least 1.5 x min_s ({self.min_s}), or votes split for ever"
            )
        return self


class LeaseSettings(Settings):
    """A host's right to run what may be resurrected elsewhere, and how long the leader waits before that happens. The
    same on every node.
    """

    ttl_s: Seconds = 10.0
    """A lease ends so long after the host sent the heartbeat that it answers."""
    grace_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 2.0
    """How long after that what was only paused is kept."""
    fence_s: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 3.0
    """How long a host takes to act at the end of its lease."""
    skew: Annotated[float, Field(ge=0.01, le=0.5, allow_inf_nan=False)] = 0.1
    """How much slower than the leader's a host's clock may run."""
    suspect_s: Seconds = 3.0
    """Without a grant for so long, a host is given nothing new."""
    resurrect_after_s: Seconds | None = None
    """Wait this long, and not only as long as must be, before a silent host is given up."""

    def ended_after_s(self, ttl_s: float) -> float:
        """When a lease of `ttl_s` has ended by the slowest clock, counted from its grant by the leader's."""
        return (1 + self.skew) * ttl_s

    def fenced_after_s(self, ttl_s: float) -> float:
        """When the host of such a lease has also acted on its end, and may be given up."""
        return max((1 + self.skew) * (ttl_s + self.fence_s), self.resurrect_after_s or 0.0)

    def gone_after_s(self, ttl_s: float) -> float:
        """When nothing is left of what ran there under such a lease, not even what was only paused at its end."""
        return max(self.fenced_after_s(ttl_s), (1 + self.skew) * (ttl_s + self.grace_s + self.fence_s))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        least_s = 3 * USUAL_HEARTBEAT_S
        if self.ttl_s < least_s:
            raise ValueError(
                f"ttl_s: two lost heartbeats would end a lease: 3 x {USUAL_HEARTBEAT_S:g} = {least_s:g} s > "
                f"{self.ttl_s:g} s"
            )
        if self.suspect_s >= self.ttl_s:
            raise ValueError(
                f"suspect_s: a host would be detached before it is suspect: {self.suspect_s:g} s >= ttl_s = "
                f"{self.ttl_s:g} s"
            )
        must_s = (1 + self.skew) * (self.ttl_s + self.fence_s)
        if self.resurrect_after_s is not None and self.resurrect_after_s < must_s:
            raise ValueError(
                "resurrect_after_s: a host could still run when its VM is resurrected: "
                f"(1 + {self.skew:g}) x ({self.ttl_s:g} + {self.fence_s:g}) = {must_s:g} s > "
                f"{self.resurrect_after_s:g} s"
            )
        return self


class FailoverSettings(Settings):
    """Placing anew what was on lost hosts."""

    max_unhealthy: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """When more than this share of the declared hosts is lost within `window_s`, what was on them is not resurrected
    without an operator's word."""
    window_s: Annotated[float, Field(ge=60, le=7 * 86_400, allow_inf_nan=False)] = 600.0
    """Hosts that were lost within so long of each other count together."""
    per_round: Annotated[int, Field(ge=1, le=10_000)] = 100


class GCSettings(Settings):
    """What is collected, and at what pace."""

    policy: GCPolicySpec = GCPolicySpec()
    """Until a GC policy is declared; the same on every node."""
    every_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 5.0
    per_round: Annotated[int, Field(ge=1, le=10_000)] = 100


class ApiTokenSettings(Settings):
    """How long API tokens last; the same on every node."""

    ttl_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] = 30 * 86_400
    """Unless their maker says otherwise."""
    max_ttl_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] = 365 * 86_400

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ttl_s > self.max_ttl_s:
            raise ValueError(f"ttl_s: {self.ttl_s} s is over max_ttl_s = {self.max_ttl_s} s")
        return self


class AuditSettings(Settings):
    """The audit chain: what the state holds of it, and this node's files."""

    keep_records: Annotated[int, Field(ge=100, le=40_000)] = 10_000
    """So many of the newest stay in the state; earlier ones are in the nodes' files alone. The same on every node."""
    export: bool = True
    """Write the chain into files of this node."""
    directory: Path | None = None
    """Of those files; None: `audit` in `data_dir`."""


class BackupSettings(Settings):
    """Snapshots that the leading node saves by itself."""

    store: Annotated[str, Field(min_length=1, max_length=1024)]
    """A directory (relative to this file), or `s3://BUCKET/PREFIX`. The same place on every node."""
    every_s: Annotated[float, Field(ge=5, le=30 * 86_400, allow_inf_nan=False)] = 3600.0
    keep: Annotated[int, Field(ge=1, le=100_000)] = 24
    """How many snapshots of this cluster stay."""
    s3_credentials: Path | None = None
    """A file of mode 0600; else the environment."""

    @field_validator("store")
    @classmethod
    def _place(cls, store: str) -> str:
        if store.endswith(".flsnap") or ("://" in store and not store.startswith("s3://")):
            raise ValueError("must be a directory or s3://BUCKET/PREFIX")
        return store


class AuthoritySettings(Settings):
    """The cluster signs its members' certificates itself; without this, an authority elsewhere does."""

    keys_file: Path
    """The key ring that secrets in the state are sealed with; the same on every node, mode 0600."""
    file: Path
    """The authority with its sealed key, for the first start and for when the cluster is down."""
    host_life_s: Annotated[int, Field(ge=2, le=825 * 86_400)] = 86_400
    node_life_s: Annotated[int, Field(ge=2, le=825 * 86_400)] = 86_400
    """How long certificates are valid; they are renewed at two thirds of that."""


class NodeSettings(Settings):
    """One control-plane member."""

    node: Name
    cluster_id: Name
    data_dir: Path
    """The log and its snapshots; belongs to this node alone."""
    raft: RaftServerSettings
    gateway: ListenSettings
    """Where agents and the other nodes' relays dial in."""
    http: HttpSettings
    tls: TlsFiles
    tokens_file: Path
    fsync: Literal["always", "never"] = "always"
    """`never` loses acknowledged writes in a power failure: for benchmarks."""
    election: ElectionSettings = ElectionSettings()
    backup: BackupSettings | None = None
    authority: AuthoritySettings | None = None
    lease: LeaseSettings = LeaseSettings()
    failover: FailoverSettings = FailoverSettings()
    gc: GCSettings = GCSettings()
    api_tokens: ApiTokenSettings = ApiTokenSettings()
    audit: AuditSettings = AuditSettings()
    oidc: list[OidcIssuer] = Field(default_factory=list, max_length=16)
    """Issuers whose tokens are taken; the same on every node."""
    providers_dir: Path | None = None
    """Releases of the Terraform provider, which this node gives to whoever asks."""
    keys_file: Path | None = None
    """The key ring for secrets where no authority of the cluster brings one; the same on every node, mode 0600."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.keys_file is not None and self.authority is not None:
            raise ValueError("keys_file: authority.keys_file is the key ring already")
        for field, server in (("raft", self.raft), ("gateway", self.gateway)):
            if self.node in server.peers:
                raise ValueError(f"{field}.peers: lists this node ({self.node}); it holds the other nodes only")
        if set(self.raft.peers) != set(self.gateway.peers):
            difference = ", ".join(sorted(set(self.raft.peers) ^ set(self.gateway.peers)))
            raise ValueError(f"gateway.peers: must name the same nodes as raft.peers; they differ in {difference}")
        listens = {
            "raft.listen": self.raft.listen,
            "gateway.listen": self.gateway.listen,
            "http.listen": self.http.listen,
        }
        for field, address in listens.items():
            twin = next((other for other, its in listens.items() if other < field and its == address), None)
            if twin is not None:
                raise ValueError(f"{field}: {address} is {twin} already; every server needs its own port")
        for index, one in enumerate(self.oidc):
            for other in self.oidc[:index]:
                if one.issuer == other.issuer:
                    raise ValueError(f"oidc.{index}.issuer: {one.issuer} is listed twice")
                if one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix):
                    raise ValueError(
                        f"oidc.{index}.prefix: {one.prefix!r} and {other.prefix!r} of {other.issuer} begin alike:"
                        " a user of one could pass for one of the other"
                    )
        return self


def dialled_at(settings: NodeSettings) -> list[str]:
    """The names and addresses of the node's servers, without ports: what its certificate has to name."""
    servers = (settings.http.address, settings.gateway.address, settings.raft.address)
    return list(dict.fromkeys(split_address(each)[0] for each in servers))
