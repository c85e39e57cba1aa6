"""Settings of the two processes, read once from a YAML file and frozen.

A setting is found in this order: the environment, the file, the default. Any field is overridden by a variable that
spells its path, `FLINTLOCK_NODE__RAFT__LISTEN=0.0.0.0:7101` or `FLINTLOCK_AGENT__HOST=h1`, whose value is read as
YAML. Relative paths in the file are relative to the file. Unknown fields are refused, and an error names the file
(or variable), the field, and what to do. Nothing below `bootstrap` reads settings for itself: it gets what it needs
handed in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from controlplane.identity.check import check, check_member
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import PartyKind
from controlplane.identity.oidc import OidcIssuer
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import NAME_PATTERN
from controlplane.strict_yaml import YamlError, load_one

NODE_PREFIX = "FLINTLOCK_NODE__"
AGENT_PREFIX = "FLINTLOCK_AGENT__"
_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """`field` is a dotted path, empty when the whole file is at fault."""

    field: str
    message: str


class SettingsError(Exception):
    """The file cannot be used; every problem that was found is listed."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(": ".join(filter(None, (source, p.field, p.message))) for p in problems))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError."""
    host, separator, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or (":" in host and not bracketed):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:7101 or [::1]:7101")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return host.strip("[]"), int(port)


def _check_address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


MIN_CLEANUP_S = 300.0
USUAL_HEARTBEAT_S = 1.0
MAX_HEARTBEAT_S = 3.0
"""The shortest lease outlives two lost heartbeats at the usual pace, the default one nearly three at the slowest."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ListenSettings(_Settings):
    """A server of the node. `advertise` is what others dial when it differs from `listen`."""

    listen: Address
    advertise: Address | None = None
    peers: dict[Name, Address] = {}
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


class LimitSettings(_Settings):
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


class HttpSettings(_Settings):
    """API v2. `peers` are the other nodes' API addresses, only to be shown; what is not listed is not shown."""

    listen: Address
    advertise: Address | None = None
    peers: dict[Name, Address] = {}
    limits: LimitSettings = LimitSettings()

    @property
    def address(self) -> str:
        return self.advertise or self.listen


class ElectionSettings(_Settings):
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


class LeaseSettings(_Settings):
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


class FailoverSettings(_Settings):
    """Placing anew what was on lost hosts."""

    max_unhealthy: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    """When more than this share of the declared hosts is lost within `window_s`, what was on them is not resurrected
    without an operator's word."""
    window_s: Annotated[float, Field(ge=60, le=7 * 86_400, allow_inf_nan=False)] = 600.0
    """Hosts that were lost within so long of each other count together."""
    per_round: Annotated[int, Field(ge=1, le=10_000)] = 100


class GCSettings(_Settings):
    """What is collected, and at what pace."""

    policy: GCPolicySpec = GCPolicySpec()
    """Until a GC policy is declared; the same on every node."""
    every_s: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 5.0
    per_round: Annotated[int, Field(ge=1, le=10_000)] = 100


class ApiTokenSettings(_Settings):
    """How long API tokens last; the same on every node."""

    ttl_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] = 30 * 86_400
    """Unless their maker says otherwise."""
    max_ttl_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] = 365 * 86_400

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ttl_s > self.max_ttl_s:
            raise ValueError(f"ttl_s: {self.ttl_s} s is over max_ttl_s = {self.max_ttl_s} s")
        return self


class AuditSettings(_Settings):
    """The audit chain: what the state holds of it, and this node's files."""

    keep_records: Annotated[int, Field(ge=100, le=40_000)] = 10_000
    """So many of the newest stay in the state; earlier ones are in the nodes' files alone. The same on every node."""
    export: bool = True
    """Write the chain into files of this node."""
    directory: Path | None = None
    """Of those files; None: `audit` in `data_dir`."""


class BackupSettings(_Settings):
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


