"""A child that hangs is ended and started again; one that is only slow, or stopped with everything else, is not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from unit.consensus.support import until

from controlplane import liveness
from controlplane.liveness import HUNG_S, LOOK_S, RUNAWAY_S, STALLED_S, Silence
from controlplane.supervisor import Supervisor

CHILD = """
import asyncio, os, pathlib, sys
from controlplane.liveness import beat

async def main():
    with open(sys.argv[1], "a") as out:
        out.write(f"{os.getpid()}\\n")
    beating = asyncio.create_task(beat())
    await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def looks(silence: Silence, seconds: int, *, start: float = 0.0, used_per_s: float = 0.0) -> str | None:
    """One look a second; the first reason to end the child."""
    for second in range(1, seconds + 1):
        now = start + second * LOOK_S
        reason = silence.look(now, used_s=now * used_per_s)
        if reason is not None:
            return reason
    return None


def test_a_child_that_beats_is_alive() -> None:
    silence = Silence(0.0, 0.0)
    for second in range(1, 1000):
        silence.heard(float(second))
        assert silence.look(float(second), used_s=0.0) is None


def test_silence_without_any_processor_time_is_a_hang() -> None:
    assert looks(Silence(0.0, 0.0), int(HUNG_S)) is None
    reason = looks(Silence(0.0, 0.0), int(HUNG_S) + 1)
    assert reason == "silent and not running for 31 s"


def test_a_silent_child_that_gets_a_little_processor_time_is_given_longer() -> None:
    assert looks(Silence(0.0, 0.0), int(RUNAWAY_S), used_per_s=0.01) is None
    reason = looks(Silence(0.0, 0.0), int(RUNAWAY_S) + 1, used_per_s=0.01)
    assert reason == "silent for 121 s, although it runs"


def test_time_in_which_the_parent_did_not_run_does_not_count() -> None:
    silence = Silence(0.0, 0.0)
    assert looks(silence, 25) is None
    late = 25 + LOOK_S + STALLED_S + 0.1 + 3600
    assert silence.look(late, used_s=0.0) is None
    assert looks(silence, int(HUNG_S) - 1, start=late) is None
    assert looks(silence, 2, start=late + HUNG_S - 1) is not None


def test_processor_time_is_read_of_all_threads() -> None:
    before = liveness.processor_s(os.getpid())
    while liveness.processor_s(os.getpid()) < before + 0.02:
        pass
    assert liveness.processor_s(2**22 + 1) == 0.0


@asynccontextmanager
async def supervised(tmp_path: Path) -> AsyncGenerator[Path]:
    """A supervisor with one child that beats; gives the file with the pids of its lives."""
    pids = tmp_path / "pids"
    pids.touch()
    running = asyncio.create_task(Supervisor({"child": [sys.executable, "-c", CHILD, str(pids)]}).run())
    try:
        yield pids
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await running == 0


async def lives(pids: Path, count: int) -> list[int]:
    """The pids, once there are `count` of them."""

    def written() -> list[int]:
        return [int(pid) for pid in pids.read_text().split()]

    async def found() -> bool:
        return len(written()) >= count

    await until(found, f"{count} lives of the child", timeout_s=30)
    return written()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "LOOK_S", 0.05)
    monkeypatch.setattr(liveness, "HUNG_S", 3.0)
    monkeypatch.setattr(liveness, "DUMP_S", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_stopped_child_is_ended_and_started_again(tmp_path: Path) -> None:
    async with supervised(tmp_path) as pids:
        (first,) = await lives(pids, 1)
        os.kill(first, signal.SIGSTOP)
        _, second = await lives(pids, 2)
        assert second != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
