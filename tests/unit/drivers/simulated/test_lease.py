"""A row under the host's lease: what it is follows from the time alone, whoever looks and whoever is dead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.drivers.simulated import SimulatedDriver
from controlplane.drivers.simulated import lease as leases
from controlplane.drivers.simulated.store import HeldLease
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Kernel, MicroVMSpec, OnDetach, PowerState, Recovery
from controlplane.ports import LEASE_ENDED, DriverError, Instance, Lease, VMDefinition

BOOT_S = 4.0


def vm(on_detach: OnDetach = OnDetach.PAUSE, **spec: object) -> VMDefinition:
    made = MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=Kernel(image="k"), recovery=Recovery(on_detach=on_detach))
    return VMDefinition(
        cluster_id="C",
        uid="U",
        namespace="demo",
        name="web",
        epoch=1,
        generation=1,
        labels={},
        spec=replace(made, **spec),
    )


class Host:
    """Drivers over one file, whose clocks the test moves."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.at_s = 1000.0
        self.driver = self.another()

    def another(self) -> SimulatedDriver:
        return SimulatedDriver(
            self._state_dir,
            boot_s=BOOT_S,
            now_ms=lambda: round(self.at_s * 1000) + 1_700_000_000_000,
            boottime_s=lambda: self.at_s,
        )

    async def restart(self) -> None:
        await self.driver.stop()
        self.driver = self.another()
        await self.driver.start()

    async def renew(self, ttl_s: float = 10.0, grace_s: float = 2.0) -> None:
        await self.driver.renew(Lease(self.at_s + ttl_s, grace_s))

    async def seen(self) -> Instance:
        (instance,) = await self.driver.list()
        return instance

    async def power(self) -> tuple[ObservedPower, str | None]:
        seen = await self.seen()
        return seen.power, seen.cause

    async def console(self) -> str:
        return (await self.driver.console("U", offset=0, limit=1 << 20))[1].decode()


RUNS = (ObservedPower.RUNNING, None)
HALTED = (ObservedPower.PAUSED, LEASE_ENDED)
ENDED = (ObservedPower.STOPPED, LEASE_ENDED)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    await host.driver.start()
    yield host
    await host.driver.stop()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("on_detach", "in_grace", "after"),
    [
        (OnDetach.PAUSE, HALTED, ENDED),
        (OnDetach.STOP, ENDED, ENDED),
        (OnDetach.SHUTDOWN, ENDED, ENDED),
        (OnDetach.KEEP, RUNS, RUNS),
    ],
)
async def test_power_follows_from_the_time(
    host: Host, on_detach: OnDetach, in_grace: object, after: object, restarted: bool
) -> None:
    await host.renew()
    await host.driver.create(vm(on_detach))
    for at_s, expected in ((1009.9, RUNS), (1010.0, in_grace), (1011.9, in_grace), (1012.0, after), (5000.0, after)):
        host.at_s = at_s
        if restarted:
            await host.restart()
        assert await host.power() == expected, at_s


async def test_a_boot_waits_while_it_is_halted_and_says_nothing(host: Host) -> None:
    await host.renew(ttl_s=BOOT_S - 1, grace_s=60)
    await host.driver.create(vm())
    host.at_s += BOOT_S + 5
    assert not (await host.seen()).ready
    assert "flintlock: ready" not in await host.console()
    await host.renew()
    assert await host.power() == RUNS
    assert not (await host.seen()).ready
    assert "flintlock: ready" not in await host.console()
    host.at_s += 1.1
    assert (await host.seen()).ready
    assert "flintlock: ready" in await host.console()


async def test_what_was_ended_stays_so_until_it_is_started(host: Host) -> None:
    await host.renew()
    await host.driver.create(vm())
    host.at_s += 20
    await host.renew()
    assert await host.power() == ENDED
    await host.driver.set_power("U", PowerState.RUNNING, grace_s=0)
    assert await host.power() == RUNS


async def test_a_lease_is_never_shortened(host: Host) -> None:
    await host.renew(ttl_s=60)
    await host.driver.create(vm())
    await host.renew(ttl_s=1)
    host.at_s += 59
    assert await host.power() == RUNS
    host.at_s += 1
    assert await host.power() == HALTED


async def test_an_order_without_a_lease_starts_from_what_is_left(host: Host) -> None:
    await host.renew(grace_s=60)
    await host.driver.create(vm())
    host.at_s += 11
    with pytest.raises(DriverError, match="only while the host has a lease"):
        await host.driver.set_power("U", PowerState.RUNNING, grace_s=0)
    await host.driver.set_power("U", PowerState.STOPPED, grace_s=0)
    assert await host.power() == (ObservedPower.STOPPED, "stopped on request")
    await host.driver.update(replace(vm(OnDetach.KEEP), generation=2))
    assert await host.power() == RUNS


async def test_a_wake_comes_when_the_lease_ends(host: Host) -> None:
    await host.renew()
    await host.driver.create(vm())
    changes = host.driver.changes()
    waiting = anext(changes)
    host.at_s = 1010.0
    await waiting
    assert await host.power() == HALTED


def test_a_lease_of_another_boot_and_none_at_all() -> None:
    now = leases.Moment(wall_ms=5_000, boottime_s=1.0, boot_id="b")
    row = SimulatedDriver(Path("/unused"), now_ms=lambda: 0)._describe(vm(), None)
    running = leases.power.boot(row, now_ms=0, boot_ms=0).row
    of_another = leases.under(running, HeldLease("a", 1e6, 2.0), now).row
    assert (of_another.power, of_another.cause) == ENDED
    none = leases.under(running, None, now).row
    assert (none.power, none.cause) == HALTED, "the first lease may be on its way"
    assert leases.next_change_s(None, now) is None
