"""A simulated microVM goes through boots, pauses and deaths as a real one would, in the time it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest

from controlplane.drivers.simulated import SimulatedDriver
from controlplane.drivers.simulated.driver import POLL_S
from controlplane.drivers.simulated.store import CONSOLE_LINES_MAX, FILE_NAME, Fault, Store
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Kernel, MicroVMSpec, PowerState
from controlplane.ports import DriverError, Instance, VMDefinition

VM = VMDefinition(
    cluster_id="C",
    uid="U",
    namespace="demo",
    name="web",
    epoch=1,
    generation=1,
    labels={},
    spec=MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=Kernel(image="k")),
)


class Host:
    """A driver whose clock the test moves."""

    def __init__(self, state_dir: Path, *, boot_s: float = 1.0) -> None:
        self.now_ms = 1_000_000
        self.driver = SimulatedDriver(state_dir, boot_s=boot_s, now_ms=lambda: self.now_ms)

    async def seen(self) -> Instance:
        (instance,) = await self.driver.list()
        return instance

    async def power(self, power: PowerState) -> None:
        await self.driver.set_power("U", power, grace_s=0.0)

    async def console(self) -> str:
        return (await self.driver.console("U", offset=0, limit=1 << 20))[1].decode()


@pytest.fixture
async def host(tmp_path: Path):
    host = Host(tmp_path)
    await host.driver.start()
    yield host
    await host.driver.stop()


async def test_a_guest_is_ready_when_its_boot_is_over(host: Host) -> None:
    await host.driver.create(VM)
    assert not (await host.seen()).ready
    assert "ready" not in await host.console()
    host.now_ms += 999
    assert not (await host.seen()).ready
    host.now_ms += 1
    assert (await host.seen()).ready
    assert (await host.console()).count("flintlock: ready") == 1


async def test_a_paused_boot_waits(host: Host) -> None:
    await host.driver.create(VM)
    host.now_ms += 600
    await host.power(PowerState.PAUSED)
    host.now_ms += 10_000
    assert not (await host.seen()).ready
    await host.power(PowerState.RUNNING)
    host.now_ms += 399
    assert not (await host.seen()).ready
    host.now_ms += 1
    assert (await host.seen()).ready
    await host.power(PowerState.PAUSED)
    assert (await host.seen()).ready
    assert (await host.console()).count("flintlock: ready") == 1


async def test_a_guest_stopped_while_booting_never_becomes_ready(host: Host) -> None:
    await host.driver.create(VM)
    await host.power(PowerState.STOPPED)
    host.now_ms += 10_000
    seen = await host.seen()
    assert (seen.power, seen.ready, seen.cause) == (ObservedPower.STOPPED, False, "stopped on request")
    assert "flintlock: ready" not in await host.console()


async def test_the_console_says_what_it_is_and_keeps_counting_when_it_forgets(host: Host) -> None:
    await host.driver.create(VM)
    assert (await host.console()).startswith("[simulated] no guest runs here")
    for _ in range(CONSOLE_LINES_MAX):
        await host.power(PowerState.STOPPED)
        await host.power(PowerState.RUNNING)
    end, kept = await host.driver.console("U", offset=0, limit=1 << 30)
    assert end > len(kept)
    assert kept.count(b"\n") <= CONSOLE_LINES_MAX
    assert await host.driver.console("U", offset=end - 9, limit=100) == (end, kept[-9:])


async def test_an_order_that_changes_nothing_wakes_nobody_and_writes_nothing(host: Host, tmp_path: Path) -> None:
    await host.driver.create(VM)
    host.now_ms += 10_000
    await host.driver.list()
    wakes = cast(AsyncGenerator[None], host.driver.changes())
    wake = asyncio.ensure_future(anext(wakes))
    await asyncio.sleep(0)  # let it begin to watch
    log = tmp_path / f"{FILE_NAME}-wal"
    before = log.stat().st_size
    await host.driver.create(VM)
    await host.driver.update(VM)
    await host.power(PowerState.RUNNING)
    await asyncio.wait({wake}, timeout=2 * POLL_S)
    assert not wake.done()
    assert log.stat().st_size == before
    await host.power(PowerState.PAUSED)
    await asyncio.wait_for(wake, 5)
    await wakes.aclose()


async def test_rehearsed_failures(host: Host, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.set_fault(
        Fault("create", "U", "InsufficientMemory", "no room", "/spec/memory_in_mb", retryable=False, times=1)
    )
    store.set_fault(Fault("list", "*", "HostBusy", "later"))
    with pytest.raises(DriverError) as failure:
        await host.driver.create(VM)
    assert (failure.value.code, failure.value.pointer) == ("InsufficientMemory", "/spec/memory_in_mb")
    assert not failure.value.retryable
    await host.driver.create(VM)
    for _ in range(2):
        with pytest.raises(DriverError, match="later"):
            await host.driver.list()
    store.clear_faults()
    assert (await host.seen()).uid == "U"
    store.close()


async def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, certainly not one" * 100)
    with pytest.raises(DriverError, match=FILE_NAME) as failure:
        await SimulatedDriver(tmp_path).start()
    assert failure.value.code == "StateUnavailable"


async def test_a_driver_that_is_not_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="not started"):
        await SimulatedDriver(tmp_path).list()