class AuthoritySettings(_Settings):
    """The cluster signs its members' certificates itself; without this, an authority elsewhere does."""

    keys_file: Path
    """The key ring that secrets in the state are sealed with; the same on every node, mode 0600."""
    file: Path
    """The authority with its sealed key, for the first start and for when the cluster is down."""
    host_life_s: Annotated[int, Field(ge=2, le=825 * 86_400)] = 86_400
    node_life_s: Annotated[int, Field(ge=2, le=825 * 86_400)] = 86_400
    """How long certificates are valid; they are renewed at two thirds of that."""


class NodeSettings(_Settings):
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
    oidc: Annotated[list[OidcIssuer], Field(max_length=16)] = []
    """Issuers whose tokens are taken; the same on every node."""
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


class QemuDriverSettings(_Settings):
    kind: Literal["qemu"]
    images_dir: Path
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    keep_local_volumes_s: Annotated[int, Field(ge=0, le=10 * 365 * 86_400)] = 86_400
    """How long the local volumes of a destroyed microVM stay on the host; 0: they go with it."""


class SimulatedDriverSettings(_Settings):
    kind: Literal["simulated"]
    boot_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    """How long a pretended guest takes until it is ready."""


class FlintlockdDriverSettings(_Settings):
    kind: Literal["flintlockd"]
    endpoint: Address
    token_file: Path | None = None
    tls: TlsFiles | None = None
    namespaces: list[Name] = []
    """Looked through for microVMs that are not ours, besides those that we use."""


DriverSettings = Annotated[
    QemuDriverSettings | SimulatedDriverSettings | FlintlockdDriverSettings, Field(discriminator="kind")
]


class CapacitySettings(_Settings):
    """What microVMs may use in all; what is left out is taken from the machine. `microvms` 0: as many as fit."""

    vcpu: Annotated[int, Field(ge=1, le=65536)] | None = None
    memory_in_mb: Annotated[int, Field(ge=64, le=2**30)] | None = None
    microvms: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class AgentFileSettings(_Settings):
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


def dialled_at(settings: NodeSettings) -> list[str]:
    """The names and addresses of the node's servers, without ports: what its certificate has to name."""
    servers = (settings.http.address, settings.gateway.address, settings.raft.address)
    return list(dict.fromkeys(split_address(each)[0] for each in servers))


S = TypeVar("S", NodeSettings, AgentFileSettings)


