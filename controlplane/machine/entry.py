"""A log entry, applied: the commands of one batch in order, each for itself; and what the audit chain and the recent
events say of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from controlplane.machine.apply import effect_of
from controlplane.machine.audit import recorded
from controlplane.machine.codec import Loader, View, digest_text
from controlplane.machine.effect import Effect
from controlplane.machine.events import Event
from controlplane.machine.legacy import load_dump
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.machine.telling import told
from controlplane.model.commands import decode_entry


def apply_entry(
    state: State, data: bytes, *, index: int, term: int
) -> tuple[State, list[tuple[str, Outcome]], list[Event]]:
    """(state, outcome of each command under its envelope's id, what changed). Raises UnknownEntryError."""
    effects: list[Effect] = []
    for envelope in decode_entry(data):
        effect = effect_of(state, envelope, index=index, term=term)
        state = recorded(effect)
        effects.append(effect)
    outcomes = [(each.envelope.id, each.outcome) for each in effects]
    events = [event for each in effects for event in each.events]
    # No command depends on what is told of those before it, so once for all of them is enough.
    return told(state, effects), outcomes, events


class MachineState:
    """The machine as the log sees it (ports.ReplicatedState)."""

    def __init__(self, cluster_id: str) -> None:
        self.state = State(cluster_id=cluster_id)

    def apply(self, index: int, term: int, entry: bytes) -> None:
        self.state, _, _ = apply_entry(self.state, entry, index=index, term=term)

    def digest(self) -> str:
        return digest_text(self.state)

    def view(self) -> View:
        return View(self.state)

    def begin_load(self, header: bytes) -> MachineLoader:
        """Raises ValueError also for a state of another cluster."""
        loader = Loader(header)
        self._check_cluster(loader.header.cluster_id)
        return MachineLoader(self, loader)

    def load_format_1(self, data: bytes) -> Callable[[], None]:
        state = load_dump(data)
        self._check_cluster(state.cluster_id)
        return partial(self.adopt, state)

    def adopt(self, state: State) -> None:
        self.state = state

    def _check_cluster(self, cluster_id: str) -> None:
        if cluster_id != self.state.cluster_id:
            raise ValueError(f"the snapshot is of cluster {cluster_id}, not {self.state.cluster_id}")


class MachineLoader:
    """A load under way (ports.StateLoader)."""

    def __init__(self, target: MachineState, loader: Loader) -> None:
        self._target = target
        self._loader = loader

    def add(self, chunk: bytes) -> None:
        self._loader.add(chunk)

    def finish(self) -> Callable[[], None]:
        return partial(self._target.adopt, self._loader.finish())
