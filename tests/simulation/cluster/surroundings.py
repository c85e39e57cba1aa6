"""What the real parts find in place of the world: gRPC's runtime, and the clock and the chance of the Raft engine.

Only names are replaced by which modules know something outside of the process, for as long as a world runs.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from simulation.cluster.grpc_aio import Credentials, Exchange
from simulation.cluster.loop import CURRENT, Machine
from simulation.raft.clock import Clock, virtual_time

from controlplane.agent import dialling, renewal, session
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
        return process.machine.local_s(process.loop.now_s + process.spent_s)

    def random(self) -> float:
        return self._machine().chance.random()

    def getrandbits(self, bits: int) -> int:
        return self._machine().chance.getrandbits(bits)

    def token_hex(self, count: int) -> str:
        return self._machine().chance.randbytes(count).hex()

    def uniform(self, low: float, high: float) -> float:
        return self._machine().chance.uniform(low, high)


@contextmanager
def simulated(exchange: Exchange, world: Machine) -> Generator[None]:
    names: list[tuple[object, str, object]] = [
        *((module, "aio", exchange) for module in (session, renewal, link, door)),
        *((module, "grpc", Credentials) for module in (dialling, link, door)),
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
