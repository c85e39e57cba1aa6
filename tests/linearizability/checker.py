"""Is a history linearizable? Wing and Gong's search in Lowe's just-in-time form, one register at a time.

The events of a register are taken in the order of time. A configuration is what can be true at one moment: the
register's value, and which of the open operations have taken effect (a bitmask). Nothing is placed before it must be:
when an operation returns, every configuration in which it has not taken effect yet is extended by open operations
until it has. What cannot be extended dies; when the last one dies no order explains the history up to that return.

Three rules keep the set small without losing an answer. Equal configurations are one. An open operation that changes
nothing and fits the present value is placed at once: later it could only fit worse. And of two configurations that
differ only in which operations of unknown outcome they have used, the one that used fewer can do all that the other
can, since those need never take effect.

A search that exceeds its budget is undecided, which is not a pass.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from linearizability.history import ABSENT, Kind, Operation, Outcome, by_key
from linearizability.model import after, allowed

MAX_STEPS = 5_000_000


class Verdict(StrEnum):
    OK = "ok"
    VIOLATION = "violation"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Violation:
    """No order of the operations up to the return of `culprit` is possible."""

    key: str
    culprit: Operation
    operations: Sequence[Operation]
    """All of the register's operations that were called by then."""
    possible: frozenset[int]
    """The values that the register could have had just before `culprit` returned."""


@dataclass(frozen=True)
class Result:
    verdict: Verdict
    violations: Sequence[Violation] = ()
    undecided: Sequence[str] = ()
    """Registers whose search exceeded its budget."""
    steps: int = 0


@dataclass
class Budget:
    """What a search may cost. Memory is bounded too: each configuration kept costs a step."""

    steps: int = MAX_STEPS
    deadline_s: float = field(default_factory=lambda: time.monotonic() + 60.0)
    used: int = 0

    def spend(self) -> None:
        self.used += 1
        if self.used > self.steps or (self.used % 4096 == 0 and time.monotonic() > self.deadline_s):
            raise BudgetExceededError


class BudgetExceededError(Exception):
    """The search would cost more than it may."""


def check(operations: Iterable[Operation], *, steps: int = MAX_STEPS, timeout_s: float = 60.0) -> Result:
    """`steps` is for each register, `timeout_s` for all of them."""
    violations: list[Violation] = []
    undecided: list[str] = []
    deadline_s = time.monotonic() + timeout_s
    used = 0
    for key, part in sorted(by_key(operations).items()):
        budget = Budget(steps, deadline_s)
        try:
            violation = check_register(key, part, budget)
        except BudgetExceededError:
            undecided.append(key)
        else:
            if violation is not None:
                violations.append(violation)
        used += budget.used
    verdict = Verdict.VIOLATION if violations else Verdict.UNDECIDED if undecided else Verdict.OK
    return Result(verdict, violations, undecided, used)


def check_register(key: str, operations: Sequence[Operation], budget: Budget) -> Violation | None:
    """The first contradiction in one register's history. Raises BudgetExceededError."""
    relevant = [operation for operation in operations if _counts(operation)]
    search = _Search(budget)
    for operation, is_call in _events(relevant):
        if is_call:
            search.call(operation)
            continue
        possible = search.settle(operation)
        if possible is not None:
            assert operation.return_ns is not None
            known = [other for other in relevant if other.call_ns <= operation.return_ns]
            return Violation(key, operation, known, possible)
    return None


def _counts(operation: Operation) -> bool:
    """What certainly was not done, and reads that answered nothing, say nothing about the register."""
    if operation.kind is Kind.READ:
        return operation.outcome is Outcome.OK
    return operation.outcome is not Outcome.FAILED


def _events(operations: Sequence[Operation]) -> list[tuple[Operation, bool]]:
    """(operation, is it the call) by time. At equal times calls come first: such operations may be concurrent."""
    events: list[tuple[int, int, Operation]] = [(operation.call_ns, 0, operation) for operation in operations]
    for operation in operations:
        if operation.outcome is not Outcome.UNKNOWN:
            assert operation.return_ns is not None, operation
            events.append((operation.return_ns, 1, operation))
    events.sort(key=lambda event: (event[0], event[1], event[2].id))
    return [(operation, order == 0) for _, order, operation in events]


class _Configurations:
    """Values and masks without duplicates and without those that another one makes superfluous."""

    def __init__(self) -> None:
        self._unknown_by_rest: dict[tuple[int, int], list[int]] = {}

    def add(self, value: int, done: int, unknown: int) -> bool:
        """False when a configuration that can do as much is known already."""
        masks = self._unknown_by_rest.setdefault((value, done), [])
        if any(mask & unknown == mask for mask in masks):
            return False
        masks[:] = [mask for mask in masks if mask & unknown != unknown]
        masks.append(unknown)
        return True

    def all(self) -> list[tuple[int, int, int]]:
        return [(value, done, mask) for (value, done), masks in self._unknown_by_rest.items() for mask in masks]


class _Search:
    """The configurations that are possible at one moment of one register's history."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._present = [(ABSENT, 0, 0)]
        """(value, open operations that took effect, operations of unknown outcome that took effect)"""
        self._open: dict[int, Operation] = {}
        self._unknown: dict[int, Operation] = {}
        self._free_bits: list[int] = []
        self._next_bit = 0
        self._bits: dict[int, int] = {}

    def call(self, operation: Operation) -> None:
        if self._free_bits:
            bit = self._free_bits.pop()
        else:
            bit = 1 << self._next_bit
            self._next_bit += 1
        self._bits[operation.id] = bit
        (self._unknown if operation.outcome is Outcome.UNKNOWN else self._open)[bit] = operation

    def settle(self, operation: Operation) -> frozenset[int] | None:
        """`operation` returned. None when that is possible, else the values that the register could have had."""
        bit = self._bits.pop(operation.id)
        settled = _Configurations()
        seen = _Configurations()
        # Those that used least come first, so that what they make superfluous is not looked at.
        todo = deque(sorted((self._placed(*one) for one in self._present), key=lambda one: one[2].bit_count()))
        while todo:
            value, done, unknown = todo.popleft()
            if done & bit:
                settled.add(value, done & ~bit, unknown)
                continue
            if not seen.add(value, done, unknown):
                continue
            self._budget.spend()
            for other, candidate in self._open.items():
                # What changes nothing was placed if it fits; it must wait for another value.
                if not done & other and candidate.has_effect and allowed(value, candidate):
                    todo.append(self._placed(after(value, candidate), done | other, unknown))
            for other, candidate in self._unknown.items():
                if not unknown & other and allowed(value, candidate):
                    todo.append(self._placed(after(value, candidate), done, unknown | other))
        del self._open[bit]
        self._free_bits.append(bit)
        self._present = settled.all()
        if self._present:
            return None
        return frozenset(value for value, _, _ in seen.all())

    def _placed(self, value: int, done: int, unknown: int) -> tuple[int, int, int]:
        """The configuration once every open operation that changes nothing and fits `value` is placed."""
        for bit, operation in self._open.items():
            if not done & bit and not operation.has_effect and allowed(value, operation):
                done |= bit
        return value, done, unknown
