"""Raft on PySyncObj: the engine keeps roles, progress and the commit rule; messages, disk and edges are ours.

A tick runs when something happened (a message, a proposal, a deadline), and does the same things in the same order:
make the journal durable, send the acknowledgements that waited for that, let the engine elect, commit and apply, send
what is new, then sync again while the followers sync too. So every entry that arrived meanwhile shares one disk sync,
and nothing is counted or acknowledged before it is durable. Single-node is the same code with no one to ask.

Departures from the engine, each with a regression test: term in every reply, truncation only on a conflict, monotonic
progress, pre-vote and leader stickiness, refusals to stale leaders, read-index, snapshots by checksummed chunks, no
pickle.
"""

# ruff: noqa: N802, N803 - overridden methods have the names the engine gave them
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from controlplane.consensus import engine
from controlplane.consensus.elections import Ballot, PreVote
from controlplane.consensus.engine import Engine, EngineNode, EngineTransport, monotonic_s
from controlplane.consensus.errors import CorruptDataError, SafetyViolationError
from controlplane.consensus.journal import Journal, LogEntry
from controlplane.consensus.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    SnapshotReply,
    VoteReply,
    VoteRequest,
)
from controlplane.consensus.reads import ReadCallback, ReadRounds
from controlplane.consensus.settings import RaftSettings
from controlplane.consensus.snapshot import SnapshotFile, SnapshotMeta
from controlplane.consensus.transfers import Incoming, Outgoing
from controlplane.ports import ReplicatedState

_log = logging.getLogger(__name__)

_BATCH_BYTES = 1 << 20
_APPLY_BATCH = 2_000


class Outlet(Protocol):
    """Where messages leave. Losing one is allowed, reordering within a connection is not."""

    def send(self, peer: str, message: Message) -> bool: ...

    def writable(self, peer: str) -> bool:
        """False while the peer's queue is long: nothing new should be sent."""
        ...


class Hooks(Protocol):
    """What the core asks of its surroundings."""

    def wake(self) -> None:
        """Run a tick soon."""
        ...

    def progressed(self) -> None:
        """Entries were applied, or the state was replaced."""
        ...

    def snapshot_due(self) -> None: ...


class _Bridge(EngineTransport):
    """The engine's own sends, of which only the vote request of its election is left."""

    ready = True

    def __init__(self, send: Callable[[EngineNode, Message], None]) -> None:
        super().__init__(None, EngineNode(""), [])
        self._send = send

    def send(self, node: EngineNode, message: dict[str, int | str]) -> bool:
        if message["type"] != "request_vote":
            raise SafetyViolationError(f"the engine sent {message['type']!r} by itself")
        term, index, last_term = (int(message[key]) for key in ("term", "last_log_index", "last_log_term"))
        self._send(node, VoteRequest(term=term, last_index=index, last_term=last_term, pre=False))
        return True


