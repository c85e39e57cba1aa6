"""A log entry, applied: the commands of one batch in order, each for itself."""

from __future__ import annotations

from controlplane.machine.apply import apply
from controlplane.machine.codec import digest_text, dump, load
from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import decode_entry


def apply_entry(
    state: State, data: bytes, *, index: int, term: int
) -> tuple[State, list[tuple[str, Outcome]], list[Event]]:
    """(state, outcome of each command under its envelope's id, what changed). Raises UnknownEntryError."""
    outcomes: list[tuple[str, Outcome]] = []
    events: list[Event] = []
    for envelope in decode_entry(data):
        state, outcome, changed = apply(state, envelope, index=index, term=term)
        outcomes.append((envelope.id, outcome))
        events.extend(changed)
    return state, outcomes, events


class MachineState:
    """The machine as the log sees it (ports.ReplicatedState)."""

    def __init__(self, cluster_id: str) -> None:
        self.state = State(cluster_id=cluster_id)

    def apply(self, index: int, term: int, entry: bytes) -> None:
        self.state, _, _ = apply_entry(self.state, entry, index=index, term=term)

    def dump(self) -> bytes:
        return dump(self.state)

    def load(self, index: int, data: bytes) -> None:
        """Raises ValueError also for a state of another cluster."""
        state = load(data)
        if state.cluster_id != self.state.cluster_id:
            raise ValueError(f"snapshot at {index} is of cluster {state.cluster_id}, not {self.state.cluster_id}")
        self.state = state

    def digest(self) -> str:
        return digest_text(self.state)
