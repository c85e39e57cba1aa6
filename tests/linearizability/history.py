"""What clients did and saw: one record per operation, on one monotonic clock.

A history is the only thing the checkers read. Every written value is unique, so a value names the write that made it.
Times are nanoseconds of the recording process's monotonic clock, which no fault touches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

ABSENT = 0
"""The value of a register that does not exist; written values begin at 1."""


class Kind(StrEnum):
    READ = "read"
    WRITE = "write"
    CREATE = "create"
    """Succeeds only on an absent register."""
    CAS = "cas"
    """Succeeds only while the register holds `expected`."""
    DELETE = "delete"
    """Succeeds only on a present register, and with `expected` only while it holds that."""


class Outcome(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    """The machine answered that the operation's condition does not hold; nothing was changed."""
    FAILED = "failed"
    """Certainly not done, now or ever: a value it would have written must never be seen."""
    UNKNOWN = "unknown"
    """It may take effect at any time after the call, or never."""


class Operation(msgspec.Struct, omit_defaults=True):
    """`value` is what was written, or what a read saw. `revision` is the state's after the write, or at the read."""

    id: int
    client: int
    node: str
    key: str
    kind: Kind
    call_ns: int
    value: int = ABSENT
    expected: int | None = None
    return_ns: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    revision: int | None = None
    value_revision: int | None = None
    """The register's own revision, as a read saw it or a write was told."""
    attempts: int = 1
    """How often it was sent, under one idempotency key."""

    @property
    def has_effect(self) -> bool:
        """Whether it changes the register, or may."""
        return self.kind is not Kind.READ and self.outcome in (Outcome.OK, Outcome.UNKNOWN)

    def describe(self) -> str:
        what = {
            Kind.READ: f"read {show(self.value)}" if self.outcome is Outcome.OK else "read",
            Kind.WRITE: f"write {self.value}",
            Kind.CREATE: f"create {self.value}",
            Kind.CAS: f"replace {self.expected} by {self.value}",
            Kind.DELETE: "delete" + (f" {self.expected}" if self.expected is not None else ""),
        }[self.kind]
        return what if self.outcome is Outcome.OK else f"{what}: {self.outcome.value}"


class History:
    """Operations in the order of their calls."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def begin(
        self, client: int, node: str, key: str, kind: Kind, *, value: int = ABSENT, expected: int | None = None
    ) -> Operation:
        operation = Operation(
            id=len(self.operations),
            client=client,
            node=node,
            key=key,
            kind=kind,
            call_ns=time.monotonic_ns(),
            value=value,
            expected=expected,
        )
        self.operations.append(operation)
        return operation

    @staticmethod
    def end(operation: Operation, outcome: Outcome) -> None:
        operation.return_ns = time.monotonic_ns()
        operation.outcome = outcome


def show(value: int) -> str:
    return "nothing" if value == ABSENT else str(value)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Registers are independent objects, so a history is linearizable exactly when each register's part is."""
    parts: dict[str, list[Operation]] = {}
    for operation in operations:
        parts.setdefault(operation.key, []).append(operation)
    return parts


def save(path: Path, operations: Sequence[Operation]) -> None:
    path.write_bytes(b"\n".join(map(msgspec.json.encode, operations)) + b"\n")


def load(path: Path) -> list[Operation]:
    """Raises msgspec.MsgspecError or OSError."""
    return [msgspec.json.decode(line, type=Operation) for line in path.read_bytes().splitlines() if line]
