"""`ports.HostDriver` over a simulated host. It lives in the agent's process, and minds the watchdog as the real one
does.

Orders take time and come into effect at one moment in it, so an agent that dies in between leaves what a real one
would: done, or not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from simulation.cluster.host import Guest, SimulatedHost, Watchdog
from simulation.cluster.loop import CURRENT, Process

from controlplane.drivers.common import no_lease, not_found, restarts, stale_epoch
from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import MicroVMSpec, OnDetach, PowerState
from controlplane.ports import DriverError, DriverInfo, Instance, Lease, Remains, VMDefinition

MIND_S = 0.5
PATIENCE_S = 1.5
ASK_S = 1.0


class SimulatedHostDriver:
    def __init__(self, host: SimulatedHost, destroying: Callable[[SimulatedHost, Guest], None]) -> None:
        """`destroying` is told of each guest before it is removed."""
        self._host = host
        self._destroying = destroying
        self._changed = asyncio.Event()
        self._process: Process | None = None
        self._minding: asyncio.Task[None] | None = None
        self._heard_s = 0.0

    @property
    def info(self) -> DriverInfo:
        return DriverInfo(name="simulated", version="1", simulated=True, accelerator=None, fences=True)

    async def start(self) -> None:
        process = self._process = CURRENT.get()
        assert process is not None
        self._host.wakers[:] = [lambda: process.post(self._changed.set)]
        self._heard_s = self._host.machine.boottime_s()
        if self._host.watchdog is None or not self._host.watchdog.process.alive:
            self._host.start_watchdog()
        self._minding = asyncio.create_task(self._mind())

    async def stop(self) -> None:
        if self._minding is not None:
            self._minding.cancel()

    # -- the watchdog --------------------------------------------------------------------------------------------------

    def _tell(self, call: Callable[..., None], *arguments: Any, answered: Callable[[bool], None]) -> None:
        agent, watchdog = self._process, self._host.watchdog
        assert agent is not None
        if watchdog is not None:
            watchdog.process.post(call, *arguments, lambda answer: agent.post(answered, answer))

    async def _ask(self, what: str, *arguments: Any) -> bool:
        """Its answer. Raises DriverError when there is none."""
        watchdog = self._host.watchdog
        if watchdog is None:
            raise DriverError("WatchdogGone", "the watchdog is not there")
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._tell(getattr(watchdog, what), *arguments, answered=lambda each: answer.done() or answer.set_result(each))
        try:
            async with asyncio.timeout(ASK_S):
                return await answer
        except TimeoutError:
            raise DriverError("WatchdogSilent", f"no answer within {ASK_S:g} s") from None

    async def _mind(self) -> None:
        """Pings, and their answers, take no time here: who is not held back answers at once, or once it goes on."""
        host = self._host
        while True:
            pinged, answered = host.watchdog, self._is_answered(host.watchdog)
            await asyncio.sleep(MIND_S)
            if not answered:
                self._is_answered(pinged)
            if host.machine.boottime_s() - self._heard_s > PATIENCE_S:
                host.seen["watchdog replaced"] += 1
                await asyncio.sleep(host.machine.chance.uniform(0.02, 0.2))
                host.start_watchdog()
                self._heard_s = host.machine.boottime_s()

    def _is_answered(self, watchdog: Watchdog | None) -> bool:
        if watchdog is None or watchdog.process.gate:
            return False
        self._heard_s = self._host.machine.boottime_s()
        return True

    # -- what exists ---------------------------------------------------------------------------------------------------

    async def check(self, spec: MicroVMSpec) -> None:
        """It can run everything."""

    async def list(self) -> Sequence[Instance]:
        return [_instance(guest) for guest in self._host.guests.values()]

    async def console(self, uid: str, *, offset: int, limit: int) -> tuple[int, bytes]:
        self._existing(uid)
        return max(offset, 0), b""

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield None

    def _existing(self, uid: str) -> Guest:
        guest = self._host.guests.get(uid)
        if guest is None:
            raise not_found(uid)
        return guest

    # -- changes -------------------------------------------------------------------------------------------------------

    async def _work(self, least_s: float, most_s: float) -> None:
        """It takes time. Raises DriverError while the host's driver is in trouble."""
        await asyncio.sleep(self._host.machine.chance.uniform(least_s, most_s))
        if self._host.machine.chance.random() < self._host.failing:
            self._host.seen["driver failed"] += 1
            again = self._host.machine.chance.random() < 0.8
            raise DriverError("HypervisorFailed", "the hypervisor did not answer", retryable=again)

    async def renew(self, lease: Lease) -> None:
        await self._ask("take", lease)

    async def held(self) -> Lease | None:
        held, now_s = self._host.held, self._host.machine.boottime_s()
        if held is None or now_s >= held.ends:
            return None
        return Lease(ends_s=held.ends, grace_s=held.grace, ttl_s=held.ttl or 0.0)

    async def create(self, vm: VMDefinition) -> None:
        await self._put_in_effect(vm, may_create=True)

    async def update(self, vm: VMDefinition) -> None:
        await self._put_in_effect(vm, may_create=False)

    async def _put_in_effect(self, vm: VMDefinition, *, may_create: bool) -> None:
        await self._work(0.02, 0.4)
        host, guest = self._host, self._host.guests.get(vm.uid)
        if guest is None and not may_create:
            raise not_found(vm.uid)
        before = guest.vm if guest is not None else None
        if before is not None and before.epoch > vm.epoch:
            raise stale_epoch(vm.uid, held=before.epoch, asked=vm.epoch)
        if guest is None:
            guest = host.guests[vm.uid] = Guest(vm.uid, vm)
        same = before is not None and before.epoch == vm.epoch
        actual = guest.vcpu, guest.memory_in_mb
        differs = actual != (vm.spec.vcpu, vm.spec.memory_in_mb)
        restart = before is None or not same or differs or restarts(before.spec, vm.spec)
        if restart and guest.power is not ObservedPower.STOPPED:
            host.change(guest, ObservedPower.STOPPED, "stopped on request")
        guest.vm = vm
        guest.vcpu, guest.memory_in_mb = vm.spec.vcpu, vm.spec.memory_in_mb
        if guest.action is not OnDetach.KEEP:
            # Guarded before anybody is told that it is.
            await self._ask("guard")
        if not restart:
            guest.generation = vm.generation
        await self._work(0.0, 0.2)
        await self._bring(guest, vm.spec.power_state)

    async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
        guest = self._existing(uid)
        await self._work(0.01, 0.3)
        await self._bring(guest, power)

    async def _bring(self, guest: Guest, power: PowerState) -> None:
        host = self._host
        if power is PowerState.STOPPED:
            if guest.power is not ObservedPower.STOPPED:
                host.change(guest, ObservedPower.STOPPED, "stopped on request")
            return
        if guest.power is ObservedPower.STOPPED and guest.vm is not None:
            guest.generation = guest.vm.generation
            guest.vcpu, guest.memory_in_mb = guest.vm.spec.vcpu, guest.vm.spec.memory_in_mb
        if guest.power is not ObservedPower.RUNNING and (
            power is PowerState.RUNNING or guest.power is ObservedPower.STOPPED
        ):
            await self._go(guest)
        if power is PowerState.PAUSED and guest.power is ObservedPower.RUNNING:
            host.change(guest, ObservedPower.PAUSED, "paused")

    async def _go(self, guest: Guest) -> None:
        if guest.action is OnDetach.KEEP:
            self._host.change(guest, ObservedPower.RUNNING, None)
        elif not await self._ask("go", guest):
            raise no_lease(guest.native_id)

    async def destroy(self, uid: str, *, grace_s: float) -> None:
        guest = self._host.guests.get(uid)
        if guest is None:
            return
        await self._work(0.01, 0.5)
        self._destroying(self._host, guest)
        self._host.change(guest, ObservedPower.STOPPED, "destroyed")
        if self._host.guests.pop(guest.native_id, None) is not None:
            self._host.wake()

    async def definition(self, uid: str) -> VMDefinition | None:
        return next((guest.vm for guest in self._host.guests.values() if guest.vm and guest.vm.uid == uid), None)

    async def leftovers(self, uid: str | None = None) -> Sequence[Remains]:
        """A guest here leaves nothing but itself."""
        if uid is None or uid not in self._host.guests:
            return []
        return [Remains("simulated", LeftoverKind.INSTANCE, f"guest/{uid}", uid=uid)]

    async def clear(self, name: str) -> None: ...

    async def keep_until_told(self) -> None: ...


def _instance(guest: Guest) -> Instance:
    vm = guest.vm
    return Instance(
        uid=vm.uid if vm is not None else None,
        native_id=guest.native_id,
        cluster_id=vm.cluster_id if vm is not None else None,
        namespace=vm.namespace if vm is not None else None,
        name=vm.name if vm is not None else guest.native_id,
        epoch=vm.epoch if vm is not None else None,
        generation=guest.generation or None,
        power=guest.power,
        ready=guest.power is ObservedPower.RUNNING,
        vcpu=guest.vcpu,
        memory_in_mb=guest.memory_in_mb,
        cause=guest.cause,
        details={},
        interfaces={},
    )
