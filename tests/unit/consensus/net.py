"""Several cores on one wire that a test cuts and mends; every message is delivered in order, or lost at a cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unit.consensus.rig import Rig

from controlplane.consensus import engine
from controlplane.consensus.configuration import Configuration
from controlplane.consensus.messages import Message


class Net:
    """`founders` begin as voters; `join` adds nodes that are nobody yet. Nobody elects unless told to."""

    def __init__(self, directory: Path, founders: str = "abc", **limits: object) -> None:
        self._directory = directory
        self._limits = {"heartbeat_s": 1e-6, "election_min_s": 4e-6, "election_max_s": 1000.0, **limits}
        self.wire: list[tuple[str, str, Message]] = []
        self.down: set[str] = set()
        self.rigs: dict[str, Rig] = {}
        for name in founders:
            self._add(name, founders.replace(name, ""))

    def _add(self, name: str, peers: str, **more: object) -> Rig:
        rig = self.rigs[name] = Rig(self._directory / name, node=name, peers=peers, **{**self._limits, **more})
        rig.send = self._sender(name)  # type: ignore[method-assign]
        return rig

    def _sender(self, name: str) -> Callable[[str, Message], bool]:
        def send(peer: str, message: Message) -> bool:
            self.wire.append((name, peer, message))
            return True

        return send

    def join(self, name: str) -> Rig:
        rig = self._add(name, "".join(self.rigs), join=True)
        for other in self.rigs.values():
            if other is not rig:
                other.core.connected(name)
        return rig

    def restart(self, name: str) -> Rig:
        rig = self.rigs[name]
        rig.restart()
        for other in self.rigs:
            if other != name:
                rig.core.connected(other)
                self.rigs[other].core.disconnected(name)
                self.rigs[other].core.connected(name)
        return rig

    def run(self, rounds: int = 12) -> None:
        """Let everyone that is up tick and hear what was said, some times over."""
        for _ in range(rounds):
            for name, rig in self.rigs.items():
                if name not in self.down:
                    rig.core.tick()
            wire, self.wire = self.wire, []
            for source, target, message in wire:
                if target in self.rigs and not {source, target} & self.down:
                    self.rigs[target].core.receive(source, message)

    def lead(self, name: str) -> Rig:
        """Let `name` win an election and commit its no-op."""
        rig = self.rigs[name]
        rig.core.campaign()
        self.run()
        assert rig.core.is_leader
        return rig

    def change(self, name: str, new: Configuration) -> list[object]:
        """Let the leader `name` append `new`; the outcome appears in the list."""
        outcomes: list[object] = []
        self.rigs[name].core.change_configuration(new, lambda *outcome: outcomes.append(outcome))
        return outcomes

    def committed(self, name: str, new: Configuration) -> None:
        """The same, and everybody hears that it is committed."""
        outcomes = self.change(name, new)
        self.run()
        (outcome,) = outcomes
        assert isinstance(outcome, tuple)
        assert outcome[1] == engine.SUCCESS

    def propose(self, name: str, entry: bytes) -> list[object]:
        outcomes: list[object] = []
        self.rigs[name].core.propose(entry, lambda *outcome: outcomes.append(outcome))
        self.run()
        return outcomes

    def configuration(self, name: str) -> Configuration:
        configuration = self.rigs[name].core.configuration
        assert configuration is not None
        return configuration

    def close(self) -> None:
        for rig in self.rigs.values():
            rig.data.close()
