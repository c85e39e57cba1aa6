"""After a round: is the cluster whole, do its nodes agree, and what did the clients see?"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from linearizability.checker import Result, check
from linearizability.cluster import Cluster
from linearizability.explain import page, text_of_disorder, text_of_violation
from linearizability.history import Operation, Outcome
from linearizability.nemesis import Event
from linearizability.order import check_order

CONVERGE_S = 40.0
_POLL_S = 0.1


class Judgement(msgspec.Struct):
    """`problems` are violations, `undecided` searches that were given up: both fail a round."""

    problems: list[str]
    undecided: list[str]
    check_s: float
    steps: int
    page: str = ""

    @property
    def passed(self) -> bool:
        return not self.problems and not self.undecided


class Service(msgspec.Struct):
    """What clients noticed between the first fault and the last."""

    longest_unavailable_s: float
    p50_ms: float
    p99_ms: float
    per_s: float
    unavailable_s_by_fault: dict[str, float] = {}
    """The longest time without an answer that a fault of that name has to do with, of those that came alone."""


def judge(operations: Sequence[Operation], *, timeout_s: float = 120.0) -> Judgement:
    """Linearizable for each register, and revisions in real-time order for the whole."""
    begun = time.monotonic()
    result: Result = check(operations, timeout_s=timeout_s)
    disorders = check_order(operations)
    problems = [text_of_violation(violation) for violation in result.violations]
    problems += [text_of_disorder(disorder) for disorder in disorders[:5]]
    shown = page("not linearizable", result.violations) if result.violations else ""
    return Judgement(problems, list(result.undecided), time.monotonic() - begun, result.steps, shown)


async def converge(cluster: Cluster) -> list[str]:
    """Wait until every node has applied the same entries and has the same state. Says what is wrong if they do not."""
    deadline = time.monotonic() + CONVERGE_S
    while True:
        statuses = await cluster.statuses()
        applied = {s.applied_index for s in statuses.values()}
        settled = {s.commit_index for s in statuses.values()} == applied
        if len(statuses) == len(cluster.nodes) and len(applied) == 1 and settled:
            hashes = {name: s.state_hash for name, s in statuses.items()}
            if len(set(hashes.values())) == 1:
                return []
            return [f"different states at index {applied}: {hashes}"]
        if time.monotonic() > deadline:
            seen = {name: f"{s.role} term {s.term} applied {s.applied_index}" for name, s in statuses.items()}
            return [f"the nodes did not agree within {CONVERGE_S:g} s after everything was healed: {seen}"]
        await asyncio.sleep(_POLL_S)


def _overlap(one: Event, other: Event) -> bool:
    return one.begin_ns < other.end_ns and other.begin_ns < one.end_ns


def service(operations: Sequence[Operation], events: Sequence[Event], begin_ns: int, end_ns: int) -> Service:
    done = [o for o in operations if o.outcome in (Outcome.OK, Outcome.REFUSED) and o.return_ns is not None]
    within = sorted(o.return_ns for o in done if o.return_ns is not None and begin_ns <= o.return_ns <= end_ns)
    gaps = list(pairwise([begin_ns, *within, end_ns]))
    longest_ns = max(b - a for a, b in gaps)
    by_fault: dict[str, float] = {}
    for event in events:
        if any(other is not event and _overlap(event, other) for other in events):
            continue
        hit_ns = max((b - a for a, b in gaps if a < event.end_ns and b > event.begin_ns), default=0)
        by_fault[event.fault] = max(by_fault.get(event.fault, 0.0), round(hit_ns / 1e9, 2))
    latencies = sorted((o.return_ns - o.call_ns) / 1e6 for o in done if o.return_ns is not None)

    def percentile(share: float) -> float:
        return round(latencies[min(len(latencies) - 1, math.floor(share * len(latencies)))], 2) if latencies else 0.0

    seconds = (end_ns - begin_ns) / 1e9
    return Service(
        round(longest_ns / 1e9, 2), percentile(0.5), percentile(0.99), round(len(within) / seconds, 1), by_fault
    )
