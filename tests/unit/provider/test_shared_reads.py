"""Reads that wait together share a request; none is answered with what was asked before it began."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from provider_shim.client import ApiError, Client, UnreachableError
from provider_shim.resources.shared_reads import MOST_NAMES, SharedReads

TIMEOUT_S = 10


class Api:
    """A control plane that holds its answers until they are let go."""

    def __init__(self) -> None:
        self.stored: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.problem: Exception | None = None
        self.held = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)

    def pages(self, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        assert path == "/namespaces/demo/microvms"
        self.asked.append(sorted(query["name"]))
        self.arrived.release()
        assert self.held.acquire(timeout=TIMEOUT_S)
        if self.problem is not None:
            raise self.problem
        return iter([{"name": name, "n": self.stored[name]} for name in query["name"] if name in self.stored])


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(200) as made:
        yield made


class Reader(SharedReads):
    """Says when so many reads wait, so that tests need no sleep."""

    def __init__(self, api: Api) -> None:
        super().__init__(lambda: cast("Client", api))

    def await_waiting(self, count: int) -> None:
        give_up = threading.Event()
        for _ in range(TIMEOUT_S * 200):
            if len(self._waiting.get("demo", ())) == count:
                return
            give_up.wait(0.005)
        raise AssertionError(f"{count} reads do not wait")


def test_a_lone_read_waits_for_nobody(api: Api) -> None:
    api.stored = {"a": 1}
    api.held.release()
    assert Reader(api).microvm("demo", "a") == {"name": "a", "n": 1}


def waiting(api: Api, reads: Reader, pool: ThreadPoolExecutor, names: list[str]) -> list[Any]:
    """`names` wait for one that is under way, and are the next to be asked. Gives their futures."""
    first = pool.submit(reads.microvm, "demo", "first")
    assert api.arrived.acquire(timeout=TIMEOUT_S)
    made = [pool.submit(reads.microvm, "demo", name) for name in names]
    reads.await_waiting(len(names))
    api.held.release()
    first.result(TIMEOUT_S)
    return made


def test_what_was_written_before_a_read_began_is_seen_by_it(api: Api, pool: ThreadPoolExecutor) -> None:
    api.stored = {"a": 1, "b": 1}
    reads = Reader(api)
    first = pool.submit(reads.microvm, "demo", "a")
    assert api.arrived.acquire(timeout=TIMEOUT_S)
    # The request with `a` in it was sent. Someone else writes, and only then these reads begin.
    api.stored["a"] = 2
    later = [pool.submit(reads.microvm, "demo", name) for name in ("a", "b")]
    reads.await_waiting(2)
    api.held.release()
    api.held.release()
    assert [each.result(TIMEOUT_S)["n"] for each in later] == [2, 1]
    assert api.asked == [["a"], ["a", "b"]]
    assert first.result(TIMEOUT_S)
    assert not reads._waiting


def test_many_share_and_none_is_too_many(api: Api, pool: ThreadPoolExecutor) -> None:
    names = [f"vm-{number}" for number in range(MOST_NAMES + 10)]
    api.stored = dict.fromkeys(names, 1)
    made = waiting(api, Reader(api), pool, names)
    api.held.release()
    api.held.release()
    assert [each.result(TIMEOUT_S)["name"] for each in made] == names
    assert [len(each) for each in api.asked] == [1, MOST_NAMES, 10]


def test_what_is_not_in_the_list_is_not_said_to_be_gone(api: Api, pool: ThreadPoolExecutor) -> None:
    api.stored = {"a": 1}
    made = waiting(api, Reader(api), pool, ["a", "hidden"])
    api.held.release()
    assert made[0].result(TIMEOUT_S)["n"] == 1
    assert made[1].result(TIMEOUT_S) is None


def test_a_refusal_is_left_to_each_and_a_lost_control_plane_is_told_to_all(api: Api, pool: ThreadPoolExecutor) -> None:
    reads = Reader(api)
    made = waiting(api, reads, pool, ["a", "b"])
    api.problem = ApiError(403, {"code": "forbidden"})
    api.held.release()
    assert [each.result(TIMEOUT_S) for each in made] == [None, None]
    api.problem = None
    made = waiting(api, reads, pool, ["a", "b"])
    api.problem = UnreachableError("nobody answers")
    api.held.release()
    for each in made:
        with pytest.raises(UnreachableError):
            each.result(TIMEOUT_S)
    assert not reads._waiting
