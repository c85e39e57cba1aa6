"""What every `ports.HostDriver` must do, as one suite that each driver runs.

A driver's test module subclasses `DriverConformance` and overrides the fixtures at its top: `driver_factory`,
`sample_spec` and `refused_specs` always; `capabilities`, `timeouts`, `kill` and `leftovers` where the defaults do not
fit. What a driver declares that it cannot do is not skipped: the suite then checks that it refuses, and how.

Guests are expensive, so each test tells one story with as few starts as it can; none waits except for a condition with
a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import cast

import pytest

from controlplane.model.resources import ObservedPower
from controlplane.model.spec import MicroVMSpec, PowerState
from controlplane.ports import DriverError, HostDriver, Instance, VMDefinition

CLUSTER = "01CLUSTER00000000000000000"
_uids = itertools.count(1)

DriverFactory = Callable[[], HostDriver]
"""A new, not yet started driver over the same host: calling it again is what a restarted agent does."""
Kill = Callable[[Instance], Awaitable[None]]
"""Ends a microVM behind the driver's back."""
Leftovers = Callable[[str], Sequence[str]]
"""Whatever the host still holds of a uid, in words; empty after a destroy."""


class Capability(Enum):
    POWER_STATES = auto()
    """It can stop, pause, resume and start; without it only `running` exists."""
    CONSOLE = auto()
    GUEST_READINESS = auto()
    """`ready` is the guest's own word; without it `ready` says no more than `running`."""


ALL_CAPABILITIES = frozenset(Capability)


@dataclass(frozen=True, slots=True)
class Timeouts:
    call_s: float = 5.0
    """The longest that one call may take."""
    ready_s: float = 5.0
    """From the end of `create` until the guest is ready."""
    change_s: float = 5.0
    """From something happening behind the driver's back until `changes` wakes and `list` shows it."""
    grace_s: float = 1.0
    """What guests get to stop by themselves."""
    interrupt_after_s: Sequence[float] = (0.0, 0.0005, 0.002, 0.01, 0.05)
    """Moments at which a create is interrupted, one after another, on the same microVM."""


def new_uid() -> str:
    """A ULID that no other test of this process uses."""
    return f"01TEST{next(_uids):020d}"


def definition(
    spec: MicroVMSpec, *, uid: str, epoch: int = 1, generation: int = 1, **spec_changes: object
) -> VMDefinition:
    return VMDefinition(
        cluster_id=CLUSTER,
        uid=uid,
        namespace="conformance",
        name=f"vm-{uid[-6:]}",
        epoch=epoch,
        generation=generation,
        labels={"suite": "conformance"},
        spec=replace(spec, **spec_changes) if spec_changes else spec,  # pyright: ignore[reportArgumentType]  # fields named by the tests
    )


async def of(driver: HostDriver, uid: str) -> Instance | None:
    """The one instance with this uid. Fails when there are several."""
    found = [instance for instance in await driver.list() if instance.uid == uid]
    assert len(found) <= 1, f"several microVMs claim to be {uid}: {found}"
    return found[0] if found else None


async def existing(driver: HostDriver, uid: str) -> Instance:
    instance = await of(driver, uid)
    assert instance is not None, f"{uid} is not listed"
    return instance


async def eventually(
    driver: HostDriver, uid: str, holds: Callable[[Instance | None], bool], *, within_s: float, what: str
) -> Instance | None:
    """List until `holds`; `changes` is tested apart, so this polls."""
    deadline = time.monotonic() + within_s
    while True:
        instance = await of(driver, uid)
        if holds(instance):
            return instance
        assert time.monotonic() < deadline, f"not {what} within {within_s} s: {instance}"
        await asyncio.sleep(0.02)


def is_running(instance: Instance | None) -> bool:
    return instance is not None and instance.power is ObservedPower.RUNNING


def is_ready(instance: Instance | None) -> bool:
    return instance is not None and instance.ready


