"""What API v2 answers about the cluster itself: its log, members, nodes' beliefs, backups and snapshots."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.host_shapes import HostPhaseName
from controlplane.api.http.shape import Shape
from controlplane.api.http.times import Timestamp


class PeerShape(Shape):
    node: str
    address: str
    connected: bool
    learner: bool
    match_index: int | None
    lag_entries: int | None = Field(description="Entries that it is not known to have; known on the leader only.")
    last_contact_ms: int | None
    machine_version: int = Field(description="The newest that its build knew when it connected last; 0: not known.")


class LatencyShape(Shape):
    """Of a recent window; all zero where nothing was measured."""

    samples: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class DivergenceShape(Shape):
    node: str
    index: int
    state_hash: str
    expected: str = Field(description="What a majority of the voters has there; empty while there is none.")


class MemberShape(Shape):
    node: str
    address: str = Field(description="Where the other nodes reach its log.")
    role: Literal["voter", "learner"]
    api: str | None
    gateway: str | None


class MemberList(Shape):
    items: list[MemberShape]
    configuration_index: int
    committed: bool = Field(description="False while the last change is not committed.")
    incarnation: int


class Leadership(Shape):
    leader: str


class LogShape(Shape):
    """One node's view of the replicated log."""

    node: str
    role: str = Field(
        description="`leader`, `follower`, `candidate`, `learner` (it gets the log and has no vote) or `starting`."
    )
    leader: str | None
    term: int
    incarnation: int = Field(description="Raised by a recovery from quorum loss and by a restore.")
    machine_version: int = Field(description="The newest that this node's build knows.")
    last_index: int
    commit_index: int
    applied_index: int
    has_quorum: bool
    fsync: str
    fsync_latency: LatencyShape
    state_hash: str
    state_hash_index: int = Field(description="Hashes of two nodes are comparable at equal indexes only.")
    checked_index: int = Field(description="Up to here a majority of the voters is known to have this node's hash.")
    divergences: list[DivergenceShape]
    snapshot_index: int
    snapshot_age_s: float | None
    log_entries: int
    log_bytes: int
    uptime_s: float
    configuration_index: int
    members: list[MemberShape]
    removed_dead: list[str] = Field(description="Removed because they could not be reached for too long.")
    peers: list[PeerShape]
    concerns: list[str] = Field(description="What is wrong or unsafe at this node, in words; empty when nothing is.")


class BackupShape(Shape):
    """Scheduled backups, by what the answering node finds in the store."""

    location: str
    every_s: float
    last_saved_at: Timestamp | None = Field(description="When the newest snapshot in the store was taken.")
    last_index: int | None
    error: str = Field(description="Why this node's last look or save failed; empty when it did not.")
    error_at: Timestamp | None
    overdue: bool = Field(description="The newest snapshot is older than two periods.")


class BeliefShape(Shape):
    """What one node believes of the cluster."""

    role: str
    leader: str | None = Field(description="The leader that it hears, or is, with a majority behind it.")
    term: int
    since_s: float = Field(description="For how long there has been this leader, or none.")
    age_s: float = Field(description="What was acknowledged elsewhere in the last so many seconds it may not know.")
    hears: list[str] = Field(description="The other voters that it hears.")
    misses: list[str] = Field(description="The other voters that it does not hear.")
    revision: int = Field(description="Of its replica.")


class RestoreShape(Shape):
    """That the cluster was restored, and what is waited for."""

    incarnation: int = Field(description="Of the log.")
    begun: bool = Field(description="Every lease of the lost history has ended, and hosts may have new ones.")
    waits_s: float | None = Field(description="Until it begins, at most; null where nobody can tell.")
    awaited: list[str] = Field(description="Hosts that have yet to tell what they hold before anything is placed.")
    message: str


class NodeShape(Shape):
    node: str
    address: str | None
    reachable: bool
    role: str | None = Field(description="Null where this node cannot know it.")
    agents: int | None = Field(description="Agent sessions at it; null where it did not answer.")
    belief: BeliefShape | None = Field(description="What it believes itself; null where it could not be asked.")
    not_asked: str = Field(description="Why it could not be asked; empty where it was.")


class OverrideShape(Shape):
    actor: str
    at: Timestamp
    until: Timestamp = Field(description="It ends by itself then.")
    reason: str


class FailoverShape(Shape):
    """Whether microVMs of lost hosts are restarted elsewhere."""

    breaker_open: bool = Field(
        description="Too many hosts were lost at once: what was on them is not restarted elsewhere."
    )
    lost: int = Field(
        description="Hosts that are detached or fenced, and that nobody confirmed as off; while too many are lost at"
        " once, all of those."
    )
    of: int = Field(description="Declared hosts that have ever connected; while too many are lost, those of then.")
    message: str = Field(description="What is held, and what to do about it; empty where nothing is.")
    override: OverrideShape | None = Field(description="An operator lets failover go on for a time.")


class ClusterShape(Shape):
    cluster_id: str
    revision: int
    state_hash: str = Field(description="Digest of this node's replica at `revision`.")
    node: str
    version: str
    machine_version: int = Field(description="What every node is known to read; rises once all are upgraded.")
    log: LogShape | None = Field(description="Null where this node's log does not answer.")
    backup: BackupShape | None = Field(description="Null where no backups are scheduled at this node.")
    nodes: list[NodeShape]
    hosts: dict[HostPhaseName, int]
    disagreements: list[str] = Field(description="Where the nodes' beliefs contradict each other; empty when nowhere.")
    restore: RestoreShape | None = Field(description="Null where nothing is waited for after a restore.")
    failover: FailoverShape
    microvms: dict[str, int] = Field(description="By observed power state; `pending` where nothing was observed.")


class SnapshotShape(Shape):
    """A snapshot that a node holds for reading."""

    id: str
    cluster_id: str
    node: str = Field(description="The node that holds it: only this one has its chunks.")
    incarnation: int
    index: int = Field(description="Where in the log it stands.")
    term: int
    revision: int
    chunks: int
    size: int = Field(description="Bytes of all chunks.")
    idle_s: float = Field(description="It is let go when nobody read of it for so long.")


class Released(Shape):
    status: Literal["released"] = "released"
