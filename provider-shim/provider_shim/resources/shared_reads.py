"""Reads of microVMs that wait at the same time share a request.

A refresh reads every microVM by itself, as many at a time as Terraform's parallelism lets it. While a request of a
namespace is under way, others that arrive wait for it to end, and then one of them asks for all of them by name. So an
answer is never older than the read that it is for: its request was sent after that read began. Nothing is kept.

What a list does not have may be gone, hidden from this token, or unknown to an older node: it is asked for by itself,
since only a 404 of its own means that it is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from provider_shim.client import ApiError, Client, segment

MOST_NAMES: Final = 64
Found = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Read:
    name: str
    answer: Future[Found | None] = field(default_factory=Future[Found | None])
    turn: threading.Event = field(default_factory=threading.Event)
    """Set when it is answered, or has to ask for all that wait."""


class SharedReads:
    """Of one provider process. Thread-safe."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Read]] = {}
        """By namespace, while one of its reads asks."""

    def microvm(self, namespace: str, name: str) -> Found | None:
        """The microVM as it is now; None: ask for it by itself. Raises what the client raises, but ApiError."""
        mine = _Read(name)
        with self._lock:
            waiting = self._waiting.get(namespace)
            if waiting is None:
                self._waiting[namespace] = []
                mine.turn.set()
            else:
                waiting.append(mine)
        mine.turn.wait()
        if not mine.answer.done():
            self._ask(namespace, mine)
        return mine.answer.result()

    def _ask(self, namespace: str, mine: _Read) -> None:
        """For `mine` and what waits by now; then it is the turn of the first that came meanwhile."""
        with self._lock:
            waiting = self._waiting[namespace]
            others = waiting[: MOST_NAMES - 1]
            del waiting[: len(others)]
        together = [mine, *others]
        try:
            found = self._found(namespace, together)
        except BaseException as problem:
            for each in together:
                each.answer.set_exception(problem)
        else:
            for each in together:
                each.answer.set_result(found.get(each.name))
        finally:
            for each in others:
                each.turn.set()
            self._pass_on(namespace)

    def _pass_on(self, namespace: str) -> None:
        with self._lock:
            waiting = self._waiting[namespace]
            if waiting:
                waiting.pop(0).turn.set()
            else:
                del self._waiting[namespace]

    def _found(self, namespace: str, together: list[_Read]) -> dict[str, Found]:
        query = {"name": [each.name for each in together]}
        try:
            return {
                each["name"]: each for each in self._client().pages(f"/namespaces/{segment(namespace)}/microvms", query)
            }
        except ApiError:
            return {}  # each hears for itself why
