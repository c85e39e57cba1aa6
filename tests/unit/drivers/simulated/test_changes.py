"""The driver's stream of changes, and its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.drivers.simulated import SimulatedDriver


@pytest.mark.parametrize("turns", range(5))
async def test_who_follows_ends_when_cancelled_whatever_happens_just_then(tmp_path: Path, turns: int) -> None:
    """A cancellation that meets a change must not be taken for it: the agent would never end."""
    driver = SimulatedDriver(tmp_path)
    await driver.start()

    async def follow() -> None:
        async for _ in driver.changes():
            pass

    following = asyncio.create_task(follow())
    while not driver._watchers:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)
    for watcher in driver._watchers:
        watcher.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    following.cancel()
    ended, _ = await asyncio.wait([following], timeout=1.0)
    await driver.stop()
    assert ended
