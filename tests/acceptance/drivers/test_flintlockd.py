"""The flintlockd driver conforms, and no lost answer, crash or failure of the host makes it create a microVM twice."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from acceptance.drivers.conformance import (
    CLUSTER,
    Capability,
    DriverConformance,
    DriverFactory,
    Kill,
    Leftovers,
    Timeouts,
    definition,
    existing,
    new_uid,
    of,
)
from support.flintlock_server import FlintlockService, serving

from controlplane.drivers.flintlockd import FlintlockdDriver, FlintlockdSettings
from controlplane.drivers.flintlockd.journal import Journal, Phase, Record
from controlplane.drivers.flintlockd.translate import to_wire
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import (
    HostFailure,
    Initrd,
    Interface,
    Kernel,
    MicroVMSpec,
    OnDetach,
    Recovery,
    Volume,
    VolumeKind,
)
from controlplane.ports import DriverError, HostDriver, Instance, Lease, VMDefinition
from controlplane.wire.flintlock.types import microvm_pb2 as types

TOKEN = "a token of the tests"
SPEC = MicroVMSpec(
    vcpu=1,
    memory_in_mb=1024,
    kernel=Kernel(image="ghcr.io/liquidmetal-dev/flintlock-kernel:5.10", cmdline={"console": "ttyS0"}),
    initrd=Initrd(image="demo/initrd:1", filename="initrd"),
    root_volume=Volume(container_source="ghcr.io/liquidmetal-dev/ubuntu:22.04"),
    interfaces={"eth1": Interface(bridge_name="br0")},
    metadata={"user-data": "#cloud-config\n"},
)


@pytest.fixture
def service() -> FlintlockService:
    return FlintlockService(token=TOKEN, pending_s=0.02, deleting_s=0.02)


@pytest.fixture
async def endpoint(service: FlintlockService) -> AsyncIterator[str]:
    async with serving(service) as address:
        yield address


@pytest.fixture
def settings(endpoint: str, tmp_path: Path) -> FlintlockdSettings:
    return FlintlockdSettings(
        endpoint=endpoint,
        state_dir=tmp_path / "flintlockd",
        token=TOKEN,
        call_timeout_s=5.0,
        settle_timeout_s=5.0,
        doubt_s=0.3,
        poll_s=0.05,
    )


@contextlib.asynccontextmanager
async def running(settings: FlintlockdSettings) -> AsyncGenerator[FlintlockdDriver]:
    driver = FlintlockdDriver(settings)
    await driver.start()
    try:
        yield driver
    finally:
        await driver.stop()


async def until(holds: Callable[[], bool], what: str, *, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not {what} within {within_s} s"
        await asyncio.sleep(0.01)


def recovering(**recovery: object) -> MicroVMSpec:
    return replace(SPEC, recovery=Recovery(**recovery))


class TestFlintlockdDriver(DriverConformance):
    @pytest.fixture
    def driver_factory(self, settings: FlintlockdSettings) -> DriverFactory:
        return lambda: FlintlockdDriver(settings)

    @pytest.fixture
    def capabilities(self) -> frozenset[Capability]:
        return frozenset()

    @pytest.fixture
    def timeouts(self) -> Timeouts:
        return Timeouts(call_s=10.0)

    @pytest.fixture
    def sample_spec(self) -> MicroVMSpec:
        return SPEC

    @pytest.fixture
    def refused_specs(self) -> Mapping[str, MicroVMSpec]:
        virtiofs = Volume(virtiofs_source="/srv/share")
        local = Volume(container_source="demo/root:1", kind=VolumeKind.LOCAL)
        two_sources = Volume(container_source="demo/root:1", virtiofs_source="/srv/share")
        return {
            "/spec/recovery/on_host_failure": recovering(on_host_failure=HostFailure.RESTART_ELSEWHERE),
            "/spec/recovery/on_detach": recovering(on_detach=OnDetach.STOP),
            "/spec/provider": replace(SPEC, provider="qemu"),
            "/spec/memory_in_mb": replace(SPEC, memory_in_mb=1023),
            "/spec/root_volume": replace(SPEC, root_volume=None),
            "/spec/root_volume/virtiofs_source": replace(SPEC, root_volume=virtiofs),
            "/spec/root_volume/kind": replace(SPEC, root_volume=local),
            "/spec/root_volume/container_source": replace(SPEC, root_volume=Volume()),
            "/spec/additional_volumes/data/virtiofs_source": replace(SPEC, additional_volumes={"data": two_sources}),
            "/spec/additional_volumes/b/virtiofs_source": replace(
                SPEC, additional_volumes={"b": virtiofs, "a": virtiofs}
            ),
        }

    async def test_a_lease_means_nothing_to_it(self, driver: HostDriver) -> None:
        assert not driver.info.fences
        await driver.renew(Lease(0.0, 0.0))

    @pytest.fixture
    def kill(self, service: FlintlockService) -> Kill:
        async def kill(instance: Instance) -> None:
            del service.microvms[instance.native_id]

        return kill

    @pytest.fixture
    def leftovers(self, service: FlintlockService, settings: FlintlockdSettings) -> Leftovers:
        def leftovers(uid: str) -> list[str]:
            copies = [str(microvm.spec.uid) for microvm in service.microvms.values() if uid in str(microvm.spec.labels)]
            journal = Journal(settings.state_dir)
            journal.load()
            record = journal.get(uid)
            # After a create that was never answered a tombstone stays, on purpose.
            return copies + ([] if record is None or record.phase is Phase.DESTROYED else [str(record)])

        return leftovers


# -- creates that were not answered


async def test_a_lost_reply_does_not_double_the_microvm(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.drop_create_replies = 1
    async with running(settings) as driver:
        await driver.create(vm)
        assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING
        await driver.create(vm)
    assert service.calls.create == 1
    assert len(service.microvms) == 1


async def test_a_create_that_outlives_its_deadline_is_adopted(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.slow_create_s = 2.0
    async with running(replace(settings, call_timeout_s=1.0, doubt_s=5.0)) as driver:
        await driver.create(vm)
        assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING
    assert service.calls.create == 1


async def test_a_create_that_arrives_after_its_repetition_is_deleted(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.slow_create_s = 3.0
    async with running(replace(settings, call_timeout_s=1.0, doubt_s=0.1)) as driver:
        with pytest.raises(DriverError) as failure:
            await driver.create(vm)
        assert (failure.value.code, failure.value.retryable) == ("HostTimeout", True)
        assert not service.microvms
        service.faults.slow_create_s = 0.0
        await driver.create(vm)
        kept = await existing(driver, vm.uid)
        deletions = service.calls.delete
        await until(lambda: service.calls.delete == deletions + 1, "deleted")
        await until(lambda: list(service.microvms) == [kept.native_id], "one copy, the second create's")
        assert await existing(driver, vm.uid) == kept


async def test_a_create_that_arrives_after_the_destruction_is_deleted(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.slow_create_s = 3.0
    brief = replace(settings, call_timeout_s=1.0, doubt_s=0.1)
    async with running(brief) as driver:
        with pytest.raises(DriverError):
            await driver.create(vm)
        await driver.destroy(vm.uid, grace_s=0.0)
        assert not service.microvms
    async with running(brief):
        await until(lambda: service.calls.delete == 1, "deleted")
        await until(lambda: not service.microvms, "gone")


async def test_a_surplus_copy_is_listed_as_nobodys(service: FlintlockService, settings: FlintlockdSettings) -> None:
    vm = definition(SPEC, uid=new_uid())
    async with running(replace(settings, poll_s=3600.0)) as driver:
        await driver.create(vm)
        kept = await existing(driver, vm.uid)
        twin = types.MicroVM()
        twin.CopyFrom(service.microvms[kept.native_id])
        twin.spec.uid = "0" * 26  # older than the one that the journal knows
        service.microvms[twin.spec.uid] = twin
        assert await existing(driver, vm.uid) == kept
        surplus = next(instance for instance in await driver.list() if instance.native_id == twin.spec.uid)
        assert (surplus.uid, surplus.cluster_id, surplus.details["surplus_copy_of"]) == (None, None, vm.uid)
        await driver.create(vm)
        assert list(service.microvms) == [kept.native_id]


async def test_an_agent_killed_during_the_call_finds_what_it_created(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    """kill -9 of a real process, while the host works on its create."""
    vm = definition(SPEC, uid=new_uid())
    service.faults.slow_create_s = 0.2
    agent = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("create_by_flintlockd.py")), settings.endpoint, TOKEN,
        str(settings.state_dir), vm.uid,
    )  # fmt: skip
    await asyncio.wait_for(service.calls.create_began.wait(), 30)
    agent.kill()
    await agent.wait()
    async with running(replace(settings, doubt_s=5.0)) as driver:
        await driver.create(vm)
        assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING
    assert service.calls.create == 1
    assert len(service.microvms) == 1


# -- crashes, as what they leave on disk and on the host


def intent(vm: VMDefinition, *, sent: bool) -> Record:
    return Record(definition=vm, phase=Phase.CREATING, in_doubt=sent, at_ms=time.time_ns() // 1_000_000)


def journal_of(settings: FlintlockdSettings) -> Journal:
    journal = Journal(settings.state_dir)
    journal.load()
    return journal


@pytest.mark.parametrize("sent", [False, True])
async def test_a_crash_between_the_journal_and_the_call(
    service: FlintlockService, settings: FlintlockdSettings, sent: bool
) -> None:
    vm = definition(SPEC, uid=new_uid())
    journal_of(settings).put(intent(vm, sent=sent))
    async with running(settings) as driver:
        assert await of(driver, vm.uid) is None
        await driver.create(vm)
    assert service.calls.create == 1


@pytest.mark.parametrize("old_copy_left", [True, False])
@pytest.mark.parametrize("repeat", ["create", "update", "set_power"])
async def test_a_crash_within_an_update_is_completed(
    service: FlintlockService, settings: FlintlockdSettings, old_copy_left: bool, repeat: str
) -> None:
    vm = definition(SPEC, uid=new_uid())
    more = replace(vm, generation=2, spec=replace(SPEC, vcpu=2))
    async with running(settings) as driver:
        await driver.create(vm)
        if not old_copy_left:
            service.microvms.clear()
    journal_of(settings).put(intent(more, sent=False))
    async with running(settings) as driver:
        match repeat:
            case "create":
                await driver.create(more)
            case "update":
                await driver.update(more)
            case _:
                await driver.set_power(vm.uid, more.spec.power_state, grace_s=0.0)
        seen = await existing(driver, vm.uid)
        assert (seen.generation, seen.vcpu, seen.epoch) == (2, 2, 1)
    assert len(service.microvms) == 1


async def test_a_lost_journal_loses_no_microvm(service: FlintlockService, settings: FlintlockdSettings) -> None:
    vm, other = definition(SPEC, uid=new_uid()), definition(SPEC, uid=new_uid())
    looking_there = replace(settings, namespaces=("default", vm.namespace))
    async with running(looking_there) as driver:
        await driver.create(vm)
        await driver.create(other)
        before = await existing(driver, vm.uid)
    shutil.rmtree(settings.state_dir)
    async with running(looking_there) as driver:
        assert await existing(driver, vm.uid) == before
        await driver.update(replace(vm, generation=5))
        assert await existing(driver, vm.uid) == replace(before, generation=5), "nothing changed, and it was replaced"
        await driver.set_power(other.uid, other.spec.power_state, grace_s=0.0)
        await driver.destroy(other.uid, grace_s=0.0)
        assert await of(driver, other.uid) is None
        without = replace(vm, generation=6, spec=replace(SPEC, interfaces={}))
        await driver.update(without)
        assert "eth1" not in (await existing(driver, vm.uid)).interfaces


async def test_namespaces_once_used_are_still_looked_into(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    async with running(settings) as driver:
        await driver.create(vm)
    for path in (settings.state_dir / "journal").iterdir():
        path.unlink()
    async with running(settings) as driver:
        assert (await existing(driver, vm.uid)).cluster_id == CLUSTER


# -- what else is on the host


async def test_strangers_are_listed_without_identity(service: FlintlockService, settings: FlintlockdSettings) -> None:
    labelled = to_wire(replace(definition(SPEC, uid=new_uid()), namespace="default"))
    labelled.labels["flintlock-controlplane/epoch"] = "-1"
    for number, spec in enumerate([types.MicroVMSpec(id="by-fl", namespace="default", vcpu=2), labelled]):
        spec.uid = f"stranger-{number}"
        status = types.MicroVMStatus(state=types.MicroVMStatus.CREATED)
        service.microvms[spec.uid] = types.MicroVM(spec=spec, status=status)
    unseen = types.MicroVMSpec(id="elsewhere", namespace="elsewhere", uid="stranger-9")
    service.microvms["stranger-9"] = types.MicroVM(spec=unseen)
    async with running(settings) as driver:
        found = {instance.native_id: instance for instance in await driver.list()}
        assert set(found) == {"stranger-0", "stranger-1"}
        for instance in found.values():
            assert (instance.uid, instance.cluster_id, instance.epoch) == (None, None, None)
            assert instance.power is ObservedPower.RUNNING
    async with running(replace(settings, namespaces=("default", "elsewhere"))) as driver:
        assert len(await driver.list()) == 3


# -- failures of the host


async def test_a_guest_that_flintlock_gives_up_on_is_replaced_by_the_next_attempt(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.fail_guests = 1
    async with running(settings) as driver:
        with pytest.raises(DriverError) as failure:
            await driver.create(vm)
        assert (failure.value.code, failure.value.retryable) == ("HypervisorFailed", True)
        broken = await existing(driver, vm.uid)
        assert (broken.power, broken.ready) == (ObservedPower.STOPPED, False)
        assert "FAILED" in (broken.cause or "")
        await driver.create(vm)
        assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING
    assert len(service.microvms) == 1


async def test_a_microvm_that_stays_pending_is_not_called_running(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.stay_pending = True
    async with running(replace(settings, settle_timeout_s=0.2)) as driver:
        for _ in range(2):
            with pytest.raises(DriverError) as failure:
                await driver.create(vm)
            assert (failure.value.code, failure.value.retryable) == ("NotConverged", True)
        pending = await existing(driver, vm.uid)
        assert (pending.power, pending.ready) == (ObservedPower.STOPPED, False)
        assert pending.cause == "Flintlock is still creating it"
    assert service.calls.create == 1


async def test_an_error_of_the_use_case_leaves_no_doubt(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    service.faults.refuse_creates = 1
    async with running(settings) as driver:
        with pytest.raises(DriverError, match="no space left on device") as failure:
            await driver.create(vm)
        assert (failure.value.code, failure.value.retryable) == ("HypervisorFailed", True)
        await driver.destroy(vm.uid, grace_s=0.0)
    assert journal_of(settings).get(vm.uid) is None


async def test_a_refused_deletion_is_an_error_and_can_be_repeated(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    async with running(settings) as driver:
        await driver.create(vm)
        service.faults.refuse_deletes = 1
        with pytest.raises(DriverError, match="database is locked"):
            await driver.destroy(vm.uid, grace_s=0.0)
        assert await of(driver, vm.uid) is not None
        await driver.destroy(vm.uid, grace_s=0.0)
    assert not service.microvms


async def test_an_unreachable_host_is_neither_empty_nor_forgotten(
    service: FlintlockService, settings: FlintlockdSettings
) -> None:
    vm = definition(SPEC, uid=new_uid())
    async with running(settings) as driver:
        await driver.create(vm)
        service.faults.unavailable = True
        calls: list[Callable[[], Awaitable[object]]] = [
            driver.list,
            lambda: driver.create(vm),
            lambda: driver.destroy(vm.uid, grace_s=0.0),
        ]
        for call in calls:
            with pytest.raises(DriverError) as failure:
                await call()
            assert (failure.value.code, failure.value.retryable) == ("HostUnreachable", True)
        service.faults.unavailable = False
        assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING


async def test_a_wrong_token_is_refused_without_showing_it(endpoint: str, settings: FlintlockdSettings) -> None:
    async with running(replace(settings, token="wrong and secret")) as driver:
        with pytest.raises(DriverError) as failure:
            await driver.list()
    assert (failure.value.code, failure.value.retryable) == ("Unauthenticated", False)
    assert "wrong and secret" not in failure.value.message
    assert "wrong and secret" not in repr(driver) + repr(replace(settings, token="wrong and secret"))
