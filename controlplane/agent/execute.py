"""Carries out one step: journal, act, look, journal. The caller serialises the steps of one microVM.

The record that says "begun" is on disk before the driver is called, and the one that says "done" is written only after
a listing that began afterwards shows it. Whatever interrupts this in between leaves a record from which planning again
comes to the same step, and every driver call may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from controlplane.agent.journal import Journal
from controlplane.agent.lister import Lister
from controlplane.agent.steps import Acknowledge, Create, Destroy, Forget, Restart, SetPower, ShutDown, Step, Update
from controlplane.model.spec import PowerState
from controlplane.ports import DriverError, HostDriver, Instance

T = TypeVar("T")


class Executor:
    """Raises DriverError and JournalError from `execute`."""

    def __init__(
        self,
        drivers: Mapping[str, HostDriver],
        journal: Journal,
        lister: Lister,
        *,
        call_timeout_s: float,
        grace_s: float,
    ) -> None:
        self._drivers = drivers
        self._journal = journal
        self._lister = lister
        self._call_timeout_s = call_timeout_s
        self._grace_s = grace_s

    async def execute(self, step: Step, cluster_id: str) -> None:
        match step:
            case Create():
                await self._create(step, cluster_id)
            case Update():
                driver = self._drivers[step.driver]
                await self._call(driver.update(step.vm))
                await self._ensure_power(step.uid, step.driver, cluster_id, step.vm.spec.power_state)
                await self._journal.put(step.after)
            case SetPower():
                await self._power(step.uid, step.driver, step.power)
                await self._verify_power(step.uid, step.driver, cluster_id, step.power)
                await self._journal.put(step.after)
            case Restart():
                await self._power(step.uid, step.driver, PowerState.STOPPED)
                await self._verify_power(step.uid, step.driver, cluster_id, PowerState.STOPPED)
                await self._power(step.uid, step.driver, PowerState.RUNNING)
                if step.power is PowerState.PAUSED:
                    await self._power(step.uid, step.driver, PowerState.PAUSED)
                await self._find(step.uid, step.driver, cluster_id)
                await self._journal.put(step.after)
            case ShutDown():
                await self._journal.put(step.before)
                await self._power(step.uid, step.driver, PowerState.STOPPED)
            case Destroy():
                await self._destroy(step, cluster_id)
            case Acknowledge():
                await self._journal.put(step.after)
            case Forget():
                await self._journal.remove(step.uid)

    async def _create(self, step: Create, cluster_id: str) -> None:
        driver = self._drivers[step.driver]
        await self._journal.put(step.before)
        await self._call(driver.create(step.vm))
        if step.then_update:
            await self._call(driver.update(step.vm))
        await self._find(step.uid, step.driver, cluster_id)
        await self._journal.put(step.after)

    async def _destroy(self, step: Destroy, cluster_id: str) -> None:
        await self._journal.put(step.before)
        await self._call(self._drivers[step.driver].destroy(step.uid, grace_s=self._grace_s))
        left = await self._look(step.uid, step.driver, cluster_id)
        if left is not None:
            raise DriverError("NotConverged", f"destroyed, and still listed as {left.native_id} ({left.power.value})")
        if still := await self._call(self._drivers[step.driver].leftovers(step.uid)):
            names = ", ".join(left.name for left in still)
            raise DriverError("LeftBehind", f"destroyed, and still there: {names}")
        await self._journal.remove(step.uid)

    async def _ensure_power(self, uid: str, driver: str, cluster_id: str, power: PowerState) -> None:
        instance = await self._find(uid, driver, cluster_id)
        if instance.power.value != power.value:
            await self._power(uid, driver, power)
            await self._find(uid, driver, cluster_id)

    async def _verify_power(self, uid: str, driver: str, cluster_id: str, power: PowerState) -> None:
        instance = await self._find(uid, driver, cluster_id)
        if instance.power.value != power.value:
            why = f" ({instance.cause})" if instance.cause else ""
            raise DriverError("NotConverged", f"asked to be {power.value}, it is {instance.power.value}{why}")

    async def _find(self, uid: str, driver: str, cluster_id: str) -> Instance:
        instance = await self._look(uid, driver, cluster_id)
        if instance is None:
            raise DriverError("NotConverged", "the driver accepted the order and does not list the microVM")
        return instance

    async def _look(self, uid: str, driver: str, cluster_id: str) -> Instance | None:
        listing = (await self._lister.fresh()).listing
        if driver in listing.blind:
            raise DriverError("DriverUnavailable", f"driver {driver} cannot list: {listing.blind[driver]}")
        for found in listing.found:
            instance = found.instance
            if found.driver == driver and instance.uid == uid and instance.cluster_id == cluster_id:
                return instance
        return None

    async def _power(self, uid: str, driver: str, power: PowerState) -> None:
        await self._call(self._drivers[driver].set_power(uid, power, grace_s=self._grace_s))

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await call
        except TimeoutError:
            raise DriverError("Timeout", f"the driver did not answer within {self._call_timeout_s:g} s") from None
