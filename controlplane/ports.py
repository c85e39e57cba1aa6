"""The edges of the product, as protocols.

Everything that decides is pure and everything that acts stands behind one of these. The composition root
(`bootstrap`) is the only place that knows which implementation is behind which port; siblings (api, agent, reconcile,
consensus, drivers) never import each other, they import this module.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.manifest import Manifest, StatePart
from controlplane.model.commands import Command
from controlplane.model.resources import Bid, ObservedPower
from controlplane.model.spec import MicroVMSpec, PowerState

# -- time and ids ------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time for stamps and time for waiting; no safety decision reads the wall clock."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch: for people to read."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: for deadlines and ages."""
        ...

    def boottime_s(self) -> float:
        """The same, and they go on while the machine is suspended (CLOCK_BOOTTIME): for leases."""
        ...


class Ids(Protocol):
    def new(self) -> str:
        """A new ULID: 26 characters, sortable by creation time, never reused."""
        ...


# -- the replicated log ------------------------------------------------------------------------------------------------


class LogError(Exception):
    """The log could not do what was asked. `retry_after_s` is a hint for the caller's answer."""

    retry_after_s: float = 1.0


class NoLeaderError(LogError):
    """No leader took it: none is known, or too much is pending. It was certainly NOT appended: safe to repeat."""


class OutcomeUnknownError(LogError):
    """The deadline passed or the leader changed after the proposal was sent: it may or may not commit.

    Repeat only with the same idempotency key.
    """


class SnapshotInterruptedError(LogError):
    """A snapshot did not arrive whole."""


class EntryTooLargeError(LogError):
    """The entry is over the log's limit; nothing was appended."""


class RefusedError(LogError):
    """The request is not allowed now; the text says why and what to do. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where an entry stands in the log. Outcomes are read from a replica that has applied `index`."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Reign:
    """That a node leads: in which term, and a log of which incarnation."""

    term: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Led:
    """The proof that a node led."""

    index: int
    """Of an entry that `follow` delivers (or 0): a state that has applied it has everything committed by then."""
    reign: Reign


@dataclass(frozen=True, slots=True)
class Committed:
    """One committed entry, in log order. PySyncObj's own no-op and membership entries are not delivered."""

    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The follower of the log was too far behind: replace the whole state by this one, which stands at `index`.

    Read `chunks` to their end before asking the log for the next item. They raise SnapshotInterruptedError when the
    rest cannot come; what was read of them is then worth nothing, and the log goes on by itself from where its follower
    was before.
    """

    index: int
    term: int
    header: bytes
    count: int
    """How many chunks there are."""
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the cluster as the log's configuration has it."""

    node: str
    address: str
    """`host:port` at which the other members dial its log."""
    role: Literal["voter", "learner"]
    """A learner gets the log and counts for nothing: no majority asks it."""
    api: str = ""
    """`host:port` of its HTTP API; empty when the configuration does not know it."""
    gateway: str = ""
    """`host:port` where agents and other nodes dial in; empty when the configuration does not know it."""
    store: str = ""
    """The id of the disk it was first seen with; empty when no member had met it when the configuration was made."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Durations of a recent window, in milliseconds; all zero when nothing was measured."""

    samples: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Divergence:
    """A member whose state hash at an index is not that of the others: its state can no longer be trusted."""

    node: str
    index: int
    state_hash: str
    expected: str
    """The hash that a majority of the voters has at that index; empty while there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    node: str
    address: str
    connected: bool
    """This node has a connection to it that can be used now."""
    match_index: int | None
    """What is known to be in its log; known on the leader only."""
    lag_entries: int | None = None
    """Entries of the leader's log that it is not known to have; on the leader only."""
    last_contact_ms: int | None
    """Since its last message; None when it was not heard since this process started."""
    learner: bool = False
    """It gets the log and has no vote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatus:
    node: str
    role: str
    """`leader`, `follower`, `candidate`, `learner` (it follows and does not vote) or `starting`."""
    leader: str | None
    term: int
    last_index: int
    commit_index: int
    applied_index: int
    entry_index: int
    """The last applied index that a follower of the log gets; those above it are the engine's own entries."""
    has_quorum: bool
    """On the leader: a majority answered within the election timeout. On a follower: a live leader is known."""
    fsync: str
    """`always` or `never`. With `never` acknowledged writes are lost in a power failure: to be flagged."""
    fsync_latency: Latency = Latency()
    """Of the journal's syncs; all zero with `fsync: never`."""
    state_hash: str
    state_hash_index: int
    """Where `state_hash` stands; hashes of two nodes are comparable at equal indexes only."""
    checked_index: int = 0
    """The highest index at which a majority of the voters is known to have this node's hash; 0: none yet."""
    divergences: Sequence[Divergence] = ()
    """Members, this one included, whose hash is known to differ."""
    snapshot_index: int
    snapshot_age_s: float | None = None
    """Since the newest snapshot was taken here or received; None without one."""
    log_entries: int = 0
    """Entries above the compacted ones."""
    log_bytes: int
    """Of the journal on disk."""
    uptime_s: float = 0.0
    """Since this process began to serve the log."""
    removed_dead: Sequence[str] = ()
    """Members that this leader removed because they could not be reached for `raft.dead_server_cleanup_s`."""
    peers: Sequence[PeerStatus]
    members: Sequence[Member] = ()
    """By the newest configuration in this node's log, committed or not; empty on a node that joins, nobody yet."""
    configuration_index: int = 0
    """Where that configuration stands; it is committed once `commit_index` reaches it. 1: the founding one."""
    incarnation: int = 0
    """Raised by a recovery from quorum loss and by a restore; members of different ones refuse each other."""


