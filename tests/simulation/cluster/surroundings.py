"""What the real parts find in place of the world: gRPC's runtime, the clock and the chance of the Raft engine, and the
files that an agent reads or writes every second.

Only names are replaced by which modules know something outside of the process, for as long as a world runs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from simulation.cluster.grpc_aio import Credentials, Exchange
from simulation.cluster.host import SimulatedHost
from simulation.cluster.loop import CURRENT, Machine
from simulation.raft.clock import Clock, virtual_time

from controlplane.agent import dialling, inventory, renewal, session, statedir
from controlplane.agent.held import NOTHING, Held
from controlplane.api.gateway import door, link


class EngineClock(Clock):
    """Of the machine whose process runs at the moment; `world` is nobody's."""

    def __init__(self, world: Machine) -> None:
        super().__init__()
        self._world = world

    def _machine(self) -> Machine:
        process = CURRENT.get()
        return process.machine if process is not None else self._world

    def monotonic_s(self) -> float:
        process = CURRENT.get()
        if process is None:
            return self._world.monotonic_s()
        machine = process.machine
        return (process.loop.now_s + process.spent_s - machine.booted_s) * machine.rate

    def random(self) -> float:
        return self._machine().chance.random()

    def getrandbits(self, bits: int) -> int:
        return self._machine().chance.getrandbits(bits)

    def token_hex(self, count: int) -> str:
        return self._machine().chance.randbytes(count).hex()

    def uniform(self, low: float, high: float) -> float:
        return self._machine().chance.uniform(low, high)


class HeldInMemory:
    """Stands for `HeldFile`: what an agent wrote down outlives it, and no boot of its host."""

    _kept: ClassVar[dict[tuple[str, str], Held]] = {}

    def __init__(self, directory: Path, boot_id: str) -> None:
        self._key = str(directory), boot_id

    def read(self, now_s: float) -> Held:
        return self._kept.get(self._key, NOTHING)

    def write(self, held: Held) -> None:
        self._kept[self._key] = held

    def remove_others(self) -> None:
        """Nobody reads them."""


@contextmanager
def simulated(exchange: Exchange, world: Machine, hosts: Iterable[SimulatedHost]) -> Generator[None]:
    def read(path: str) -> bytes:
        return next(host.kernel_says[path] for host in hosts if path in host.kernel_says)

    names: list[tuple[object, str, object]] = [
        *((module, "aio", exchange) for module in (session, renewal, link, door)),
        *((module, "grpc", Credentials) for module in (dialling, link, door)),
        (inventory, "read", read),
        (statedir, "HeldFile", HeldInMemory),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in names]
    for module, name, value in names:
        setattr(module, name, value)
    try:
        with virtual_time(EngineClock(world)):
            yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
