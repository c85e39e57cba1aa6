"""Entries between a leader and its followers.

The leader sends ahead without waiting (bounded by the peer's queue) and goes back only to what is known to match. A
follower removes an entry only when one of another term takes its place, and acknowledges only what is durable. A
follower whose next entry is compacted away is offered the newest snapshot.
"""

from __future__ import annotations

import logging

from controlplane.consensus.configurations import MEMBERSHIP_KIND, decode_entry
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.errors import CorruptDataError, SafetyViolationError
from controlplane.consensus.journal import FIRST_INDEX
from controlplane.consensus.messages import AppendEntries, AppendReply
from controlplane.consensus.transfers import Outgoing
from controlplane.consensus.voting import Voter

_log = logging.getLogger(__name__)

_BATCH_BYTES = 1 << 20


class Replicator(Voter):
    """A member that sends and receives the log."""

    def _replicate(self, *, heartbeat: bool) -> None:
        """Send every connected follower what it lacks; with `heartbeat`, send something in any case."""
        commit = self.commit_index
        notice = heartbeat or commit > self._told_commit
        self._told_commit = commit
        next_index, last = self._SyncObj__raftNextIndex, self._journal.last_index
        for node in self._followers:
            if not notice and not self._outgoing and next_index[node] > last:
                continue
            if node not in self._SyncObj__connectedNodes:
                continue
            outgoing = self._outgoing.get(node) or self._begin_transfer(node)
            if outgoing is not None:
                self._offer(node, outgoing, heartbeat=heartbeat)
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
        reader = self._snapshots.reader()
        if reader is None:
            raise CorruptDataError(f"the log begins at {self._journal.base_index}, but the snapshot below it is gone")
        _log.info("%s: offering %s the snapshot at %d", self._settings.node, node.id, reader.manifest.index)
        self._outgoing[node] = Outgoing(reader)
        return self._outgoing[node]

    def _offer(self, node: EngineNode, outgoing: Outgoing, *, heartbeat: bool) -> None:
        now = monotonic_s()
        # A state that is in doubt must not replace another one.
        if outgoing.due(now) and self._outlet.writable(node.id) and not self._agreement.suspect:
            self._send(node, outgoing.offer(self.term, now))
        if heartbeat:
            # It will not match, but it carries the round and keeps the follower from electing.
            self._send_empty(node, self._journal.base_index, self._round)

    def _on_append(self, node: EngineNode, message: AppendEntries) -> None:
        if not self._follow(node, message.term):
            # The sender may lead in our term by the time this arrives, so the hint must be a true one.
            self._send(node, AppendReply(self.term, False, self._journal.last_index + 1, message.round))
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
        changed = False
        for position, (term, _) in enumerate(entries):
            index = prev_index + 1 + position
            present = journal.term_at(index)
            if present == term:
                continue
            if present is not None:
                if index <= self.commit_index:
                    raise SafetyViolationError(f"entry {index} of term {present} is committed, but term {term} is sent")
                journal.truncate_from(index)
                changed = self._configurations.truncate_from(index)
            for offset, (new_term, command) in enumerate(entries[position:]):
                if command[:1] == MEMBERSHIP_KIND:
                    self._configurations.add(index + offset, decode_entry(index + offset, command[1:]))
                    changed = True
                journal.add(command, index + offset, new_term)
            if changed:
                self._configure()
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

    def _on_append_reply(self, node: EngineNode, message: AppendReply) -> bool:
        """Whether it was an answer to this leader."""
        if not self._answers_leader(node, message.term):
            return False
        self._reads.echo(node.id, message.round)
        next_index, match_index = self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex
        if message.success:
            if message.index > self._journal.last_index:
                raise SafetyViolationError(f"{node.id} acknowledged entry {message.index}, which does not exist")
            match_index[node] = max(match_index[node], message.index)
            next_index[node] = max(next_index[node], match_index[node] + 1)
        elif node not in self._outgoing:
            # Index 1 is everybody's first no-op.
            next_index[node] = max(match_index[node] + 1, FIRST_INDEX + 1, min(next_index[node], message.index))
        return True