class Log(Protocol):
    """A replicated log of opaque entries."""

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        """Commit one entry, through the leader wherever it is.

        Raises NoLeaderError (also when too many proposals are pending), OutcomeUnknownError or EntryTooLargeError.
        """
        ...

    async def confirm_leadership(self, *, timeout_s: float) -> Led:
        """Proof that THIS node led after the call began: a round of the quorum that began later was answered.

        `Led.index` is about everything committed when the round began. Never forwarded.
        Raises NoLeaderError when this node does not lead, or no quorum confirmed it in time.
        """
        ...

    async def read_index(self, *, timeout_s: float) -> int:
        """An index such that a state that has applied it reflects every write acknowledged before this call began.

        It is that of an entry that `follow` delivers, or 0 before the first.
        Raises NoLeaderError when no quorum confirmed the leader in time.
        """
        ...

    def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        """Every committed entry with an index above `after`, in order, without end; `aclose` it when done.

        Raises NoLeaderError when the node stops.
        """
        ...

    async def status(self) -> LogStatus: ...


class LogAdmin(Protocol):
    """Changes of the membership, one at a time, through the leader wherever it is.

    All of them raise RefusedError, NoLeaderError (nothing was changed), or OutcomeUnknownError (it may still take
    effect). All can be repeated: what is so already is done.
    """

    async def add_member(self, member: Member, *, timeout_s: float) -> None:
        """Add `member` as a learner; with the role `voter` also promote it once it caught up.

        A member that is there already gets the given addresses (an empty one keeps what is known). When a new voter
        does not catch up in time, RefusedError says how far it is, and it stays a learner.
        """
        ...

    async def promote_member(self, node: str, *, timeout_s: float) -> None:
        """Make a learner a voter once it caught up; RefusedError says how far it is when that takes too long."""
        ...

    async def remove_member(self, node: str, *, timeout_s: float) -> None:
        """Take `node` out for good: its id is never accepted again. A leader hands over before it is removed."""
        ...

    async def transfer_leadership(self, target: str | None, *, timeout_s: float) -> str:
        """Let `target` (None: the best voter) lead. Gives the node that leads then."""
        ...


