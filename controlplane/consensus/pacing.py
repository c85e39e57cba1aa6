"""Long work in a thread, in small steps: what the event loop waits for it stays in the milliseconds.

Python runs one thread at a time, and a thread that computes gives way only every few milliseconds, each time the loop
comes back from a system call. So the thread rests after little work, and the loop finds the interpreter free.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WORK_S = 0.001
REST_S = 0.001

Pace = Callable[[], None]
"""Called between two steps of long work. May sleep, and may raise AbandonedError."""


class AbandonedError(Exception):
    """The work is not wanted any more."""


class Pacer:
    """A Pace for one thread."""

    def __init__(self) -> None:
        self._abandoned = threading.Event()
        self._since_s = time.perf_counter()

    def abandon(self) -> None:
        """Make the work end at its next step. From any thread."""
        self._abandoned.set()

    def __call__(self) -> None:
        if time.perf_counter() - self._since_s < WORK_S:
            return
        if self._abandoned.wait(REST_S):
            raise AbandonedError
        self._since_s = time.perf_counter()


def unhurried() -> None:
    """The Pace of work that nobody waits for."""