class DriverConformance:
    # -- what a driver's test module says of its driver

    @pytest.fixture
    def driver_factory(self) -> DriverFactory:
        raise NotImplementedError("override driver_factory")

    @pytest.fixture
    def sample_spec(self) -> MicroVMSpec:
        """The smallest microVM that this driver can run, with `power_state` running."""
        raise NotImplementedError("override sample_spec")

    @pytest.fixture
    def refused_specs(self) -> Mapping[str, MicroVMSpec]:
        """Pointer to a spec that this host cannot run because of the field it names; at least one."""
        raise NotImplementedError("override refused_specs")

    @pytest.fixture
    def kill(self) -> Kill:
        raise NotImplementedError("override kill")

    @pytest.fixture
    def capabilities(self) -> frozenset[Capability]:
        return ALL_CAPABILITIES

    @pytest.fixture
    def timeouts(self) -> Timeouts:
        return Timeouts()

    @pytest.fixture
    def leftovers(self) -> Leftovers:
        """What else than `list` can see; for a driver whose listing is all there is, nothing."""
        return lambda uid: ()

    @pytest.fixture
    async def drivers(
        self, driver_factory: DriverFactory, timeouts: Timeouts
    ) -> AsyncIterator[Callable[[], Awaitable[HostDriver]]]:
        """Starts drivers over the same host; in the end destroys what is there and stops them all."""
        started: list[HostDriver] = []

        async def start() -> HostDriver:
            driver = driver_factory()
            await driver.start()
            started.append(driver)
            return driver

        yield start
        if started:
            for instance in await (await start()).list():
                if instance.uid is not None:
                    await asyncio.wait_for(started[-1].destroy(instance.uid, grace_s=0.0), timeouts.call_s)
        for driver in started:
            await driver.stop()

    @pytest.fixture
    async def driver(self, drivers: Callable[[], Awaitable[HostDriver]]) -> HostDriver:
        return await drivers()

    # -- the suite

    async def test_a_microvm_lives_survives_the_agent_and_leaves_nothing(
        self,
        driver: HostDriver,
        drivers: Callable[[], Awaitable[HostDriver]],
        sample_spec: MicroVMSpec,
        timeouts: Timeouts,
        leftovers: Leftovers,
        capabilities: frozenset[Capability],
    ) -> None:
        vm = definition(sample_spec, uid=new_uid(), epoch=3, generation=7)
        await driver.create(vm)
        await eventually(driver, vm.uid, is_running, within_s=timeouts.ready_s, what="running")
        seen = await eventually(driver, vm.uid, is_ready, within_s=timeouts.ready_s, what="ready")
        assert seen is not None
        assert (seen.uid, seen.cluster_id, seen.namespace, seen.name) == (vm.uid, CLUSTER, vm.namespace, vm.name)
        assert (seen.epoch, seen.generation) == (3, 7)
        assert seen.power is ObservedPower.RUNNING
        assert seen.vcpu == vm.spec.vcpu
        # Firmware and hypervisor may keep a little; they never give more.
        assert seen.memory_in_mb is not None
        assert 0.9 * vm.spec.memory_in_mb <= seen.memory_in_mb <= vm.spec.memory_in_mb
        assert set(vm.spec.interfaces) <= set(seen.interfaces)
        assert seen.cause is None

        await driver.create(vm)
        assert await existing(driver, vm.uid) == seen, "repeating a create changed the running microVM"
        with pytest.raises(DriverError) as refusal:
            await driver.create(definition(sample_spec, uid=vm.uid, epoch=2, generation=9))
        assert refusal.value.code == "StaleEpoch"
        assert not refusal.value.retryable
        with pytest.raises(DriverError) as refusal:
            await driver.update(definition(sample_spec, uid=vm.uid, epoch=2, generation=9))
        assert refusal.value.code == "StaleEpoch"
        assert await existing(driver, vm.uid) == seen, "a refused order changed the running microVM"
        await self._check_console(driver, vm.uid, Capability.CONSOLE in capabilities)
        assert await driver.definition(vm.uid) == vm

        await driver.stop()
        again = await drivers()
        assert await existing(again, vm.uid) == seen, "a new driver does not find the same microVM"
        await again.create(vm)
        assert await existing(again, vm.uid) == seen

        for _ in range(2):
            await asyncio.wait_for(again.destroy(vm.uid, grace_s=timeouts.grace_s), timeouts.call_s)
            assert await of(again, vm.uid) is None
            assert not list(leftovers(vm.uid))
            assert not await again.leftovers(vm.uid)
            assert not await again.leftovers()
            assert await again.definition(vm.uid) is None
        for call in (again.update(vm), again.set_power(vm.uid, PowerState.RUNNING, grace_s=0.0)):
            with pytest.raises(DriverError) as refusal:
                await call
            assert refusal.value.code in {"NotFound", "Unsupported"}
        assert await of(again, vm.uid) is None

    async def _check_console(self, driver: HostDriver, uid: str, has_console: bool) -> None:
        if not has_console:
            with pytest.raises(DriverError) as refusal:
                await driver.console(uid, offset=0, limit=1)
            assert refusal.value.code == "Unsupported"
            return
        end, everything = await driver.console(uid, offset=0, limit=1 << 20)
        assert end == len(everything) > 0
        assert b"flintlock: ready" in everything
        assert await driver.console(uid, offset=0, limit=5) == (5, everything[:5])
        assert await driver.console(uid, offset=5, limit=7) == (12, everything[5:12])
        tail_end, tail = await driver.console(uid, offset=-4, limit=1 << 20)
        assert tail_end >= end
        assert len(tail) == 4 + tail_end - end if tail_end > end else tail == everything[-4:]
        beyond, nothing = await driver.console(uid, offset=end + 1_000_000, limit=10)
        assert beyond >= end
        assert nothing == b""
        with pytest.raises(DriverError) as refusal:
            await driver.console(new_uid(), offset=0, limit=10)
        assert refusal.value.code == "NotFound"

    async def test_power_states(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts, capabilities: frozenset[Capability]
    ) -> None:
        if Capability.POWER_STATES not in capabilities:
            await self._check_power_is_refused(driver, sample_spec)
            return
        vm = definition(sample_spec, uid=new_uid(), power_state=PowerState.STOPPED)

        async def bring(power: PowerState, observed: ObservedPower) -> Instance:
            # Twice, because a lost answer is repeated.
            for _ in range(2):
                await asyncio.wait_for(driver.set_power(vm.uid, power, grace_s=timeouts.grace_s), timeouts.call_s)
            instance = await existing(driver, vm.uid)
            assert instance.power is observed
            return instance

        await driver.create(vm)
        created = await existing(driver, vm.uid)
        assert (created.power, created.ready) == (ObservedPower.STOPPED, False)
        await bring(PowerState.RUNNING, ObservedPower.RUNNING)
        await eventually(driver, vm.uid, is_ready, within_s=timeouts.ready_s, what="ready")
        await bring(PowerState.PAUSED, ObservedPower.PAUSED)
        resumed = await bring(PowerState.RUNNING, ObservedPower.RUNNING)
        assert resumed.ready, "a pause made the guest forget that it is ready"
        stopped = await bring(PowerState.STOPPED, ObservedPower.STOPPED)
        assert not stopped.ready
        assert stopped.cause
        restarted = await bring(PowerState.RUNNING, ObservedPower.RUNNING)
        assert restarted.cause is None
        await eventually(driver, vm.uid, is_ready, within_s=timeouts.ready_s, what="ready after a stop")
        assert (await existing(driver, vm.uid)).native_id == created.native_id

    async def _check_power_is_refused(self, driver: HostDriver, sample_spec: MicroVMSpec) -> None:
        vm = definition(sample_spec, uid=new_uid())
        await driver.create(vm)
        before = await existing(driver, vm.uid)
        for power in (PowerState.STOPPED, PowerState.PAUSED):
            calls = (
                driver.set_power(vm.uid, power, grace_s=0.0),
                driver.check(replace(sample_spec, power_state=power)),
                driver.create(definition(sample_spec, uid=new_uid(), power_state=power)),
                driver.update(definition(sample_spec, uid=vm.uid, generation=2, power_state=power)),
            )
            for call in calls:
                with pytest.raises(DriverError) as refusal:
                    await call
                assert (refusal.value.code, refusal.value.pointer) == ("Unsupported", "/spec/power_state")
                assert not refusal.value.retryable
        await driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0.0)
        assert list(await driver.list()) == [before]

    async def test_an_update_takes_effect_and_keeps_what_it_can(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts
    ) -> None:
        vm = definition(sample_spec, uid=new_uid())
        await driver.create(vm)
        first = await eventually(driver, vm.uid, is_running, within_s=timeouts.ready_s, what="running")
        assert first is not None
        await driver.update(replace(vm, generation=2, labels={"tier": "web"}))
        renamed = await existing(driver, vm.uid)
        assert replace(renamed, generation=1) == replace(first, ready=renamed.ready), "labels alone restarted the guest"
        assert renamed.generation == 2

        more = replace(vm, generation=3, spec=replace(sample_spec, vcpu=sample_spec.vcpu + 1))
        for _ in range(2):
            await asyncio.wait_for(driver.update(more), timeouts.call_s)
            changed = await eventually(
                driver, vm.uid, is_running, within_s=timeouts.ready_s, what="running after its update"
            )
            assert changed is not None
            assert (changed.generation, changed.vcpu, changed.epoch) == (3, sample_spec.vcpu + 1, 1)
        await eventually(driver, vm.uid, is_ready, within_s=timeouts.ready_s, what="ready after its update")

    async def test_an_interrupted_create_is_completed_by_its_repetition(
        self,
        driver: HostDriver,
        drivers: Callable[[], Awaitable[HostDriver]],
        sample_spec: MicroVMSpec,
        timeouts: Timeouts,
        leftovers: Leftovers,
    ) -> None:
        """The agent dies while it creates, again and again; in the end there is one, and it can be destroyed."""
        vm = definition(sample_spec, uid=new_uid())
        for after_s in timeouts.interrupt_after_s:
            attempt = asyncio.create_task(driver.create(vm))
            await asyncio.wait({attempt}, timeout=after_s)
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await attempt
            await driver.stop()
            driver = await drivers()
            await of(driver, vm.uid)
        await asyncio.wait_for(driver.create(vm), timeouts.call_s)
        await eventually(driver, vm.uid, is_ready, within_s=timeouts.ready_s, what="ready")
        assert [instance.uid for instance in await driver.list()] == [vm.uid]
        await asyncio.wait_for(driver.destroy(vm.uid, grace_s=0.0), timeouts.call_s)
        assert not await driver.list()
        assert not list(leftovers(vm.uid))

    async def test_a_death_behind_its_back_is_seen_and_repaired(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts, kill: Kill
    ) -> None:
        wakes = cast(AsyncGenerator[None], driver.changes())  # every driver's is a generator

        async def wake_until(holds: Callable[[Instance | None], bool]) -> Instance | None:
            async with asyncio.timeout(timeouts.change_s):
                while not holds(instance := await of(driver, vm.uid)):
                    await anext(wakes)
                return instance

        vm = definition(sample_spec, uid=new_uid())
        first_wake = asyncio.ensure_future(anext(wakes))
        await asyncio.sleep(0)  # let it begin to watch
        await driver.create(vm)
        await asyncio.wait_for(first_wake, timeouts.change_s)
        victim = await eventually(driver, vm.uid, is_running, within_s=timeouts.ready_s, what="running")
        assert victim is not None
        await kill(victim)
        dead = await wake_until(lambda instance: not is_running(instance))
        if dead is not None:
            assert dead.power is ObservedPower.STOPPED
            assert not dead.ready
            assert dead.cause
        await driver.create(vm)
        await eventually(driver, vm.uid, is_ready, within_s=timeouts.ready_s, what="ready after its repair")
        assert [instance.uid for instance in await driver.list()] == [vm.uid]
        await wakes.aclose()

    async def test_a_newer_epoch_takes_over_and_neighbours_stay(
        self, driver: HostDriver, sample_spec: MicroVMSpec, timeouts: Timeouts
    ) -> None:
        one, two = definition(sample_spec, uid=new_uid()), definition(sample_spec, uid=new_uid())
        await driver.create(one)
        await driver.create(two)
        neighbour = await eventually(driver, two.uid, is_ready, within_s=timeouts.ready_s, what="ready")
        await asyncio.wait_for(driver.create(replace(one, epoch=2)), timeouts.call_s)
        assert (await existing(driver, one.uid)).epoch == 2
        with pytest.raises(DriverError) as refusal:
            await driver.create(one)
        assert refusal.value.code == "StaleEpoch"
        await asyncio.wait_for(driver.destroy(one.uid, grace_s=0.0), timeouts.call_s)
        assert list(await driver.list()) == [neighbour]

    async def test_what_the_host_cannot_run_is_refused_by_field(
        self, driver: HostDriver, sample_spec: MicroVMSpec, refused_specs: Mapping[str, MicroVMSpec]
    ) -> None:
        await driver.check(sample_spec)
        assert refused_specs
        for pointer, refused in refused_specs.items():
            with pytest.raises(DriverError) as refusal:
                await driver.check(refused)
            assert refusal.value.pointer == pointer
            assert refusal.value.message
            vm = definition(refused, uid=new_uid())
            with pytest.raises(DriverError) as refusal:
                await driver.create(vm)
            assert refusal.value.pointer == pointer
            assert await of(driver, vm.uid) is None, "a refused create left something behind"
