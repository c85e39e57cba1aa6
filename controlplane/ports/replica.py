"""The replica of the state that every front holds, and the way into the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Whom a node hears, whom it follows, and so how old what it knows may be."""

    node: str
    role: str
    """See `LogStatus.role`; `silent` when the node's own log process does not answer."""
    term: int
    leader: str | None
    """The leader that it hears, or is, and that a majority stands behind; None: for this node there is none."""
    since_s: float
    """For how long there has been this leader, or none."""
    age_s: float
    """What was acknowledged elsewhere in the last so many seconds may be missing here."""
    hears: tuple[str, ...] = ()
    """The other voters that can be talked to."""
    misses: tuple[str, ...] = ()
    """The other voters that cannot."""
    majority: int = 1
    """So many voters have to agree."""
    votes: bool = True
    """This node is a voter itself."""

    @property
    def cut_off(self) -> bool:
        """It hears no majority, so whatever the others decide, it would not know."""
        return len(self.hears) + self.votes < self.majority


class CompactedError(Exception):
    """The revision that a watcher wants to start from is no longer remembered: list again, then watch from there."""


class StateReader(Protocol):
    @property
    def state(self) -> State:
        """The replica's present state; may lag behind the leader."""
        ...

    @property
    def caught_up(self) -> bool:
        """A leader is known and the replica follows it."""
        ...

    @property
    def contact(self) -> Contact:
        """What stands between this replica and the newest state."""
        ...

    @property
    def begun(self) -> bool:
        """The incarnation of the log has begun in `state`: hosts may be told what it says (docs/adr/0103)."""
        ...

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        """A state that reflects every write acknowledged before the call. Raises NoLeaderError."""
        ...

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        """The first state in which `condition` holds, or None at the deadline."""
        ...

    def watch(self, after: int | None) -> AsyncIterator[Event]:
        """Every event with a revision above `after` (None: from now), without end. Raises CompactedError."""
        ...


class Proposer(Protocol):
    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        """Commit a command and answer what the machine said of it, once this replica has applied it.

        Raises NoLeaderError, OutcomeUnknownError, EntryTooLargeError.
        """
        ...

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        """Commit several independent commands in one entry, each for itself; same errors."""
        ...
