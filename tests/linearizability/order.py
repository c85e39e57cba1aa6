"""A second, independent check: the state's revision is one counter, so it must order everything in real time.

It reads only what the system itself said about its revisions, across all registers, and costs a sort. An operation
that began after another one ended must not be told a lower revision, a change must get one of its own, and a value
must have the same revision for everyone who sees it. That is strict serializability of the whole state, which the
search over single registers cannot see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from linearizability.history import ABSENT, Kind, Operation, Outcome


@dataclass(frozen=True)
class Disorder:
    """`later` contradicts `earlier`; `what` says how."""

    what: str
    earlier: Operation
    later: Operation


def check_order(operations: Iterable[Operation]) -> list[Disorder]:
    """Every contradiction, in order of the later operation's call."""
    told = [o for o in operations if o.outcome is Outcome.OK and o.revision is not None and o.attempts == 1]
    return sorted(
        _real_time(told) + _own_revisions(told) + _value_revisions(told), key=lambda found: found.later.call_ns
    )


def _real_time(told: Sequence[Operation]) -> list[Disorder]:
    ended = sorted(told, key=lambda operation: operation.return_ns or 0)
    found: list[Disorder] = []
    highest: Operation | None = None
    position = 0
    for operation in sorted(told, key=lambda operation: operation.call_ns):
        while position < len(ended) and (ended[position].return_ns or 0) < operation.call_ns:
            if highest is None or _revision(ended[position]) > _revision(highest):
                highest = ended[position]
            position += 1
        if highest is None:
            continue
        least = _revision(highest) + (1 if operation.has_effect else 0)
        if _revision(operation) < least:
            found.append(
                Disorder(
                    f"revision {_revision(operation)} was told after revision {_revision(highest)} was",
                    highest,
                    operation,
                )
            )
    return found


def _own_revisions(told: Sequence[Operation]) -> list[Disorder]:
    owners: dict[int, Operation] = {}
    found: list[Disorder] = []
    for operation in told:
        if operation.has_effect:
            owner = owners.setdefault(_revision(operation), operation)
            if owner is not operation:
                found.append(Disorder(f"two changes are revision {operation.revision}", owner, operation))
    return found


def _value_revisions(told: Sequence[Operation]) -> list[Disorder]:
    first: dict[tuple[str, int], Operation] = {}
    found: list[Disorder] = []
    for operation in told:
        if operation.value_revision is None or operation.value == ABSENT or operation.kind is Kind.DELETE:
            continue
        other = first.setdefault((operation.key, operation.value), operation)
        if other.value_revision != operation.value_revision:
            what = f"value {operation.value} has the revisions {other.value_revision} and {operation.value_revision}"
            found.append(Disorder(what, other, operation))
    return found


def _revision(operation: Operation) -> int:
    assert operation.revision is not None
    return operation.revision
