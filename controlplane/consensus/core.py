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

import math

from controlplane.consensus import engine
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.errors import SafetyViolationError
from controlplane.consensus.membership import Reconfigurable
from controlplane.consensus.messages import (
    AppendEntries,
    AppendReply,
    Message,
    SnapshotData,
    SnapshotFetch,
    SnapshotOffer,
    StateHash,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from controlplane.consensus.reads import LeadershipCallback, ReadCallback
from controlplane.consensus.snapshot import Capture
from controlplane.manifest import Manifest

_APPLY_BATCH = 2_000


class RaftCore(Reconfigurable):
    """One member, whole. Every method may raise ConsensusError or OSError, after which the node must stop."""

    def next_deadline_s(self) -> float:
        """When a tick is due at the latest, on the engine's clock."""
        return self._SyncObj__newAppendEntriesTime if self.is_leader else self._election_due_s

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

    def confirm(self, callback: LeadershipCallback) -> None:
        """As `read`, with the term in which this node was confirmed to lead after the call.

        The end of a leadership fails every read of it, so the term at the answer is the one of the call.
        """
        self.read(lambda index: callback(None if index is None else (index, self.term)))

    def connected(self, peer: str) -> None:
        node = self._node(peer)
        self._SyncObj__onNodeConnected(node)
        if self.is_leader and (match := self._SyncObj__raftMatchIndex.get(node, 0)):
            # What was on its way may be lost: go on from what is known to be there.
            self._SyncObj__raftNextIndex[node] = match + 1
        self._tell_hashes_to(node)
        self._hooks.wake()

    def disconnected(self, peer: str) -> None:
        node = self._node(peer)
        self._SyncObj__onNodeDisconnected(node)
        self._outgoing.pop(node, None)
        self._leader_hung_up(node)

    def receive(self, peer: str, message: Message) -> None:
        """Handle one message of an authenticated peer. Answers that promise durability leave with the next tick.

        Most messages only say that somebody is there: a heartbeat without entries is answered at once, and an answer
        from which nothing follows ends here. No tick is spent on either.
        """
        node = self._node(peer)
        self._heard_at_s[peer] = monotonic_s()
        match message:
            case AppendEntries():
                followed = self.term, self._SyncObj__raftLeader
                self._on_append(node, message)
                if followed == (self.term, self._SyncObj__raftLeader) and self._is_up_to_date():
                    self._flush()
                    return
            case AppendReply():
                if self._on_append_reply(node, message) and self._asks_nothing_of(node):
                    return
            case VoteRequest():
                self._on_vote_request(node, message)
            case VoteReply():
                self._on_vote_reply(node, message)
            case SnapshotOffer():
                self._on_offer(node, message)
            case SnapshotFetch():
                self._on_fetch(node, message)
            case SnapshotData():
                self._on_data(node, message)
            case TimeoutNow():
                self._on_timeout_now(node, message)
            case StateHash():
                self._on_state_hash(node, message)
            case _:
                raise SafetyViolationError(f"{type(message).__name__} is not the core's")
        self._hooks.wake()

    def _is_up_to_date(self) -> bool:
        """Whether a follower has nothing to sync and nothing to apply."""
        return not self._journal.dirty and self.commit_index <= self.applied_index

    def _asks_nothing_of(self, node: EngineNode) -> bool:
        """Whether a leader has, by what `node` holds, nothing to commit, to send or to answer."""
        return (
            self._SyncObj__raftMatchIndex[node] <= self.commit_index
            and self._SyncObj__raftNextIndex[node] > self._journal.last_index
            and not self._reads.waiting
            and not self._outgoing
            and not self.handing_over
        )

    def tick(self) -> None:
        self._flush()
        self._ask_before_election()
        self._onTick(0.0)
        self._SyncObj__raftElectionDeadline = math.inf
        if self.is_leader:
            if self._reads.arrived and self._leads_committed():
                self._SyncObj__sendAppendEntries()
            else:
                self._replicate(heartbeat=False)
            self._reads.resolve(self.applied_index, self._entry_index, self._other_voters)
            self._drive_handover()
        self._flush()
        self._tell_hashes()
        counts_alone = self.is_leader and self.is_alone
        if self.applied_index < self.commit_index or (counts_alone and self.commit_index < self._journal.last_index):
            self._hooks.wake()

    def capture(self) -> Capture:
        """The state as it is now, and where it stands; to be saved in any thread, and then told to `snapshot_saved`."""
        index = self.applied_index
        term = self._journal.term_at(index)
        assert term is not None
        return Capture(index, term, self._entry_index, *self.configuration_at(index), self._state.view())

    def request_snapshot(self) -> None:
        if not self._snapshotting and not self._agreement.suspect and self.applied_index > self._snapshot_index:
            self._snapshotting = True
            self._hooks.snapshot_due()

    def snapshot_saved(self, manifest: Manifest) -> None:
        """A snapshot is durable: drop the log below it, but for a tail that spares slow followers a transfer."""
        self._snapshotting = False
        if not self._snapshot_index < manifest.index <= self.applied_index:
            # Another one was installed meanwhile, or is about to be.
            return
        self._snapshot_index = manifest.index
        self._snapshot_at_s = monotonic_s()
        self._bytes_since_snapshot = 0
        self._configurations.forget_below(manifest.index)
        journal, limits = self._journal, self._settings
        keep_from = max(journal.base_index, manifest.index - limits.retain_entries)
        tail = journal[keep_from + 1 - journal.base_index : manifest.index + 1 - journal.base_index]
        size = 0
        for command, index, _ in reversed(tail):
            size += len(command)
            if size > limits.retain_bytes:
                keep_from = index
                break
        journal.compact_to(keep_from)

    def _SyncObj__onBecomeLeader(self) -> None:
        # What was known of followers in an earlier leadership is not known any more.
        self._SyncObj__raftNextIndex.clear()
        self._SyncObj__raftMatchIndex.clear()
        self._answered.clear()
        self._leads_since_s = monotonic_s()
        super()._SyncObj__onBecomeLeader()
        # The engine may count this node's own no-op in this very tick.
        self._flush()

    def _checkCommandsToApply(self) -> None:
        if self.is_leader and not self.handing_over:
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
            elif kind == engine.MEMBERSHIP:
                self._configuration_committed(index)
            elif kind != engine.NO_OP_KIND:
                raise SafetyViolationError(f"entry {index} has kind {kind}, which this program does not know")
            self._SyncObj__raftLastApplied = index
            self._note_hash(round_ended=False)
            for proposed_term, callback in waiting.pop(index, ()):
                if proposed_term == term:
                    callback((index, term), engine.SUCCESS)
                else:
                    callback(None, engine.DISCARDED)
        self._note_hash(round_ended=True)
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
        if grown and (
            grown >= limits.snapshot_entries
            or self._bytes_since_snapshot >= limits.snapshot_bytes
            or monotonic_s() - self._snapshot_at_s >= limits.snapshot_age_s
        ):
            self.request_snapshot()

    def _SyncObj__onMessageReceived(self, node: EngineNode, message: object) -> None:
        raise SafetyViolationError("a message reached the engine around the core")

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        raise SafetyViolationError("the engine applied a command around the core")

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise SafetyViolationError("the engine loaded a dump around the core")

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> None:
        raise SafetyViolationError("the engine parsed a membership change around the core")