class StateView(Protocol):
    """The state as it was at one moment. Immutable, so that any thread may read it while the state goes on."""

    def header(self) -> bytes:
        """What a load needs besides the chunks; small."""
        ...

    def parts(self) -> Iterator[StatePart]:
        """What the chunks are made from, lazily and always in the same order; equal states give equal chunks."""
        ...


class StateLoader(Protocol):
    """A state being built from a snapshot, apart from the present one."""

    def add(self, chunk: bytes) -> None:
        """Take one chunk, in any order. Raises ValueError when it is none."""
        ...

    def finish(self) -> Callable[[], None]:
        """Verify the whole: digest and completeness. Raises ValueError.

        The answer, called where `apply` is called, puts the loaded state in the place of the present one at once.
        """
        ...


class ReplicatedState(Protocol):
    """What the log replicates, as the log sees it: bytes in, bytes out. Total: `apply` never raises."""

    def apply(self, index: int, term: int, entry: bytes) -> None: ...

    def view(self) -> StateView:
        """The present state; costs nothing."""
        ...

    def begin_load(self, header: bytes) -> StateLoader:
        """Raises ValueError when `header` is not one of a state like this. The loader may work in another thread."""
        ...

    def load_format_1(self, data: bytes) -> Callable[[], None]:
        """As `begin_load` to `finish`, for the single document of an old snapshot. Raises ValueError."""
        ...

    def digest(self) -> str:
        """Hash of the state, cheap to ask for."""
        ...


# -- backups -----------------------------------------------------------------------------------------------------------


class SnapshotGoneError(Exception):
    """The snapshot, or the chunk of it, that was asked for is not held here: take another snapshot."""


class SnapshotsBusyError(Exception):
    """Too many snapshots are being read already."""


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A point of the state that is held so that its chunks can be read."""

    id: str
    encoded: bytes
    """The manifest as it is stored and sent."""
    manifest: Manifest
    revision: int
    idle_s: float
    """It is let go when nobody asked for anything of it for so long."""


class SnapshotSource(Protocol):
    """Snapshots of the replicated state, as of now."""

    async def take(self, *, timeout_s: float) -> HeldSnapshot:
        """A snapshot that includes every write acknowledged before the call. Raises LogError, SnapshotsBusyError."""
        ...

    async def manifest(self, id_: str) -> bytes:
        """Raises SnapshotGoneError."""
        ...

    async def chunks(self, id_: str, names: Sequence[str]) -> Sequence[bytes]:
        """The chunks of these names, in their order. Raises SnapshotGoneError."""
        ...

    async def release(self, id_: str) -> None:
        """It is not needed any more; unknown is success."""
        ...


# -- where backups are kept --------------------------------------------------------------------------------------------


class StoreError(Exception):
    """A snapshot store could not do what was asked.

    `code` is stable: `not_found`, `no_bucket`, `denied`, `unreachable`, `damaged` (what is there is not what was put),
    `busy` (somebody else is at work there), `too_large`, `invalid` (the caller's or the settings' fault) or `failed`.
    Message and `hint` hold no credential.
    """

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class StoredObject:
    name: str
    size: int
    modified_at_s: float
    """Seconds since the Unix epoch by the store's own clock: to be compared with other objects of the store only."""


