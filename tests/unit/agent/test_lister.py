"""Listings: shared by those who ask together, apart by a minimum, and never older than the question."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controlplane.agent.lister import Lister
from controlplane.drivers.simulated import SimulatedDriver

FAR_APART_S = 3600.0


async def test_an_idle_lister_lists_at_once(tmp_path: Path) -> None:
    driver = SimulatedDriver(tmp_path)
    await driver.start()
    lister = Lister({"simulated": driver}, timeout_s=5, gather_s=FAR_APART_S)
    try:
        async with asyncio.timeout(5):
            assert (await lister.fresh()).listing.found == []
    finally:
        await lister.close()
        await driver.stop()


async def test_who_asks_soon_after_shares_one_later_listing(tmp_path: Path) -> None:
    driver = SimulatedDriver(tmp_path)
    await driver.start()
    lister = Lister({"simulated": driver}, timeout_s=5, gather_s=0.05)
    loop = asyncio.get_running_loop()
    try:
        first, began_s = await lister.fresh(), loop.time()
        stamps = await asyncio.gather(*(lister.fresh() for _ in range(20)))
        assert {stamp.began for stamp in stamps} == {first.began + 1}
        assert loop.time() - began_s >= 0.03
    finally:
        await lister.close()
        await driver.stop()
