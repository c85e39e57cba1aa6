"""Time in the simulator: clocks that are wrong still show what a timer was set for, and time never stands still."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.cluster import loop as virtual
from simulation.cluster.loop import Machine, VirtualLoop
from simulation.raft.invariants import Violation

seconds = st.floats(min_value=0, max_value=1e5, allow_nan=False)


@given(booted_s=seconds, rate=st.floats(min_value=0.9, max_value=1.1), local_s=seconds)
def test_a_timer_is_never_early_by_the_clock_that_it_was_set_by(booted_s: float, rate: float, local_s: float) -> None:
    with closing(VirtualLoop()) as loop:
        loop.now_s = booted_s
        machine = Machine(loop, "m", 1, rate=rate)
        assert machine.local_s(machine.true_s(local_s)) >= local_s


def test_something_busy_with_nothing_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "MAX_TURNS", 1000)

    async def busy() -> None:
        while True:  # noqa: ASYNC110 - nothing will come of it
            await asyncio.sleep(0)

    with closing(VirtualLoop()) as loop, pytest.raises(Violation, match="busy: 1000 callbacks"):
        loop.run_until_complete(busy())