class SnapshotStore(Protocol):
    """Objects by name, each there whole or not at all.

    Names are relative paths of safe segments (`chunks/ab/abcd...`). Every call blocks, is bounded in time and memory,
    may be made from several threads at once, and raises StoreError.
    """

    @property
    def location(self) -> str:
        """Where this is, for people; without credentials."""
        ...

    @property
    def shared(self) -> bool:
        """It holds many snapshots and others may use it at the same time; False for a file with one snapshot."""
        ...

    def put(self, name: str, data: Iterable[bytes], *, sha256: str) -> None:
        """Keep `data` under `name`, replacing what was there. When this returns, what is stored was compared with
        `sha256` (hex); when it raises, no altered or shortened object stays under `name`."""
        ...

    def get(self, name: str, *, sha256: str | None = None) -> bytes:
        """The object; with `sha256`, an altered or truncated one is refused (`damaged`)."""
        ...

    def exists(self, name: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below the folder `prefix`, in any order."""
        ...

    def delete(self, name: str) -> None:
        """Absent is success."""
        ...


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """The scheduled backups as one node sees them: by what is in the store, and what it last tried itself."""

    location: str
    every_s: float
    last_saved_at_ms: int | None
    """When the newest snapshot in the store was taken; None when there is none or the store was not read yet."""
    last_index: int | None
    error: str
    """Why the last look or save of this node failed; empty when it did not."""
    error_at_ms: int | None
    overdue: bool
    """The newest snapshot is older than two periods, or there is none after that time."""


# -- the host ----------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Lease:
    """The host's right to run what may move, until a time on CLOCK_BOOTTIME."""

    ends_s: float
    """Seconds on CLOCK_BOOTTIME."""
    grace_s: float
    """How long after that what is only paused is kept."""


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

    async def renew(self, lease: Lease) -> None:
        """Let microVMs whose `on_detach` is not `keep` run until the lease ends, and no longer: at its end they are
        paused or killed as their definition says, even if this process is gone or frozen by then. What an earlier
        lease's end paused goes on. The lease counts once this returns; before the first one nothing of that kind runs.

        Drivers whose `info.fences` is false never run such microVMs (`check` refuses them) and do nothing here.
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


# -- the replica that every front holds --------------------------------------------------------------------------------


class CompactedError(Exception):
    """The revision that a watcher wants to start from is no longer remembered: list again, then watch from there."""


class StateReader(Protocol):
    @property
    def state(self) -> State:
        """The replica's present state; may lag behind the leader."""
        ...

    @property
    def caught_up(self) -> bool:
        """A leader is known and the replica follows it."""
        ...

    @property
    def begun(self) -> bool:
        """The incarnation of the log has begun in `state`: hosts may be told what it says (docs/adr/0103)."""
        ...

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        """A state that reflects every write acknowledged before the call. Raises NoLeaderError."""
        ...

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        """The first state in which `condition` holds, or None at the deadline."""
        ...

    def watch(self, after: int | None) -> AsyncIterator[Event]:
        """Every event with a revision above `after` (None: from now), without end. Raises CompactedError."""
        ...


class Proposer(Protocol):
    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Commit a command and answer what the machine said of it, once this replica has applied it.

        Raises NoLeaderError, OutcomeUnknownError, EntryTooLargeError.
        """
        ...

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        """Commit several independent commands in one entry, each for itself; same errors."""
        ...


# -- agents, from the node's side --------------------------------------------------------------------------------------


class HostUnreachableError(Exception):
    """The host's agent has no session anywhere that can be asked now."""


@dataclass(frozen=True, slots=True)
class BidRequestItem:
    uid: str
    spec: MicroVMSpec


@dataclass(frozen=True, slots=True)
class Presence:
    """A session that a node holds, and how long ago its agent was last heard."""

    node: str
    host: str
    session: str
    last_heartbeat_age_s: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a session asks a lease for."""

    host: str
    session: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease for the session that sent the heartbeat; it ends `ttl_s` after that was sent."""

    host: str
    session: str
    sequence: int
    ttl_s: float
    grace_s: float


class LeaseGrantor(Protocol):
    """Who grants: on the leader, that node's keeper of leases; elsewhere, the way to it."""

    async def grant(self, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        """Grants for those of `asked` that may have one; what is refused is left out. Raises NoLeaderError."""
        ...


class AgentLink(Protocol):
    """Questions to agents, whatever node they dialled."""

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        """The host's bid for each item, by uid. Raises HostUnreachableError."""
        ...

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        """(next offset, bytes). Raises HostUnreachableError, DriverError."""
        ...

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        """Sessions at all nodes that answered, and the nodes that did not."""
        ...
