"""Clients: each does one operation after another on a few registers, through whichever node it is attached to.

A register is a namespace whose label holds the value. Half of the registers are never deleted; on those an operation
of unknown outcome is often repeated under its idempotency key, at another node, until somebody answers: still one
operation, which must take effect once.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from linearizability.history import ABSENT, History, Kind, Operation, Outcome

WEIGHTS = {Kind.READ: 40, Kind.WRITE: 22, Kind.CAS: 26, Kind.CREATE: 5, Kind.DELETE: 7}
_MAX_ATTEMPTS = 6
_REPEATED = 0.6
_ANSWER_S = 15.0
_PAUSE_S = 0.1
"""After a failure: a client that cannot get through does not fill the history with failures."""


class Door(Protocol):
    """A way into the cluster through one node."""

    async def perform(self, operation: Operation, *, expected_revision: int | None, key: str | None) -> Outcome:
        """Do it once, under the idempotency `key` if given, and note in `operation` what was seen."""
        ...


@dataclass(frozen=True)
class Load:
    clients: int = 20
    registers: int = 14
    think_s: float = 0.03


class Workload:
    """Runs until `stop`; the history is complete then."""

    def __init__(self, doors: Mapping[str, Door], history: History, load: Load, seed: str) -> None:
        self.history = history
        self._doors = doors
        self._load = load
        self._seed = seed
        self._values = itertools.count(1)
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.registers = [f"keep-{i}" for i in range(load.registers // 2)]
        self.registers += [f"drop-{i}" for i in range(load.registers - load.registers // 2)]

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._load.clients)]

    async def stop(self) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def read_all(self) -> None:
        """One read of every register at every node. Raises RuntimeError when a node does not answer."""
        for node in list(self._doors):
            give_up = time.monotonic() + _ANSWER_S
            for register in self.registers:
                while await self._read(node, register) is not Outcome.OK:
                    if time.monotonic() > give_up:
                        raise RuntimeError(f"{node} does not answer reads after everything was healed")
                    await asyncio.sleep(_PAUSE_S)

    async def _read(self, node: str, register: str) -> Outcome:
        operation = self.history.begin(self._load.clients, node, register, Kind.READ)
        outcome = await self._doors[node].perform(operation, expected_revision=None, key=None)
        self.history.end(operation, outcome)
        return outcome

    async def _client(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/client-{number}")
        node = list(self._doors)[number % len(self._doors)]
        seen: dict[str, tuple[int, int]] = {}
        while not self._over.is_set():
            await asyncio.sleep(chance.expovariate(1 / self._load.think_s))
            register = chance.choice(self.registers)
            if node not in self._doors:
                node = chance.choice(list(self._doors))
            outcome = await self._one(chance, number, node, register, seen)
            if outcome in (Outcome.FAILED, Outcome.UNKNOWN):
                if chance.random() < 0.5:
                    node = chance.choice(list(self._doors))
                await asyncio.sleep(_PAUSE_S * chance.random())

    async def _one(
        self, chance: random.Random, number: int, node: str, register: str, seen: dict[str, tuple[int, int]]
    ) -> Outcome:
        lasting = register.startswith("keep")
        kinds = [kind for kind in WEIGHTS if not (lasting and kind is Kind.DELETE)]
        kind = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        expected, revision = None, None
        if kind is Kind.CAS or (kind is Kind.DELETE and chance.random() < 0.5):
            if register not in seen:
                kind = Kind.READ
            else:
                expected, revision = seen[register]
        value = next(self._values) if kind in (Kind.WRITE, Kind.CREATE, Kind.CAS) else ABSENT
        operation = self.history.begin(number, node, register, kind, value=value, expected=expected)
        repeats = lasting and kind is not Kind.READ and chance.random() < _REPEATED
        key = f"{self._seed}-{operation.id}" if repeats else None
        outcome = await self._doors[node].perform(operation, expected_revision=revision, key=key)
        while outcome is Outcome.UNKNOWN and repeats and operation.attempts < _MAX_ATTEMPTS:
            operation.attempts += 1
            await asyncio.sleep(_PAUSE_S)
            door = self._doors[chance.choice(list(self._doors))]
            again = await door.perform(operation, expected_revision=revision, key=key)
            # That an attempt certainly did nothing says nothing about those before it.
            outcome = Outcome.UNKNOWN if again is Outcome.FAILED else again
        self.history.end(operation, outcome)
        if outcome is Outcome.OK and kind is not Kind.DELETE:
            if operation.value == ABSENT or operation.value_revision is None:
                seen.pop(register, None)
            else:
                seen[register] = operation.value, operation.value_revision
        return outcome


def counts(operations: Sequence[Operation]) -> dict[str, int]:
    result = {outcome.value: 0 for outcome in Outcome}
    for operation in operations:
        result[operation.outcome.value] += 1
    return result