class _EngineLog:
    """The journal under the names the engine uses; what the engine must not do has no name here."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.add = journal.add
        self.setCurrentTerm = journal.set_term
        self.setRaftCommitIndex = journal.set_commit_index

    def __len__(self) -> int:
        return len(self._journal)

    def __getitem__(self, position: int | slice) -> LogEntry | list[LogEntry]:
        return self._journal[position]

    def onOneSecondTimer(self) -> None:
        """Nothing is left for later: `sync` already wrote it."""


class _NoPoller:
    def poll(self, timeout_s: float) -> None:
        """The event loop polls."""


class RaftCore(Engine):
    """One member. Not thread-safe; every method may raise ConsensusError or OSError, after which the node must stop."""

    def __init__(
        self,
        settings: RaftSettings,
        *,
        journal: Journal,
        snapshots: SnapshotFile,
        state: ReplicatedState,
        outlet: Outlet,
        hooks: Hooks,
    ) -> None:
        engine.check_engine(engine.installed_version(), engine.upstream_engine())
        size = len(settings.peers) + 1
        self._settings = settings
        self._journal = journal
        self._snapshots = snapshots
        self._state = state
        self._outlet = outlet
        self._hooks = hooks
        self._nodes = {peer: EngineNode(peer) for peer in settings.peers}
        self._pre_vote = PreVote(settings.node, size)
        self._ballot = Ballot(settings.node, size)
        self._may_campaign = False
        self._reads = ReadRounds(size)
        self._round = 0
        self._told_commit = 0
        self._held: dict[EngineNode, AppendReply] = {}
        self._outgoing: dict[EngineNode, Outgoing] = {}
        self._incoming = Incoming()
        self._heard_at_s: dict[str, float] = {}
        self._entry_index = 0
        self._snapshot_index = 0
        self._bytes_since_snapshot = 0
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
        bridge = _Bridge(self._send)
        super().__init__(EngineNode(settings.node), list(self._nodes.values()), conf, transport=bridge)
        engine.check_instance(self)
        self._poller = _NoPoller()
        self._SyncObj__raftLog = _EngineLog(journal)
        self._recover()

    def _recover(self) -> None:
        """Adopt what the disk holds: the snapshot, then the journal above it."""
        journal = self._journal
        found = self._snapshots.load()
        if found is not None:
            meta, data = found
            self._load_state(meta, data)
            if journal.term_at(meta.index) != meta.term and journal.base_index < meta.index:
                # The crash came between installing a snapshot and resetting the journal.
                journal.reset(meta.index, meta.term)
        applied = found[0].index if found else 1
        if journal.base_index > applied:
            raise CorruptDataError(
                f"the log begins at {journal.base_index}, but no snapshot reaches it (newest: {applied}); restore it"
            )
        self._SyncObj__raftLastApplied = applied
        self._SyncObj__raftCommitIndex = max(journal.commit_index, applied)
        self._SyncObj__raftCurrentTerm = max(journal.current_term, journal.last_term)
        self._SyncObj__votedForNodeId = journal.voted_for if journal.current_term >= journal.last_term else None

    def _load_state(self, meta: SnapshotMeta, data: bytes | bytearray) -> None:
        try:
            self._state.load(meta.index, bytes(data))
        except ValueError as error:
            raise CorruptDataError(f"the snapshot at {meta.index} is not a state: {error}") from error
        self._entry_index = meta.entry_index
        self._snapshot_index = meta.index
        self._bytes_since_snapshot = 0

    # -- what others see -----------------------------------------------------------------------------------------------

    @property
    def role(self) -> str:
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
    def entry_index(self) -> int:
        """The last applied index whose entry the state got; the indexes between it and `applied_index` are no-ops."""
        return self._entry_index

    @property
    def snapshot_index(self) -> int:
        return self._snapshot_index

    @property
    def has_quorum(self) -> bool:
        horizon = monotonic_s() - self._settings.election_max_s
        if self.is_leader:
            answered = sum(at > horizon for at in self._SyncObj__lastResponseTime.values())
            return answered >= (len(self._nodes) + 1) // 2
        return self._SyncObj__raftLeader is not None and self._leader_is_fresh(horizon)

    def match_index(self, peer: str) -> int | None:
        return self._SyncObj__raftMatchIndex.get(self._nodes[peer]) if self.is_leader else None

    def last_heard_s(self, peer: str) -> float | None:
        """Seconds since the last message of `peer`."""
        at = self._heard_at_s.get(peer)
        return None if at is None else monotonic_s() - at

    def next_deadline_s(self) -> float:
        """When a tick is due at the latest, on the engine's clock."""
        return self._SyncObj__newAppendEntriesTime if self.is_leader else self._SyncObj__raftElectionDeadline

    # -- requests ------------------------------------------------------------------------------------------------------

    def propose(self, entry: bytes, callback: engine.CommandCallback) -> None:
        """Append `entry` if this node leads when its turn comes.

        `callback(position, SUCCESS)` once applied; NOT_LEADER, QUEUE_FULL or DISCARDED: certainly not committed, now or
        ever; UNKNOWN_OUTCOME otherwise. It may also never come: callers keep their own deadline.
        """
        self._applyCommand(entry, callback, engine.REGULAR)
        self._hooks.wake()

    def read(self, callback: ReadCallback) -> None:
        """Answer with a read index once a quorum confirmed this leader; with None when it does not lead."""
        if not self.is_leader:
            callback(None)
            return
        self._reads.add(callback)
        self._hooks.wake()

    def campaign(self) -> None:
        """Start an election at the next tick, without asking first: when there is no one to ask."""
        self._may_campaign = True
        self._SyncObj__raftElectionDeadline = 0.0
        self._hooks.wake()

    def excuse_stall(self) -> None:
        """This process was late itself, so silence is no evidence yet: read what arrived before calling an election."""
        if not self.is_leader and self._nodes:
            soonest = monotonic_s() + 2 * self._settings.heartbeat_s
            self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, soonest)

    def connected(self, peer: str) -> None:
        node = self._nodes[peer]
        self._SyncObj__onNodeConnected(node)
        if self.is_leader and (match := self._SyncObj__raftMatchIndex.get(node, 0)):
            # What was on its way may be lost: go on from what is known to be there.
            self._SyncObj__raftNextIndex[node] = match + 1
        self._hooks.wake()

    def disconnected(self, peer: str) -> None:
        node = self._nodes[peer]
        self._SyncObj__onNodeDisconnected(node)
        self._outgoing.pop(node, None)

    # -- the tick ------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._flush()
        self._ask_before_election()
        self._onTick(0.0)
        if self.is_leader:
            if self._reads.arrived and self._leads_committed():
                self._SyncObj__sendAppendEntries()
            else:
                self._replicate(heartbeat=False)
            self._reads.resolve(self.applied_index, self._entry_index)
        self._flush()
        if self.applied_index < self.commit_index or (not self._nodes and self.commit_index < self._journal.last_index):
            self._hooks.wake()

    def _flush(self) -> None:
        if self._journal.dirty:
            self._journal.sync()
        if self._held:
            held, self._held = self._held, {}
            for node, reply in held.items():
                self._send(node, reply)

    def _ask_before_election(self) -> None:
        """When the engine's election is due, postpone it and ask the others first whether it could be won."""
        now = monotonic_s()
        if self._may_campaign or self.is_leader or not self._nodes or self._SyncObj__raftElectionDeadline >= now:
            self._may_campaign = False
            return
        self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout()
        self._SyncObj__raftLeader = None
        self._pre_vote.begin(self.term + 1)
        question = VoteRequest(self.term + 1, self._journal.last_index, self._journal.last_term, pre=True)
        for node in self._nodes.values():
            self._send(node, question)

    def _leads_committed(self) -> bool:
        """Whether an entry of this term is committed, so that the commit index is known to be current."""
        no_op = self._SyncObj__noopIDx
        return no_op is not None and self.commit_index >= no_op

    def _state_changed(self, old: int, new: int) -> None:
        _log.info("%s: %s in term %d", self._settings.node, ("follower", "candidate", "leader")[new], self.term)
        if old == engine.LEADER:
            self._SyncObj__raftElectionDeadline = monotonic_s() + self._SyncObj__generateRaftTimeout()
            self._outgoing.clear()
            self._reads.fail()

    # -- overridden engine methods
    # ---------------------------------------------------------------------------------------

    def _SyncObj__onBecomeLeader(self) -> None:
        super()._SyncObj__onBecomeLeader()
        # The engine may count this node's own no-op in this very tick.
        self._flush()

    def _checkCommandsToApply(self) -> None:
        if self.is_leader:
            super()._checkCommandsToApply()
            return
        while True:
            try:
                _, callback = self._SyncObj__commandsQueue.get_nowait()
            except engine.QueueEmpty:
                return
            callback(None, engine.NOT_LEADER)

    def _SyncObj__applyLogEntries(self) -> bool:
        applied, commit = self.applied_index, self.commit_index
        if commit <= applied:
            return False
        waiting = self._SyncObj__commandsWaitingCommit
        for command, index, term in self._SyncObj__getEntries(applied + 1, min(commit - applied, _APPLY_BATCH)):
            kind = command[0] if command else -1
            if kind == engine.REGULAR:
                self._state.apply(index, term, command[1:])
                self._entry_index = index
                self._bytes_since_snapshot += len(command)
            elif kind != engine.NO_OP_KIND:
                raise SafetyViolationError(f"entry {index} has kind {kind}, which this program does not know")
            self._SyncObj__raftLastApplied = index
            for proposed_term, callback in waiting.pop(index, ()):
                if proposed_term == term:
                    callback((index, term), engine.SUCCESS)
                else:
                    callback(None, engine.DISCARDED)
        self._hooks.progressed()
        return False

    def _SyncObj__sendAppendEntries(self) -> None:
        self._round += 1
        self._SyncObj__newAppendEntriesTime = monotonic_s() + self._settings.heartbeat_s
        if self._reads.arrived and self._leads_committed():
            self._reads.begin(self._round, self.commit_index)
        self._replicate(heartbeat=True)

    def _SyncObj__tryLogCompaction(self) -> None:
        grown = self.applied_index - self._snapshot_index
        limits = self._settings
        if grown >= limits.snapshot_entries or (grown and self._bytes_since_snapshot >= limits.snapshot_bytes):
            self.request_snapshot()

    def _SyncObj__onMessageReceived(self, node: EngineNode, message: object) -> None:
        raise SafetyViolationError("a message reached the engine around the core")

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        raise SafetyViolationError("the engine applied a command around the core")

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise SafetyViolationError("the engine loaded a dump around the core")

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> None:
        raise SafetyViolationError("the engine parsed a membership change around the core")

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, node: EngineNode, message: Message) -> None:
        self._outlet.send(node.id, message)

    def _replicate(self, *, heartbeat: bool) -> None:
        """Send every connected follower what it lacks; with `heartbeat`, send something in any case."""
        commit = self.commit_index
        notice = heartbeat or commit > self._told_commit
        self._told_commit = commit
        for node in self._SyncObj__connectedNodes:
            outgoing = self._outgoing.get(node) or self._begin_transfer(node)
            if outgoing is not None:
                self._send_chunk(node, outgoing, heartbeat=heartbeat)
            elif not self._send_entries(node, commit) and notice and self._outlet.writable(node.id):
                self._send_empty(node, self._SyncObj__raftNextIndex[node] - 1, self._round if heartbeat else 0)

    def _send_entries(self, node: EngineNode, commit: int) -> bool:
        journal = self._journal
        next_index = self._SyncObj__raftNextIndex
        last = journal.last_index
        sent = False
        while next_index[node] <= last and self._outlet.writable(node.id):
            first = next_index[node]
            entries = journal.entries_from(first, last, _BATCH_BYTES)
            prev_term = journal.term_at(first - 1)
            assert prev_term is not None
            body = [(term, command) for command, _, term in entries]
            if not self._outlet.send(
                node.id, AppendEntries(self.term, first - 1, prev_term, commit, self._round, body)
            ):
                break
            next_index[node] = entries[-1][1] + 1
            sent = True
        return sent

    def _send_empty(self, node: EngineNode, prev_index: int, round_number: int) -> None:
        prev_term = self._journal.term_at(prev_index)
        assert prev_term is not None
        self._send(node, AppendEntries(self.term, prev_index, prev_term, self.commit_index, round_number, []))

    def _begin_transfer(self, node: EngineNode) -> Outgoing | None:
        """A transfer for a follower whose next entry is compacted away."""
        if self._SyncObj__raftNextIndex[node] > self._journal.base_index:
            return None
        found = self._snapshots.load()
        if found is None:
            raise CorruptDataError(f"the log begins at {self._journal.base_index}, but the snapshot below it is gone")
        _log.info("%s: sending %s the snapshot at %d", self._settings.node, node.id, found[0].index)
        self._outgoing[node] = Outgoing(*found)
        return self._outgoing[node]

    def _send_chunk(self, node: EngineNode, outgoing: Outgoing, *, heartbeat: bool) -> None:
        now = monotonic_s()
        if outgoing.due(now) and self._outlet.writable(node.id):
            self._send(node, outgoing.chunk(self.term, now))
        if heartbeat:
            # It will not match, but it carries the round and keeps the follower from electing.
            self._send_empty(node, self._journal.base_index, self._round)

    # -- receiving -----------------------------------------------------------------------------------------------------

    def receive(self, peer: str, message: Message) -> None:
        """Handle one message of an authenticated peer. Answers that promise durability leave with the next tick."""
        node = self._nodes[peer]
        self._heard_at_s[peer] = monotonic_s()
        match message:
            case AppendEntries():
                self._on_append(node, message)
            case AppendReply():
                self._on_append_reply(node, message)
            case VoteRequest():
                self._on_vote_request(node, message)
            case VoteReply():
                self._on_vote_reply(node, message)
            case InstallSnapshot():
                self._on_install(node, message)
            case SnapshotReply():
                self._on_snapshot_reply(node, message)
            case _:
                raise SafetyViolationError(f"{type(message).__name__} is not the core's")
        self._hooks.wake()

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
        self._SyncObj__raftElectionDeadline = monotonic_s() + self._SyncObj__generateRaftTimeout()
        return True

    def _on_append(self, node: EngineNode, message: AppendEntries) -> None:
        if not self._follow(node, message.term):
            self._send(node, AppendReply(self.term, False, 0, message.round))
            return
        journal = self._journal
        prev_index, entries = message.prev_index, message.entries
        if prev_index < journal.base_index:
            # At and below the base everything is committed, hence the same on every leader.
            entries = entries[journal.base_index - prev_index :]
            prev_index = journal.base_index
        elif (term := journal.term_at(prev_index)) != message.prev_term:
            hint = journal.last_index + 1 if term is None else self._first_of_term(prev_index, term)
            self._send(node, AppendReply(self.term, False, hint, message.round))
            return
        self._store(prev_index, entries)
        match_index = prev_index + len(entries)
        self._commit(min(message.commit_index, match_index))
        if message.round or entries:
            held = self._held.get(node)
            best = (match_index, message.round)
            if held is not None:
                best = max(held.index, best[0]), max(held.round, best[1])
            self._held[node] = AppendReply(self.term, True, *best)

    def _store(self, prev_index: int, entries: list[tuple[int, bytes]]) -> None:
        """Add what is not there yet. Only an entry of another term removes anything, and never a committed one."""
        journal = self._journal
        for position, (term, _) in enumerate(entries):
            index = prev_index + 1 + position
            present = journal.term_at(index)
            if present == term:
                continue
            if present is not None:
                if index <= self.commit_index:
                    raise SafetyViolationError(f"entry {index} of term {present} is committed, but term {term} is sent")
                journal.truncate_from(index)
            for offset, (new_term, command) in enumerate(entries[position:]):
                journal.add(command, index + offset, new_term)
            return

    def _first_of_term(self, index: int, term: int) -> int:
        """The first index of the run of `term` that contains `index`, above the commit index."""
        floor = max(self.commit_index, self._journal.base_index) + 1
        while index > floor and self._journal.term_at(index - 1) == term:
            index -= 1
        return index

    def _commit(self, index: int) -> None:
        if index > self.commit_index:
            self._SyncObj__raftCommitIndex = index
            self._journal.set_commit_index(index)

    def _on_append_reply(self, node: EngineNode, message: AppendReply) -> None:
        if not self._answers_leader(node, message.term):
            return
        self._reads.echo(node.id, message.round)
        next_index, match_index = self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex
        if message.success:
            if message.index > self._journal.last_index:
                raise SafetyViolationError(f"{node.id} acknowledged entry {message.index}, which does not exist")
            match_index[node] = max(match_index[node], message.index)
            next_index[node] = max(next_index[node], match_index[node] + 1)
        elif node not in self._outgoing:
            next_index[node] = max(match_index[node] + 1, min(next_index[node], message.index))

    def _answers_leader(self, node: EngineNode, term: int) -> bool:
        """Whether a reply of `term` is one to this leader; a higher term ends the leadership."""
        if term > self.term:
            self._adopt_term(term)
        if term < self.term or not self.is_leader:
            return False
        self._SyncObj__lastResponseTime[node] = monotonic_s()
        return True

    # -- elections -----------------------------------------------------------------------------------------------------

    def _on_vote_request(self, node: EngineNode, message: VoteRequest) -> None:
        horizon = monotonic_s() - self._settings.election_min_s
        if self.is_leader or (self._SyncObj__raftLeader is not None and self._leader_is_fresh(horizon)):
            # Whoever asks cannot hear a leader that we hear; it will hear of it.
            self._send(node, VoteReply(self.term, False, message.pre))
            return
        up_to_date = (message.last_term, message.last_index) >= (self._journal.last_term, self._journal.last_index)
        if message.pre:
            granted = up_to_date and message.term > self.term
            self._send(node, VoteReply(message.term if granted else self.term, granted, True))
            return
        if message.term > self.term:
            self._adopt_term(message.term)
        granted = up_to_date and message.term == self.term and self._SyncObj__votedForNodeId in (None, node.id)
        if granted:
            self._SyncObj__setCurrentTerm(self.term, node.id)
            self._SyncObj__raftElectionDeadline = monotonic_s() + self._SyncObj__generateRaftTimeout()
        self._send(node, VoteReply(self.term, granted, False))

    def _leader_is_fresh(self, horizon_s: float) -> bool:
        leader = self.leader
        return leader is not None and self._heard_at_s.get(leader, 0.0) > horizon_s

    def _on_vote_reply(self, node: EngineNode, message: VoteReply) -> None:
        if message.pre and message.granted:
            if not self.is_leader and message.term == self.term + 1 and self._pre_vote.grant(node.id, message.term):
                self.campaign()
        elif message.term > self.term:
            self._adopt_term(message.term)
        elif (
            message.granted
            and self._SyncObj__raftState == engine.CANDIDATE
            and message.term == self.term
            and self._ballot.count(node.id, message.term)
        ):
            self._SyncObj__onBecomeLeader()

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def request_snapshot(self) -> None:
        if not self._snapshotting and self.applied_index > self._snapshot_index:
            self._snapshotting = True
            self._hooks.snapshot_due()

    def dump(self) -> tuple[int, int, int, bytes]:
        """(index, term, entry_index, data) of the state as it is now."""
        index = self.applied_index
        term = self._journal.term_at(index)
        assert term is not None
        return index, term, self._entry_index, self._state.dump()

    def snapshot_saved(self, meta: SnapshotMeta) -> None:
        """A snapshot is durable: drop the log below it, but for a tail that spares slow followers a transfer."""
        self._snapshotting = False
        if meta.index <= self._snapshot_index:
            return
        self._snapshot_index = meta.index
        self._bytes_since_snapshot = 0
        journal, limits = self._journal, self._settings
        keep_from = max(journal.base_index, meta.index - limits.retain_entries)
        tail = journal[keep_from + 1 - journal.base_index : meta.index + 1 - journal.base_index]
        size = 0
        for command, index, _ in reversed(tail):
            size += len(command)
            if size > limits.retain_bytes:
                keep_from = index
                break
        journal.compact_to(keep_from)

    def _on_install(self, node: EngineNode, message: InstallSnapshot) -> None:
        meta = message.meta
        if not self._follow(node, message.term):
            self._send(node, SnapshotReply(self.term, meta.index, 0, False))
            return
        if meta.index <= self.commit_index:
            self._incoming.clear()
            self._send(node, SnapshotReply(self.term, meta.index, meta.size, True))
            return
        installed = self._incoming.accept(message)
        if installed:
            self._install(meta, self._incoming.data)
            self._incoming.clear()
        self._send(node, SnapshotReply(self.term, meta.index, self._incoming.offset, installed))

    def _install(self, meta: SnapshotMeta, data: bytearray) -> None:
        _log.info("%s: installing the snapshot at %d", self._settings.node, meta.index)
        if meta.cluster_id != self._settings.cluster_id:
            raise SafetyViolationError(f"the leader sent a snapshot of cluster {meta.cluster_id!r}")
        self._flush()
        # First durable, then used: a crash in between finds the new snapshot and an older journal, which `_recover`
        # resets.
        self._snapshots.save(meta, data)
        self._load_state(meta, data)
        if self._journal.term_at(meta.index) != meta.term:
            self._journal.reset(meta.index, meta.term)
        self._SyncObj__raftLastApplied = meta.index
        self._commit(meta.index)
        waiting = self._SyncObj__commandsWaitingCommit
        for index in [index for index in waiting if index <= meta.index]:
            for _, callback in waiting.pop(index):
                callback(None, engine.UNKNOWN_OUTCOME)
        self._hooks.progressed()

    def _on_snapshot_reply(self, node: EngineNode, message: SnapshotReply) -> None:
        if not self._answers_leader(node, message.term):
            return
        outgoing = self._outgoing.get(node)
        if outgoing is None or outgoing.meta.index != message.index:
            return
        if message.installed:
            del self._outgoing[node]
            match_index = self._SyncObj__raftMatchIndex
            match_index[node] = max(match_index[node], message.index)
            self._SyncObj__raftNextIndex[node] = match_index[node] + 1
        else:
            outgoing.acknowledged(message.offset)
