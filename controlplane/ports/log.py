"""The replicated log: what may go wrong with it, what it delivers, and what it does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from controlplane.ports.members import LogStatus


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


class UpgradePendingError(LogError):
    """Not every member runs a build that can read the command; nothing was appended."""

    retry_after_s = 10.0


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
