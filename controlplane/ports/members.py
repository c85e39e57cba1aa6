"""The log's members: who they are, how each sees the log, and how they come and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from controlplane.model.types import record


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


@record
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
    machine_version: int = 0
    """The newest that its build knew when it connected last; 0 while that is not known."""


@record
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
    machine_version: int = 0
    """The newest that this build knows; 0 of a build that does not say."""

    @property
    def machine_versions(self) -> dict[str, int]:
        """By member, the newest that its build is known to know; 0 of one that is not connected or does not say."""
        known = {peer.node: peer.machine_version for peer in self.peers if peer.connected}
        known[self.node] = self.machine_version
        return {member.node: known.get(member.node, 0) for member in self.members}


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
