"""When to try a microVM again: exponential backoff with jitter, per microVM and wish.

The first attempts of a new wish run at once. A failure, or the same microVM needing step after step (a guest that dies
as soon as it is started), makes each next attempt wait twice as long; a calm while, or a new wish, starts afresh. What
cannot succeed without a change of the spec or of the host is looked at again only rarely.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from controlplane.agent.assignments import Goal


@dataclass(frozen=True, slots=True)
class Backoff:
    base_s: float = 0.2
    cap_s: float = 30.0
    permanent_s: float = 60.0
    """For failures that the driver calls not retryable: the host may have changed, an image been added."""
    calm_s: float = 60.0
    free_steps: int = 3
    """Successful steps in a row that do not wait: a create, an update and a restart may follow each other."""


@dataclass(frozen=True, slots=True)
class _Entry:
    goal: Goal
    attempts: int
    failures: int
    last_s: float
    not_before_s: float


class Pacing:
    """Times are the clock's monotonic seconds."""

    def __init__(self, backoff: Backoff, rng: random.Random) -> None:
        self._backoff = backoff
        self._rng = rng
        self._entries: dict[str, _Entry] = {}

    def ready_at(self, uid: str, goal: Goal) -> float:
        entry = self._entries.get(uid)
        return entry.not_before_s if entry is not None and entry.goal == goal else 0.0

    def done(self, uid: str, goal: Goal, *, now_s: float) -> None:
        attempts = self._previous(uid, goal, now_s)[0] + 1
        excess = attempts - self._backoff.free_steps
        delay_s = self._delay(excess) if excess > 0 else 0.0
        self._entries[uid] = _Entry(goal, attempts, 0, now_s, now_s + delay_s)

    def failed(self, uid: str, goal: Goal, *, now_s: float, permanent: bool) -> None:
        attempts, failures = self._previous(uid, goal, now_s)
        delay_s = self._delay(failures + 1)
        if permanent:
            delay_s = max(delay_s, self._jitter(self._backoff.permanent_s))
        self._entries[uid] = _Entry(goal, attempts + 1, failures + 1, now_s, now_s + delay_s)

    def keep_only(self, uids: frozenset[str]) -> None:
        for uid in self._entries.keys() - uids:
            del self._entries[uid]

    def _previous(self, uid: str, goal: Goal, now_s: float) -> tuple[int, int]:
        entry = self._entries.get(uid)
        if entry is None or entry.goal != goal or now_s - max(entry.last_s, entry.not_before_s) > self._backoff.calm_s:
            return 0, 0
        return entry.attempts, entry.failures

    def _delay(self, nth: int) -> float:
        return self._jitter(min(self._backoff.cap_s, self._backoff.base_s * 2.0 ** min(nth - 1, 30)))

    def _jitter(self, delay_s: float) -> float:
        return delay_s * self._rng.uniform(0.5, 1.0)
