"""Listings: shared by those who ask together, apart by a minimum, and never older than the question."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controlplane.agent.lister import Lister
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.drivers.simulated.store import Fault, Store

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


async def test_what_is_left_of_others_is_told_by_every_driver_or_not_at_all(tmp_path: Path) -> None:
    drivers = {name: SimulatedDriver(tmp_path / name) for name in ("one", "other")}
    stores = {name: Store(tmp_path / name) for name in drivers}
    for driver in drivers.values():
        await driver.start()
    lister = Lister(drivers, timeout_s=5, gather_s=0)
    try:
        assert (await lister.fresh()).listing.leftovers == []
        stores["other"].set_fault(Fault(call="leftovers", target="*", code="", message="tap sim0", times=1))
        told = (await lister.fresh()).listing.leftovers
        assert told is not None
        assert [(left.driver, left.name) for left in told] == [("simulated", "tap sim0")]
        stores["one"].set_fault(Fault(call="list", target="*", code="Broken", message="no", times=1))
        assert (await lister.fresh()).listing.leftovers is None
    finally:
        await lister.close()
        for name, driver in drivers.items():
            stores[name].close()
            await driver.stop()
