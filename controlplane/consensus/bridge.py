"""What stands between the engine and us: where messages leave, what the core asks of its surroundings, and our
journal under the names the engine uses.
"""

# ruff: noqa: N802 - these are the names the engine gave them
from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from controlplane.consensus.engine import EngineNode, EngineTransport
from controlplane.consensus.errors import SafetyViolationError
from controlplane.consensus.journal import Journal, LogEntry
from controlplane.consensus.messages import Message


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

    def snapshot_due(self) -> None:
        """Save a `capture()` in the background and call `snapshot_saved`."""
        ...

    def install_due(self) -> None:
        """Call `prepare_install()` in the background, then `finish_install` with its result."""
        ...


class Bridge(EngineTransport):
    """The engine's own sends, of which only the vote request of its election is left."""

    ready = True

    def __init__(self, ask_vote: Callable[[EngineNode, int, int, int], None]) -> None:
        """`ask_vote(voter, term, last_index, last_term)`."""
        super().__init__(None, EngineNode(""), [])
        self._ask_vote = ask_vote

    def send(self, node: EngineNode, message: dict[str, int | str]) -> bool:
        if message["type"] != "request_vote":
            raise SafetyViolationError(f"the engine sent {message['type']!r} by itself")
        term, index, last_term = (int(message[key]) for key in ("term", "last_log_index", "last_log_term"))
        self._ask_vote(node, term, index, last_term)
        return True


class EngineLog:
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


class NoPoller:
    def poll(self, timeout_s: float) -> None:
        """The event loop polls."""
