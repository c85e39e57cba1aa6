"""A member's memory: what it recovered from disk, whom it follows, and what others may know about it.

The engine's attributes stay the only copy of role, term, log position and progress; the properties here name them. The
layers above (`voting`, `replication`, `core`) add behaviour, each for one concern.
"""

from __future__ import annotations

import logging
import math

from controlplane.consensus import engine
from controlplane.consensus.agreement import Agreement
from controlplane.consensus.bridge import Bridge, EngineLog, Hooks, NoPoller, Outlet
from controlplane.consensus.configuration import Configuration, encode
from controlplane.consensus.configuration import founding as found
from controlplane.consensus.configurations import Configurations, read_configurations
from controlplane.consensus.elections import Ballot, PreVote
from controlplane.consensus.engine import Engine, EngineNode, monotonic_s
from controlplane.consensus.errors import CorruptDataError, SafetyViolationError
from controlplane.consensus.journal import FIRST_INDEX, Journal
from controlplane.consensus.messages import AppendReply, Message, VoteRequest
from controlplane.consensus.reads import ReadRounds
from controlplane.consensus.settings import RaftSettings
from controlplane.consensus.snapshot import SnapshotDirectory
from controlplane.consensus.transfers import Incoming, Outgoing
from controlplane.manifest import Manifest
from controlplane.ports import Divergence, ReplicatedState

_log = logging.getLogger(__name__)


