"""Ids of a simulated machine: ULIDs of its wall clock and its own chance."""

from __future__ import annotations

from simulation.cluster.loop import Machine

from controlplane.system import encode_ulid


class SeededIds:
    """Implements `ports.Ids`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def new(self) -> str:
        return encode_ulid((self._machine.now_ms() << 80) | self._machine.chance.getrandbits(80))
