"""Ids are sortable and never repeat, even when the wall clock is set back."""

from __future__ import annotations

import threading

from controlplane.system import SystemClock, Ulids, encode_ulid


def test_encoding_is_crockford_base_32() -> None:
    assert encode_ulid(0) == "0" * 26
    assert encode_ulid((1 << 128) - 1) == "7" + "Z" * 25


def test_ids_sort_by_creation_within_a_millisecond_and_across_a_clock_step() -> None:
    times = iter([5, 5, 5, 3, 6])
    ids = Ulids(lambda: next(times))
    made = [ids.new() for _ in range(5)]
    assert made == sorted(set(made))
    assert all(len(one) == 26 for one in made)


def test_ids_of_several_threads_are_unique() -> None:
    ids = Ulids(lambda: 1)
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([ids.new() for _ in range(500)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


def test_clock_moves_forward() -> None:
    clock = SystemClock()
    assert clock.now_ms() > 1_700_000_000_000
    assert clock.monotonic_s() <= clock.monotonic_s()
    before = clock.boottime_s()
    assert 0 <= clock.boottime_s() - before < 60
    assert clock.boottime_s() >= clock.monotonic_s() - 1, "the time of a suspended machine counts too"
