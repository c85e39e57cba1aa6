"""The edges of the product, as protocols.

Everything that decides is pure and everything that acts stands behind one of these. The composition root (`bootstrap`) is
the only place that knows which implementation is behind which port; siblings (api, agent, reconcile, consensus, drivers)
never import each other, they import this module.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

# -- time and ids ------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time for stamps and time for waiting; no safety decision reads the wall clock."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch: for people to read."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back: for deadlines and ages."""
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
    """No leader is known, so the proposal was certainly NOT appended: safe to repeat."""


class OutcomeUnknownError(LogError):
    """The deadline passed or the leader changed after the proposal was sent: it may or may not commit.

    Repeat only with the same idempotency key.
    """


class EntryTooLargeError(LogError):
    """The entry is over the log's limit; nothing was appended."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where an entry stands in the log. Outcomes are read from a replica that has applied `index`."""

    index: int
    term: int


@dataclass(frozen=True, slots=True)
class Committed:
    """One committed entry, in log order. PySyncObj's own no-op and membership entries are not delivered."""

    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The follower of the log was too far behind: replace the whole state by `data`, which stands at `index`."""

    index: int
    term: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PeerStatus:
    node: str
    address: str
    connected: bool
    match_index: int | None
    """Known on the leader only."""
    last_contact_ms: int | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    node: str
    role: str
    """`leader`, `follower`, `candidate` or `starting`."""
    leader: str | None
    term: int
    last_index: int
    commit_index: int
    applied_index: int
    has_quorum: bool
    """On the leader: a majority answered within the election timeout. On a follower: a live leader is known."""
    fsync: str
    """`always` or `never`."""
    state_hash: str
    state_hash_index: int
    snapshot_index: int
    log_bytes: int
    peers: Sequence[PeerStatus]


class Log(Protocol):
    """A replicated log of opaque entries."""

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        """Commit one entry, through the leader wherever it is.

        Raises NoLeaderError, OutcomeUnknownError or EntryTooLargeError.
        """
        ...

    async def read_index(self, *, timeout_s: float) -> int:
        """An index such that a state that has applied it reflects every write acknowledged before this call began.

        Raises NoLeaderError when no quorum confirmed the leader in time.
        """
        ...

    def follow(self, after: int) -> AsyncIterator[Committed | SnapshotInstalled]:
        """Every committed entry with an index above `after`, in order, without end."""
        ...

    async def status(self) -> LogStatus: ...


class ReplicatedState(Protocol):
    """What the log replicates, as the log sees it: bytes in, bytes out. Total: `apply` never raises."""

    def apply(self, index: int, term: int, entry: bytes) -> None: ...

    def dump(self) -> bytes:
        """The whole state, encoded; equal states give equal bytes."""
        ...

    def load(self, index: int, data: bytes) -> None:
        """Replace the state. Raises ValueError when `data` is not a state."""
        ...

    def digest(self) -> str:
        """Hash of the state, cheap to ask for."""
        ...
