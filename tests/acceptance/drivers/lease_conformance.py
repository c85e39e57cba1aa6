"""What a driver that fences must do with the host's lease, as one suite on top of the others' (`conformance`).

The driver's module subclasses `LeaseConformance` and sets `lease_s`. Leases are short, and while a test is about
something else they are renewed as the agent does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from acceptance.drivers.conformance import (
    Capability,
    DriverConformance,
    Timeouts,
    definition,
    eventually,
    existing,
    is_running,
    new_uid,
    of,
)

from controlplane.model.resources import ObservedPower
from controlplane.model.spec import MicroVMSpec, OnDetach, PowerState, Recovery
from controlplane.ports import LEASE_ENDED, DriverError, HostDriver, Instance, Lease

LONG_S = 60.0


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def needing_a_lease(spec: MicroVMSpec, on_detach: OnDetach = OnDetach.PAUSE) -> MicroVMSpec:
    return replace(spec, recovery=Recovery(on_detach=on_detach))


async def lease(driver: HostDriver, ttl_s: float, *, grace_s: float = LONG_S) -> float:
    """Renew; gives the end."""
    ends_s = boottime_s() + ttl_s
    await driver.renew(Lease(ends_s, grace_s, ttl_s))
    return ends_s


@contextlib.asynccontextmanager
async def leased(driver: HostDriver, ttl_s: float, *, grace_s: float = LONG_S) -> AsyncIterator[None]:
    """A live lease that is left to itself afterwards."""

    async def renew() -> None:
        while True:
            await lease(driver, ttl_s, grace_s=grace_s)
            await asyncio.sleep(ttl_s / 4)

    await lease(driver, ttl_s, grace_s=grace_s)
    renewing = asyncio.create_task(renew())
    try:
        yield
        assert not renewing.done(), renewing
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing


def ended(power: ObservedPower) -> Callable[[Instance | None], bool]:
    return lambda seen: seen is not None and (seen.power, seen.cause) == (power, LEASE_ENDED)


async def refused(call: Awaitable[None]) -> None:
    with pytest.raises(DriverError) as refusal:
        await call
    assert refusal.value.code == "NoLease"
    assert refusal.value.retryable


class LeaseConformance(DriverConformance):
    @pytest.fixture
    def lease_s(self) -> float:
        """Long enough that a call or two fit into it."""
        raise NotImplementedError("override lease_s")

    async def test_nothing_that_needs_a_lease_runs_before_the_first_one(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts, lease_s: float
    ) -> None:
        assert driver.info.fences
        spec, free = needing_a_lease(sample_spec), definition(sample_spec, uid=new_uid())
        vm = definition(spec, uid=new_uid())
        await refused(driver.create(vm))
        await refused(driver.create(definition(replace(spec, power_state=PowerState.PAUSED), uid=vm.uid)))
        assert not is_running(await of(driver, vm.uid))
        stopped = definition(replace(spec, power_state=PowerState.STOPPED), uid=vm.uid)
        await driver.create(stopped)
        assert (await existing(driver, vm.uid)).power is ObservedPower.STOPPED
        await refused(driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0.0))
        await refused(driver.set_power(vm.uid, PowerState.PAUSED, grace_s=0.0))
        assert (await existing(driver, vm.uid)).power is ObservedPower.STOPPED
        await driver.create(free)
        await eventually(driver, free.uid, is_running, within_s=timeouts.ready_s, what="running without a lease")
        await refused(driver.update(replace(free, generation=2, spec=spec)))
        assert is_running(await of(driver, free.uid)), "what ran without a lease was stopped by a refused update"
        async with leased(driver, lease_s):
            await driver.create(replace(vm, generation=2))
            assert is_running(await of(driver, vm.uid))

    async def test_what_is_held_is_told_with_its_time_to_live(self, driver: HostDriver) -> None:
        assert await driver.held() is None
        ends_s = await lease(driver, LONG_S)
        assert await driver.held() == Lease(ends_s, LONG_S, LONG_S)
        await lease(driver, LONG_S / 2)
        assert await driver.held() == Lease(ends_s, LONG_S, LONG_S), "a shorter one does not end it"

    async def test_its_end_halts_a_later_one_resumes_and_the_end_of_the_grace_kills(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts, lease_s: float
    ) -> None:
        vm = definition(needing_a_lease(sample_spec), uid=new_uid())
        async with leased(driver, lease_s):
            await driver.create(vm)
            first = await existing(driver, vm.uid)
            assert (first.power, first.cause) == (ObservedPower.RUNNING, None)
        await eventually(driver, vm.uid, ended(ObservedPower.PAUSED), within_s=timeouts.change_s, what="halted")
        await refused(driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0.0))
        assert ended(ObservedPower.PAUSED)(await of(driver, vm.uid))
        async with leased(driver, lease_s, grace_s=lease_s / 2):
            again = await existing(driver, vm.uid)
            assert (again.power, again.cause, again.details) == (ObservedPower.RUNNING, None, first.details)
        await eventually(driver, vm.uid, ended(ObservedPower.STOPPED), within_s=timeouts.change_s, what="killed")
        async with leased(driver, lease_s):
            dead = await existing(driver, vm.uid)
            assert ended(ObservedPower.STOPPED)(dead), "a lease alone must not start what was killed"
            assert not dead.ready
            await driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0.0)
            running = await existing(driver, vm.uid)
            assert (running.power, running.cause) == (ObservedPower.RUNNING, None)

    @pytest.mark.parametrize("on_detach", [OnDetach.STOP, OnDetach.SHUTDOWN])
    async def test_what_is_to_be_stopped_is_killed_and_what_is_kept_runs_on(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts, lease_s: float, on_detach: OnDetach
    ) -> None:
        kept = definition(sample_spec, uid=new_uid())
        vm = definition(needing_a_lease(sample_spec, on_detach), uid=new_uid())
        await driver.create(kept)
        async with leased(driver, lease_s):
            await driver.create(vm)
            before = await eventually(driver, kept.uid, is_running, within_s=timeouts.ready_s, what="running")
            assert before is not None
        await eventually(driver, vm.uid, ended(ObservedPower.STOPPED), within_s=timeouts.change_s, what="killed")
        after = await existing(driver, kept.uid)
        assert replace(after, ready=before.ready) == before

    async def test_it_ends_although_nobody_is_there_and_who_comes_back_may_renew(
        self,
        driver: HostDriver,
        drivers: Callable[[], Awaitable[HostDriver]],
        sample_spec: MicroVMSpec,
        timeouts: Timeouts,
        lease_s: float,
    ) -> None:
        vm = definition(needing_a_lease(sample_spec), uid=new_uid())
        async with leased(driver, lease_s):
            await driver.create(vm)
            first = await existing(driver, vm.uid)
            await lease(driver, LONG_S)
        await driver.stop()
        driver = await drivers()
        assert replace(await existing(driver, vm.uid), ready=first.ready) == first, "it ran on without its driver"
        again = definition(needing_a_lease(sample_spec), uid=new_uid())
        await driver.create(again)  # the lease that was taken before still stands
        assert is_running(await of(driver, again.uid))

    async def test_a_guest_whose_driver_is_gone_is_killed_at_the_end(
        self,
        driver: HostDriver,
        drivers: Callable[[], Awaitable[HostDriver]],
        sample_spec: MicroVMSpec,
        timeouts: Timeouts,
        lease_s: float,
    ) -> None:
        vm = definition(needing_a_lease(sample_spec), uid=new_uid())
        async with leased(driver, lease_s, grace_s=0.0):
            await driver.create(vm)
        ends_s = await lease(driver, lease_s, grace_s=0.0)
        await driver.stop()
        await asyncio.sleep(max(ends_s - boottime_s(), 0.0))
        driver = await drivers()
        await eventually(driver, vm.uid, ended(ObservedPower.STOPPED), within_s=timeouts.change_s, what="killed")
        async with leased(driver, lease_s):
            await driver.create(vm)
            assert is_running(await of(driver, vm.uid))

    async def test_on_detach_is_changed_while_it_runs(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts, lease_s: float
    ) -> None:
        free = definition(sample_spec, uid=new_uid())
        bound = replace(free, generation=2, spec=needing_a_lease(sample_spec))
        await driver.create(free)
        first = await eventually(driver, free.uid, is_running, within_s=timeouts.ready_s, what="running")
        assert first is not None
        async with leased(driver, lease_s):
            await driver.update(bound)
            changed = await existing(driver, free.uid)
            assert (changed.power, changed.generation) == (ObservedPower.RUNNING, 2)
            assert changed.details == first.details, "it was started anew"
        await eventually(driver, free.uid, ended(ObservedPower.PAUSED), within_s=timeouts.change_s, what="halted")
        await driver.update(replace(free, generation=3))
        loose = await eventually(driver, free.uid, is_running, within_s=timeouts.change_s, what="running again")
        assert loose is not None
        assert (loose.generation, loose.cause, loose.details) == (3, None, first.details)

    async def test_stopping_and_destroying_need_no_lease(
        self,
        driver: HostDriver,
        sample_spec: MicroVMSpec,
        timeouts: Timeouts,
        lease_s: float,
        capabilities: frozenset[Capability],
    ) -> None:
        vm = definition(needing_a_lease(sample_spec), uid=new_uid())
        async with leased(driver, lease_s):
            await driver.create(vm)
        await eventually(driver, vm.uid, ended(ObservedPower.PAUSED), within_s=timeouts.change_s, what="halted")
        assert Capability.POWER_STATES in capabilities, "who cannot stop cannot fence"
        await asyncio.wait_for(driver.set_power(vm.uid, PowerState.STOPPED, grace_s=timeouts.grace_s), timeouts.call_s)
        assert (await existing(driver, vm.uid)).power is ObservedPower.STOPPED
        await asyncio.wait_for(driver.destroy(vm.uid, grace_s=timeouts.grace_s), timeouts.call_s)
        assert await of(driver, vm.uid) is None