class Member(Engine):
    """The state of one member. Not thread-safe."""

    def __init__(
        self,
        settings: RaftSettings,
        *,
        journal: Journal,
        snapshots: SnapshotDirectory,
        state: ReplicatedState,
        outlet: Outlet,
        hooks: Hooks,
        founding: Configuration | None = None,
    ) -> None:
        """`founding` is what the data directory remembers of the first start; None takes it from the settings."""
        engine.check_engine(engine.installed_version(), engine.upstream_engine())
        if founding is None and not settings.join:
            founding = found(settings.node, settings.address, settings.peers)
        self._founding = founding
        self._settings = settings
        self._journal = journal
        self._snapshots = snapshots
        self._state = state
        self._outlet = outlet
        self._hooks = hooks
        self._nodes: dict[str, EngineNode] = {}
        self._configurations = Configurations(founding)
        self._voters: frozenset[str] = frozenset()
        self._other_voters: frozenset[str] = frozenset()
        self._followers: tuple[EngineNode, ...] = ()
        self._membership_version = 0
        self._pre_vote = PreVote(settings.node)
        self._ballot = Ballot(settings.node)
        # The engine elects when its own deadline passes; ours decides when it may, so the engine's is kept at infinity.
        self._election_due_s = 0.0
        self._led_at_s = -math.inf
        self._handed_over_in = 0
        """The last term whose leader asked this node to lead the next one."""
        self._reads = ReadRounds()
        self._agreement = Agreement(settings.node)
        self._round = 0
        self._told_commit = 0
        self._held: dict[EngineNode, AppendReply] = {}
        self._outgoing: dict[EngineNode, Outgoing] = {}
        self._incoming: Incoming | None = None
        self._installing = False
        self._heard_at_s: dict[str, float] = {}
        self._answered: set[EngineNode] = set()
        """Who answered this leader at all. The engine takes everybody for reachable when a leadership begins."""
        self._leads_since_s = -math.inf
        self._entry_index = 0
        self._snapshot_index = 0
        self._bytes_since_snapshot = 0
        self._snapshot_at_s = monotonic_s()
        self._snapshotting = False
        conf = engine.make_conf(
            autoTick=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=settings.heartbeat_s,
            raftMinTimeout=settings.election_min_s,
            raftMaxTimeout=settings.election_max_s,
            leaderFallbackTimeout=settings.election_max_s,
            connectionTimeout=max(3.5, settings.election_max_s),
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
            onStateChanged=self._state_changed,
        )
        bridge = Bridge(self._ask_vote)
        super().__init__(EngineNode(settings.node), [], conf, transport=bridge)
        engine.check_instance(self)
        self._poller = NoPoller()
        self._SyncObj__raftLog = EngineLog(journal)
        self._SyncObj__raftElectionDeadline = math.inf
        self._await_leader()
        self._recover()

    def _recover(self) -> None:
        """Adopt what the disk holds: the snapshot, then the journal above it."""
        journal = self._journal
        found = self._snapshots.recover(self._state)
        if found is not None:
            self._stands_at(found)
            self._snapshot_at_s -= self._snapshots.age_s()
            if journal.term_at(found.index) != found.term and journal.base_index <= found.index:
                # The crash came between installing a snapshot and resetting the journal.
                journal.reset(found.index, found.term)
        applied = found.index if found else FIRST_INDEX
        if journal.base_index > applied:
            raise CorruptDataError(
                f"the log begins at {journal.base_index}, but no snapshot reaches it (newest: {applied}); restore it"
            )
        self._SyncObj__raftLastApplied = applied
        self._SyncObj__raftCommitIndex = max(journal.commit_index, applied)
        journal.set_commit_index(self.commit_index)
        self._SyncObj__raftCurrentTerm = max(journal.current_term, journal.last_term)
        self._SyncObj__votedForNodeId = journal.voted_for if journal.current_term >= journal.last_term else None
        self._read_configurations(found)

    def _read_configurations(self, below: Manifest | None) -> None:
        """Find the configurations again: that of the snapshot `below` the log, then those in it."""
        snapshot = (below.configuration, below.configuration_index) if below is not None else (b"", 0)
        self._configurations = read_configurations(self._founding, snapshot, self._journal[1:])
        self._configure()

    def _configure(self) -> None:
        """Let the newest configuration in the log count from now on, committed or not."""
        configuration = self._configurations.current
        me = frozenset({self._settings.node})
        self._voters = configuration.voters if configuration else frozenset[str]()
        self._other_voters = self._voters - me
        learners = configuration.learners - me if configuration else frozenset[str]()
        # The engine counts its majorities by these two.
        self._SyncObj__otherNodes = {self._node(node) for node in self._other_voters}
        self._SyncObj__readonlyNodes = {self._node(node) for node in learners}
        self._followers = tuple(self._node(node) for node in sorted(self._other_voters | learners))
        self._membership_version += 1
        for retired in configuration.retired if configuration else ():
            self._agreement.forget(retired)
        if self.is_leader:
            self._track_followers()

    def _track_followers(self) -> None:
        """A leader keeps progress of exactly its followers."""
        progress = self._SyncObj__raftNextIndex
        for node in self._followers:
            if node not in progress:
                progress[node] = self._journal.last_index + 1
                self._SyncObj__raftMatchIndex[node] = 0
                self._SyncObj__lastResponseTime[node] = monotonic_s()
        for node in [node for node in progress if node not in self._followers]:
            self._drop_progress(node)

    def _drop_progress(self, node: EngineNode) -> None:
        del self._SyncObj__raftNextIndex[node], self._SyncObj__raftMatchIndex[node]
        self._SyncObj__lastResponseTime.pop(node, None)
        self._outgoing.pop(node, None)

    def _node(self, peer: str) -> EngineNode:
        node = self._nodes.get(peer)
        if node is None:
            node = self._nodes[peer] = EngineNode(peer)
        return node

    @property
    def configuration(self) -> Configuration | None:
        """The newest in this node's log; None while it joins and has heard of none."""
        return self._configurations.current

    @property
    def incarnation(self) -> int:
        """Of that configuration; 0 without one."""
        return self.configuration.incarnation if self.configuration is not None else 0

    @property
    def configuration_index(self) -> int:
        return self._configurations.index

    @property
    def committed_configuration(self) -> Configuration | None:
        return self._configurations.at(self.commit_index)[1]

    @property
    def membership_version(self) -> int:
        """Changes whenever `configuration` or `committed_configuration` may have."""
        return self._membership_version

    @property
    def is_alone(self) -> bool:
        """Whether no other voter has to be asked for anything."""
        return self.is_voter and not self._other_voters

    @property
    def is_voter(self) -> bool:
        return self._settings.node in self._voters

    def configuration_at(self, index: int) -> tuple[bytes, int]:
        """The encoded configuration of a log that ends at `index`, and where it stands: for a snapshot there."""
        at, configuration = self._configurations.at(index)
        return (encode(configuration) if configuration else b""), at

    def _stands_at(self, manifest: Manifest) -> None:
        """The state is now that of a snapshot."""
        self._agreement.restart()
        self._agreement.note(manifest.index, self._state.digest())
        self._entry_index = manifest.entry_index
        self._snapshot_index = manifest.index
        self._snapshot_at_s = monotonic_s()
        self._bytes_since_snapshot = 0

    @property
    def role(self) -> str:
        if not self.is_voter:
            return "learner"
        return ("follower", "candidate", "leader")[self._SyncObj__raftState]

    @property
    def is_leader(self) -> bool:
        return self._SyncObj__raftState == engine.LEADER

    @property
    def leader(self) -> str | None:
        node = self._SyncObj__raftLeader
        return node.id if node is not None else None

    @property
    def term(self) -> int:
        return self._SyncObj__raftCurrentTerm

    @property
    def commit_index(self) -> int:
        return self._SyncObj__raftCommitIndex

    @property
    def applied_index(self) -> int:
        return self._SyncObj__raftLastApplied

    @property
    def last_index(self) -> int:
        return self._journal.last_index

    @property
    def entry_index(self) -> int:
        """The last applied index whose entry the state got; the indexes between it and `applied_index` are no-ops."""
        return self._entry_index

    @property
    def snapshot_index(self) -> int:
        return self._snapshot_index

    @property
    def snapshot_age_s(self) -> float | None:
        """Since the newest snapshot was taken here or received; None without one."""
        return monotonic_s() - self._snapshot_at_s if self._snapshot_index else None

    @property
    def has_quorum(self) -> bool:
        horizon = monotonic_s() - self._settings.election_max_s
        if self.is_leader:
            last = self._SyncObj__lastResponseTime
            answered = sum(last[node] > horizon for node in self._SyncObj__otherNodes)
            return answered >= (len(self._other_voters) + 1) // 2
        return self._hears_leader(self._settings.election_max_s)

    @property
    def checked_index(self) -> int:
        """See `ports.LogStatus`."""
        return self._agreement.checked_index

    @property
    def divergences(self) -> tuple[Divergence, ...]:
        """See `ports.LogStatus`."""
        return self._agreement.divergences

    def match_index(self, peer: str) -> int | None:
        return self._SyncObj__raftMatchIndex.get(self._node(peer)) if self.is_leader else None

    def last_heard_s(self, peer: str) -> float | None:
        """Seconds since the last message of `peer`."""
        at = self._heard_at_s.get(peer)
        return None if at is None else monotonic_s() - at

    def _hears_leader(self, within_s: float) -> bool:
        return self._SyncObj__raftLeader is not None and self._led_at_s > monotonic_s() - within_s

    def _await_leader(self) -> None:
        """Begin a new election timeout."""
        self._election_due_s = monotonic_s() + self._SyncObj__generateRaftTimeout()

    def _send(self, node: EngineNode, message: Message) -> None:
        self._outlet.send(node.id, message)

    def _ask_vote(self, node: EngineNode, term: int, last_index: int, last_term: int) -> None:
        handed_over = term == self._handed_over_in + 1
        self._send(node, VoteRequest(term, last_index, last_term, pre=False, handed_over=handed_over))

    def _flush(self) -> None:
        if self._journal.dirty:
            self._journal.sync()
        if self._held:
            held, self._held = self._held, {}
            for node, reply in held.items():
                self._send(node, reply)

    def _state_changed(self, old: int, new: int) -> None:
        _log.info("%s: %s in term %d", self._settings.node, ("follower", "candidate", "leader")[new], self.term)
        if old == engine.LEADER:
            self._await_leader()
            self._outgoing.clear()
            self._reads.fail()

    # ---------------------------------------------------------------------------------------

    def _adopt_term(self, term: int) -> None:
        """A higher term was seen: follow it, without a leader yet."""
        self._held.clear()
        self._pre_vote.cancel()
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__raftLeader = None
        self._SyncObj__setState(engine.FOLLOWER)

    def _follow(self, node: EngineNode, term: int) -> bool:
        """Whether `node` leads in `term`; if so, it is this node's leader from now on."""
        if term < self.term:
            return False
        if term > self.term:
            self._adopt_term(term)
        elif self.is_leader:
            raise SafetyViolationError(f"{node.id} and {self._settings.node} both lead in term {term}")
        self._pre_vote.cancel()
        self._SyncObj__raftLeader = node
        self._SyncObj__setState(engine.FOLLOWER)
        self._led_at_s = monotonic_s()
        self._await_leader()
        return True

    def _answers_leader(self, node: EngineNode, term: int) -> bool:
        """Whether a reply of `term` is one to this leader; a higher term ends the leadership."""
        if term > self.term:
            self._adopt_term(term)
        if term < self.term or not self.is_leader or node not in self._SyncObj__raftMatchIndex:
            return False
        self._SyncObj__lastResponseTime[node] = monotonic_s()
        self._answered.add(node)
        return True
