"""Builds with one known fault each, to show that the schedules can fail. Every fault is a small change of a part that
the real core uses; nothing of this is in the shipped code.
"""

# ruff: noqa: N803 - overridden methods have the names the engine gave them
from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from simulation.raft.process import Build, Process

from controlplane.consensus.core import RaftCore
from controlplane.consensus.engine import EngineNode
from controlplane.consensus.messages import AppendEntries, AppendReply
from controlplane.consensus.reads import ReadCallback


class ForgetsVote(RaftCore):
    """Term and vote are written, and the sync that must follow is left out."""

    def _SyncObj__setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        with lying(self):
            super()._SyncObj__setCurrentTerm(term, votedForNodeId)


class AcknowledgesEarly(RaftCore):
    """A follower acknowledges what it received before its disk has it."""

    def _on_append(self, node: EngineNode, message: AppendEntries) -> None:
        super()._on_append(node, message)
        held, self._held = self._held, {}
        for to, reply in held.items():
            self._send(to, reply)


class ReadsLocally(RaftCore):
    """A leader answers reads at once, without asking whether it still leads."""

    def read(self, callback: ReadCallback) -> None:
        callback(self.entry_index if self.is_leader else None)


class CountsOldTerms(RaftCore):
    """Whatever a majority has is committed, whichever term it is of (Raft's figure 8)."""

    def _onTick(self, timeToWait: float = 0.0) -> None:
        if self.is_leader and self._nodes:
            matched = sorted([self._journal.last_index, *self._SyncObj__raftMatchIndex.values()])
            self._commit(matched[(len(matched) - 1) // 2])
        super()._onTick(timeToWait)


class TruncatesAlways(RaftCore):
    """A follower removes everything behind the entries it got, also when nothing conflicts."""

    def _store(self, prev_index: int, entries: list[tuple[int, bytes]]) -> None:
        first = max(prev_index, self.commit_index) + 1
        if first <= self._journal.last_index:
            self._journal.truncate_from(first)
        super()._store(prev_index, entries)


class BelievesAnyTerm(RaftCore):
    """An acknowledgement counts, whatever term it was given in."""

    def _on_append_reply(self, node: EngineNode, message: AppendReply) -> None:
        if message.term < self.term and self.is_leader and message.index <= self._journal.last_index:
            message = AppendReply(self.term, message.success, message.index, message.round)
        super()._on_append_reply(node, message)


class VotesForAnyone(RaftCore):
    """A vote does not ask whether the candidate has every entry."""

    def _on_vote_request(self, node: EngineNode, message: Any) -> None:
        journal = self._journal
        generous = type(message)(message.term, journal.last_index, journal.last_term, message.pre)
        super()._on_vote_request(node, generous)


class CountsItselfEarly(RaftCore):
    """A leader counts its own entries before its disk has them."""

    def tick(self) -> None:
        with lying(self):
            super().tick()


class ChangesAtOnce(RaftCore):
    """A membership change does not wait for the one before it, as in PySyncObj."""

    def change_blocked(self) -> str:
        return ""


class ForgetsConfiguration(RaftCore):
    """A snapshot does not say who belongs to the cluster."""

    def configuration_at(self, index: int) -> tuple[bytes, int]:
        return b"", 0


class LearnersCount(RaftCore):
    """A learner's acknowledgement counts as a voter's."""

    def _configure(self) -> None:
        super()._configure()
        self._SyncObj__otherNodes = self._SyncObj__otherNodes | self._SyncObj__readonlyNodes


@contextmanager
def lying(core: Any) -> Generator[None]:
    """The disk claims what is synced meanwhile."""
    disk = core._journal._disk
    disk.honest = False
    try:
        yield
    finally:
        disk.honest = True


def _dishonest(process: Process) -> None:
    process.disk.honest = False


BROKEN: dict[str, Build] = {
    "vote not synced": Build("vote not synced", ForgetsVote),
    "acknowledged before the sync": Build("acknowledged before the sync", AcknowledgesEarly),
    "stale reads": Build("stale reads", ReadsLocally),
    "commit of an older term by counting": Build("commit of an older term by counting", CountsOldTerms),
    "truncation without a conflict": Build("truncation without a conflict", TruncatesAlways),
    "acknowledgements without a term": Build("acknowledgements without a term", BelievesAnyTerm),
    "votes for candidates that lack entries": Build("votes for candidates that lack entries", VotesForAnyone),
    "leader counts what is not synced": Build("leader counts what is not synced", CountsItselfEarly),
    "two membership changes at once": Build("two membership changes at once", ChangesAtOnce),
    "snapshots without the configuration": Build("snapshots without the configuration", ForgetsConfiguration),
    "learners count as voters": Build("learners count as voters", LearnersCount),
    "disk that does not sync": Build("disk that does not sync", prepare=_dishonest),
}