def load_node(path: Path, environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Read a node's file, and check the files that it names. Raises SettingsError."""
    settings = read_node(path, environ)
    problems = _wrong_tls("tls", settings.tls, ("node", settings.node, settings.cluster_id))
    for index, issuer in enumerate(settings.oidc):
        if issuer.ca_file is not None:
            problems += _missing(
                f"oidc.{index}.ca_file", issuer.ca_file, "it is the PEM file of the issuer's authority"
            )
    problems += _missing(
        "tokens_file", settings.tokens_file, "`flintctl dev up` makes one; see docs/guides/certificates.md"
    )
    if problems:
        raise SettingsError(str(path), problems)
    return settings


def read_node(path: Path, environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Read a node's file alone. Raises SettingsError."""
    return _load(NodeSettings, path, NODE_PREFIX, os.environ if environ is None else environ)


def load_agent(path: Path, environ: Mapping[str, str] | None = None) -> AgentFileSettings:
    """Read an agent's file. Raises SettingsError."""
    settings = _load(AgentFileSettings, path, AGENT_PREFIX, os.environ if environ is None else environ)
    problems = _wrong_tls("tls", settings.tls, ("host", settings.host, settings.cluster_id))
    for index, driver in enumerate(settings.drivers):
        if isinstance(driver, FlintlockdDriverSettings):
            if driver.token_file is not None:
                problems += _missing(f"drivers.{index}.token_file", driver.token_file, "write the host's token into it")
            if driver.tls is not None:
                problems += _wrong_tls(f"drivers.{index}.tls", driver.tls, None)
    if problems:
        raise SettingsError(str(path), problems)
    return settings


def _load(model: type[S], path: Path, prefix: str, environ: Mapping[str, str]) -> S:
    document = _read(path)
    variables = _override(document, prefix, environ)
    try:
        return _absolute(model.model_validate(document), path.resolve().parent)
    except ValidationError as error:
        raise SettingsError(str(path), [_problem(e, variables) for e in error.errors(include_url=False)]) from None


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from None
    if len(data) > _MAX_FILE_BYTES:
        raise SettingsError(str(path), [Problem("", f"is over {_MAX_FILE_BYTES} bytes")])
    try:
        document = load_one(data.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), [Problem("", f"is not UTF-8 text (byte {error.start})")]) from None
    except YamlError as error:
        raise SettingsError(str(path), [Problem("", str(error))]) from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SettingsError(str(path), [Problem("", "must be a mapping of settings")])
    return cast("dict[str, object]", document)


def _override(document: dict[str, object], prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values into `document`; gives the variable that each overridden path came from."""
    variables: dict[str, str] = {}
    for variable in sorted(name for name in environ if name.startswith(prefix)):
        path = variable.removeprefix(prefix).lower().split("__")
        target = document
        for part in path[:-1]:
            below = target.setdefault(part, {})
            if not isinstance(below, dict):
                raise SettingsError(variable, [Problem(".".join(path), f"{part} is no group of settings")])
            target = cast("dict[str, object]", below)
        try:
            target[path[-1]] = load_one(environ[variable])
        except YamlError as error:
            raise SettingsError(variable, [Problem(".".join(path), str(error))]) from None
        variables[".".join(path)] = variable
    return variables


def _problem(error: ErrorDetails, variables: Mapping[str, str]) -> Problem:
    # Tags of the driver union appear in the location although the user never wrote them.
    parts = [str(part) for part in error["loc"]]
    if len(parts) > 2 and parts[0] == "drivers" and parts[2] in ("qemu", "simulated", "flintlockd"):
        del parts[2]
    field = ".".join(part for part in parts if part != "[key]")
    kind, given = error["type"], error.get("input")
    if kind == "missing":
        message = "is required"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "is not a known setting"
    elif kind == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        if isinstance(given, str):
            message += f" (found {given!r})"
    elif kind == "string_pattern_mismatch":
        message = f"{given!r} must be lower-case letters, digits and '-', at most 63 characters"
    else:
        shown = "" if isinstance(given, dict | list) or given is None else f" (found {given!r})"
        message = error["msg"][:1].lower() + error["msg"][1:] + shown
    if field in variables:
        message += f" [from the environment variable {variables[field]}]"
    return Problem(field, message)


def _absolute(settings: S, base: Path) -> S:
    """Paths in the file are relative to the file."""
    return cast(S, _rebase(settings, base))


def _rebase(value: object, base: Path) -> object:
    if isinstance(value, Path):
        return base / value.expanduser()
    if isinstance(value, TlsFiles):
        return TlsFiles(ca=base / value.ca, certificate=base / value.certificate, key=base / value.key)
    if isinstance(value, BackupSettings) and "://" not in value.store:
        value = value.model_copy(update={"store": str(base / Path(value.store).expanduser())})
    if isinstance(value, list):
        return [_rebase(item, base) for item in cast("list[object]", value)]
    if isinstance(value, _Settings | OidcIssuer):
        return value.model_copy(update={name: _rebase(getattr(value, name), base) for name in type(value).model_fields})
    return value


def _missing(field: str, path: Path, advice: str) -> list[Problem]:
    return [] if path.is_file() else [Problem(field, f"{path} does not exist; {advice}")]


def _wrong_tls(field: str, tls: TlsFiles, member: tuple[PartyKind, str, str | None] | None) -> list[Problem]:
    advice = "`flintctl dev up` makes throwaway ones; see docs/guides/certificates.md"
    problems = _missing(f"{field}.ca", tls.ca, advice) + _missing(f"{field}.certificate", tls.certificate, advice)
    problems += _missing(f"{field}.key", tls.key, advice)
    if tls.key.is_file() and tls.key.stat().st_mode & 0o007:
        problems.append(Problem(f"{field}.key", f"everybody can read {tls.key}; run: chmod 600 {tls.key}"))
    if problems:
        return problems
    now = datetime.now(UTC)
    if member is None:
        faults = check(tls, now)
    else:
        kind, owner, cluster = member
        faults = check_member(tls, now, kind=kind, name=owner, cluster=cluster)
    return [Problem(f"{field}.{name}", message) for name, message in faults]
