"""The QEMU driver conforms, and tells the truth about real guests whatever happens to them behind its back.

At most two guests run at once. Whoever interrupts the driver does it as a crash would: another Python process runs it
and ends without a word after a chosen step, and its guests go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from acceptance.drivers.conformance import (
    DriverFactory,
    Kill,
    Leftovers,
    Timeouts,
    definition,
    eventually,
    existing,
    new_uid,
    of,
)
from acceptance.drivers.lease_conformance import LeaseConformance
from acceptance.qemu.guests import (
    CALL_S,
    INSTANCE,
    READY_S,
    console_of,
    eventually_listed,
    in_power,
    leftovers_in,
    pid_of,
    ready,
    require,
)

from controlplane.drivers.qemu import QemuDriver, network, probe, process
from controlplane.drivers.qemu.driver import instance_mark
from controlplane.drivers.qemu.tag import Tag
from controlplane.images.store import LocalImageStore
from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import (
    Initrd,
    Interface,
    InterfaceType,
    Kernel,
    MicroVMSpec,
    PowerState,
    StaticAddress,
    Volume,
    VolumeKind,
)
from controlplane.ports import DriverError, HostDriver, Instance

pytestmark = [pytest.mark.qemu, pytest.mark.xdist_group("guests"), pytest.mark.timeout(600)]


def tell(folder: Path, command: str) -> None:
    """One command on the operator's own monitor socket, as another client of QEMU."""
    descriptor = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(f"/proc/self/fd/{descriptor}/operator.sock")
            stream = client.makefile("rw")
            stream.readline()
            for word in ("qmp_capabilities", command):
                stream.write(json.dumps({"execute": word}) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass
    finally:
        os.close(descriptor)


class TestConformance(LeaseConformance):
    @pytest.fixture
    def lease_s(self) -> float:
        return 2.0

    @pytest.fixture
    def driver_factory(self, new_driver: Callable[[], QemuDriver]) -> DriverFactory:
        return new_driver

    @pytest.fixture
    async def drivers(
        self, driver_factory: DriverFactory, timeouts: Timeouts
    ) -> AsyncIterator[Callable[[], Awaitable[HostDriver]]]:
        """One at a time: a state folder belongs to one driver, and a second one is refused."""
        started: list[HostDriver] = []

        async def start() -> HostDriver:
            if started:
                await started.pop().stop()
            driver = driver_factory()
            await driver.start()
            started.append(driver)
            return driver

        yield start
        last = await start()
        for instance in await last.list():
            if instance.uid is not None:
                await asyncio.wait_for(last.destroy(instance.uid, grace_s=0.0), timeouts.call_s)
        await last.stop()

    @pytest.fixture
    def sample_spec(self, sample: MicroVMSpec) -> MicroVMSpec:
        return replace(sample, interfaces={"eth0": Interface()}) if os.geteuid() == 0 else sample

    @pytest.fixture
    def refused_specs(self, sample: MicroVMSpec) -> Mapping[str, MicroVMSpec]:
        long = {f"option{number}": "x" * 200 for number in range(12)}
        return {
            "/spec/kernel/image": replace(sample, kernel=Kernel(image="demo/absent:1")),
            "/spec/kernel/filename": replace(sample, kernel=Kernel(image="demo/kernel", filename="absent")),
            "/spec/kernel/cmdline": replace(sample, kernel=Kernel(image="demo/kernel", cmdline=long)),
            "/spec/initrd/image": replace(sample, initrd=Initrd(image="demo/absent")),
            "/spec/root_volume/container_source": replace(sample, root_volume=Volume()),
            "/spec/root_volume/size_in_mb": replace(
                sample, root_volume=Volume(container_source="demo/root:1", size_in_mb=1)
            ),
            "/spec/root_volume/kind": replace(
                sample, root_volume=Volume(container_source="demo/root:1", kind=VolumeKind.SHARED)
            ),
            "/spec/additional_volumes/data/virtiofs_source": replace(
                sample, additional_volumes={"data": Volume(virtiofs_source="/srv")}
            ),
            "/spec/interfaces/eth0/type": replace(sample, interfaces={"eth0": Interface(type=InterfaceType.MACVTAP)}),
            "/spec/interfaces/eth0/bridge_name": replace(sample, interfaces={"eth0": Interface(bridge_name="nobr")}),
            "/spec/provider": replace(sample, provider="flintlockd"),
        }

    @pytest.fixture
    def kill(self) -> Kill:
        async def kill(instance: Instance) -> None:
            os.kill(pid_of(instance), signal.SIGKILL)

        return kill

    @pytest.fixture
    def timeouts(self) -> Timeouts:
        return Timeouts(call_s=CALL_S, ready_s=READY_S, change_s=20.0, grace_s=30.0)

    @pytest.fixture
    def leftovers(self, state_dir: Path) -> Leftovers:
        return lambda uid: leftovers_in(state_dir, uid)


async def test_volumes_identity_and_causes_over_a_life(
    driver: QemuDriver, sample: MicroVMSpec, state_dir: Path
) -> None:
    spec = replace(
        sample,
        root_volume=Volume(container_source="demo/root:1", size_in_mb=24),
        additional_volumes={"b-data": Volume(size_in_mb=5), "a-logs": Volume(size_in_mb=3, is_read_only=True)},
        metadata={"user-data": "#cloud-config\n"},
    )
    vm = definition(spec, uid=new_uid())
    await driver.create(vm)
    first = await ready(driver, vm.uid)
    text = await console_of(driver, vm.uid)
    assert f"hello from {vm.name} ({vm.uid})" in text
    assert "2 metadata keys" in text
    assert f"root volume {24 * 2048} sectors, boot 1\n" in text
    sizes = {
        name: (state_dir / "vms" / vm.uid / name).stat().st_size >> 20
        for name in ("disk-a-logs.raw", "disk-b-data.raw")
    }
    assert sizes == {"disk-a-logs.raw": 3, "disk-b-data.raw": 5}

    # The guest switches itself off, which is not the same as being stopped.
    tell(Path(first.details["folder"]), "system_powerdown")
    off = await in_power(driver, vm.uid, ObservedPower.STOPPED)
    assert off.cause == "guest powered off"
    assert not off.ready

    await driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0)
    assert not (await existing(driver, vm.uid)).ready, "the ready line of an earlier start counted"
    await ready(driver, vm.uid)
    assert "boot 2\n" in await console_of(driver, vm.uid)

    began = time.monotonic()
    await driver.set_power(vm.uid, PowerState.STOPPED, grace_s=60)
    assert time.monotonic() - began < 50, "the guest did not answer the power button"
    assert (await existing(driver, vm.uid)).cause == "stopped on request"

    await driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0)
    os.kill(pid_of(await existing(driver, vm.uid)), signal.SIGTERM)
    ended = await in_power(driver, vm.uid, ObservedPower.STOPPED)
    assert ended.cause == "hypervisor was ended by signal 15"
    (left,) = await driver.leftovers(vm.uid)
    assert left.name == f"vms/{vm.uid}"
    assert await driver.leftovers() == [], "it is no leftover while it is listed"
    await driver.destroy(vm.uid, grace_s=0)
    assert leftovers_in(state_dir, vm.uid) == []


async def test_a_local_volume_outlives_its_microvm_for_its_time(
    state_dir: Path, store: LocalImageStore, sample: MicroVMSpec
) -> None:
    spec = replace(sample, additional_volumes={"data": Volume(kind=VolumeKind.LOCAL, size_in_mb=5)})
    vm = definition(spec, uid=new_uid())
    driver = QemuDriver(state_dir, store, INSTANCE, "tcg", keep_local_volumes_s=3600)
    await driver.start()
    await driver.create(vm)
    await in_power(driver, vm.uid, ObservedPower.RUNNING)
    (state_dir / "vms" / vm.uid / "disk-data.raw").write_text("precious")
    await driver.destroy(vm.uid, grace_s=0)
    await driver.destroy(vm.uid, grace_s=0)
    assert not await driver.list()
    assert not await driver.leftovers(vm.uid)
    (kept,) = await driver.leftovers()
    assert (kept.kind, kept.uid, kept.epoch, kept.marked) == (LeftoverKind.VOLUMES, vm.uid, vm.epoch, True)
    (entry,) = (state_dir / "quarantine").iterdir()
    assert sorted(each.name for each in entry.iterdir()) == ["disk-data.raw", "manifest.json"]
    assert (entry / "disk-data.raw").read_text().startswith("precious")
    await driver.stop()

    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "until": int(time.time())}))
    await driver.start()
    async with asyncio.timeout(10):
        while entry.exists():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.05)
    await driver.stop()


async def test_what_was_left_of_microvms_is_found_by_its_mark_and_deleted_when_told(
    state_dir: Path, store: LocalImageStore, sample: MicroVMSpec
) -> None:
    """A tap, a folder and kept volumes of microVMs that are gone go one by one; what runs keeps all that it has."""
    volumes = {"data": Volume(kind=VolumeKind.LOCAL, size_in_mb=1)}
    spec = replace(sample, interfaces={"eth0": Interface()})
    runs, gone = definition(spec, uid=new_uid()), definition(replace(spec, additional_volumes=volumes), uid=new_uid())
    driver = QemuDriver(state_dir, store, INSTANCE, "tcg")
    await driver.start()
    await driver.keep_until_told()
    for vm in (runs, gone):
        await driver.create(vm)
        await in_power(driver, vm.uid, ObservedPower.RUNNING)
    assert await driver.leftovers() == [], "what runs has left nothing"
    await driver.destroy(gone.uid, grace_s=0)
    mark = instance_mark(INSTANCE, state_dir)
    tag = Tag(mark, gone.cluster_id, gone.uid, gone.epoch, gone.namespace, gone.name)
    await network.make(tag, gone.spec.interfaces)
    (state_dir / "vms" / "01HALFMADE").mkdir()

    await driver.stop()
    driver = QemuDriver(state_dir, store, INSTANCE, "tcg")
    await driver.start()
    left = {each.name: each for each in await driver.leftovers()}
    tap, kept = f"tap/{network.tap_name(mark, gone.uid, 'eth0')}", f"quarantine/{gone.uid}-{gone.epoch}"
    assert set(left) == {tap, kept, "vms/01HALFMADE"}
    assert all(each.marked for each in left.values())
    assert (left[tap].uid, left[tap].cluster_id) == (gone.uid, gone.cluster_id)
    for name in left:
        await driver.clear(name)
        await driver.clear(name)
    await driver.clear(f"tap/{network.tap_name(mark, runs.uid, 'eth0')}")
    await driver.clear(f"vms/{runs.uid}")
    assert await driver.leftovers() == []
    assert leftovers_in(state_dir, gone.uid) == []
    assert (await existing(driver, runs.uid)).power is ObservedPower.RUNNING
    assert network.existing(mark, runs.uid)
    await driver.destroy(runs.uid, grace_s=0)
    await driver.stop()


async def test_a_process_whose_folder_is_gone_is_found_and_ended(
    driver: QemuDriver, state_dir: Path, sample: MicroVMSpec
) -> None:
    vm = definition(replace(sample, interfaces={"eth0": Interface()}), uid=new_uid())
    await driver.create(vm)
    await in_power(driver, vm.uid, ObservedPower.RUNNING)
    shutil.rmtree(state_dir / "vms" / vm.uid)
    (stray,) = await driver.list()
    assert (stray.uid, stray.cluster_id, stray.epoch) == (vm.uid, vm.cluster_id, vm.epoch)
    assert await driver.leftovers() == [], "while it runs, its tap is not left over"
    await driver.destroy(vm.uid, grace_s=0)
    assert (await driver.list(), await driver.leftovers(), leftovers_in(state_dir, vm.uid)) == ((), [], [])


async def test_tampering_is_seen_and_undone(driver: QemuDriver, sample: MicroVMSpec) -> None:
    vm = definition(sample, uid=new_uid())
    await driver.create(vm)
    seen = await existing(driver, vm.uid)
    changes = aiter(driver.changes())

    tell(Path(seen.details["folder"]), "stop")
    await asyncio.wait_for(anext(changes), 10)
    assert (await existing(driver, vm.uid)).power is ObservedPower.PAUSED
    await driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0)
    assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING

    os.kill(pid_of(seen), signal.SIGSTOP)
    halted = await in_power(driver, vm.uid, ObservedPower.PAUSED)
    assert halted.cause == "hypervisor process is halted by a signal"
    await driver.set_power(vm.uid, PowerState.RUNNING, grace_s=0)
    running = await existing(driver, vm.uid)
    assert (running.power, running.cause, pid_of(running)) == (ObservedPower.RUNNING, None, pid_of(seen))

    os.kill(pid_of(seen), signal.SIGSTOP)
    await asyncio.wait_for(driver.destroy(vm.uid, grace_s=0), CALL_S)
    assert await of(driver, vm.uid) is None


async def test_strays_are_found_by_their_mark_and_other_agents_are_let_be(
    driver: QemuDriver, sample: MicroVMSpec, mark: str
) -> None:
    uid = new_uid()

    def qemu(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-name", name])

    strays = [
        qemu(f"guest=flintlock/{mark}/c/{uid}/4/ns/lost"),
        qemu(f"flintlock/{mark}/by-hand"),
        qemu(f"flintlock/{mark}-other/c/{uid}/4/ns/theirs"),
        qemu("something-else"),
    ]
    try:
        await eventually(driver, uid, lambda seen: seen is not None, within_s=10, what="listed")
        await eventually_listed(driver, 2)
        listed = {instance.native_id: instance for instance in await driver.list()}
        assert set(listed) == {f"pid-{stray.pid}" for stray in strays[:2]}
        lost = listed[f"pid-{strays[0].pid}"]
        assert (lost.uid, lost.epoch, lost.name, lost.power) == (uid, 4, "lost", ObservedPower.RUNNING)
        assert (listed[f"pid-{strays[1].pid}"].uid, listed[f"pid-{strays[1].pid}"].name) == (None, "by-hand")
        await driver.destroy(uid, grace_s=0)
        assert strays[0].wait(10) is not None
        assert [stray.poll() for stray in strays[1:]] == [None, None, None]
    finally:
        for stray in strays:
            stray.kill()
            stray.wait(10)


async def test_a_folder_that_vanished_does_not_leave_a_second_copy(
    driver: QemuDriver, sample: MicroVMSpec, mark: str
) -> None:
    vm = definition(replace(sample, power_state=PowerState.PAUSED), uid=new_uid())
    await driver.create(vm)
    first = await existing(driver, vm.uid)
    shutil.rmtree(first.details["folder"])
    assert (await existing(driver, vm.uid)).native_id == f"pid-{pid_of(first)}"
    await driver.create(vm)
    second = await existing(driver, vm.uid)
    assert pid_of(second) != pid_of(first)
    assert [found.pid for found in process.scan(mark)] == [pid_of(second)]


async def test_what_qemu_says_is_passed_on(
    driver: QemuDriver, sample: MicroVMSpec, store: LocalImageStore, tmp_path: Path
) -> None:
    (tmp_path / "junk").write_bytes(b"not a kernel")
    store.add("test/junk:1", {"vmlinuz": tmp_path / "junk"}, {"kernel": "vmlinuz"})
    vm = definition(replace(sample, kernel=Kernel(image="test/junk:1")), uid=new_uid())
    with pytest.raises(DriverError) as refusal:
        await driver.create(vm)
    assert refusal.value.code == "HypervisorFailed"
    assert "kernel" in refusal.value.message
    seen = await existing(driver, vm.uid)
    assert seen.power is ObservedPower.STOPPED
    assert seen.cause is not None
    assert "kernel" in seen.cause


async def test_one_driver_per_state_folder(driver: QemuDriver, new_driver: Callable[[], QemuDriver]) -> None:
    with pytest.raises(DriverError) as refusal:
        await new_driver().start()
    assert refusal.value.code == "StateInUse"


def open_locks() -> list[int]:
    found: list[int] = []
    for link in Path("/proc/self/fd").iterdir():
        # The listing's own descriptor is closed by now, and other threads open and close theirs.
        with suppress(FileNotFoundError):
            if link.readlink().name == "driver.lock":
                found.append(int(link.name))
    return found


async def test_a_stopped_driver_lets_go_although_a_child_is_being_forked(driver: QemuDriver) -> None:
    """Between fork and exec a child shares every descriptor, the lock's included; a duplicate stands for it."""
    duplicates = [os.dup(fd) for fd in open_locks()]
    assert duplicates
    try:
        await driver.stop()
        await driver.start()
    finally:
        for fd in duplicates:
            os.close(fd)


@pytest.fixture
def bridge() -> Iterator[str]:
    require(os.geteuid() == 0, "needs root to make a bridge")
    name = f"flbr{os.getpid() % 100000}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", "198.18.77.1/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


def ports_of(bridge: str) -> list[str]:
    return [path.name for path in Path(f"/sys/class/net/{bridge}/brif").iterdir()]


@pytest.mark.netns
async def test_a_guest_answers_over_its_bridge(
    driver: QemuDriver, sample: MicroVMSpec, state_dir: Path, bridge: str
) -> None:
    address = StaticAddress(address="198.18.77.2/24", gateway="198.18.77.1")
    interface = Interface(bridge_name=bridge, address=address)
    vm = definition(replace(sample, interfaces={"eth0": interface}), uid=new_uid())
    await driver.create(vm)
    seen = await ready(driver, vm.uid)
    assert ports_of(bridge) == [seen.interfaces["eth0"].host_device]
    text = await console_of(driver, vm.uid)
    assert "has 198.18.77.2/24" in text
    assert "default route via 198.18.77.1" in text
    # The guest itself refuses the connection: neither a missing route nor silence.
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(socket.create_connection, ("198.18.77.2", 9), 20)
    await driver.destroy(vm.uid, grace_s=0)
    assert leftovers_in(state_dir, vm.uid) == []


AGENT = textwrap.dedent("""
    import asyncio, functools, inspect, os, sys
    from pathlib import Path
    import msgspec
    from controlplane.drivers.qemu import QemuDriver, guest, network, process, volumes, watch
    from controlplane.drivers.qemu.guest import Guest
    from controlplane.drivers.qemu.layout import Folder
    from controlplane.images.store import LocalImageStore
    from controlplane.ports import VMDefinition

    state, images, instance, call, crash_after = sys.argv[1:6]
    vm = msgspec.json.decode(sys.stdin.buffer.read(), type=VMDefinition)
    owners = {"Folder": Folder, "Guest": Guest, "network": network, "process": process, "volumes": volumes}

    def crash():
        os._exit(42)

    def ending(step):
        if inspect.iscoroutinefunction(step):
            @functools.wraps(step)
            async def wrapped(*args, **kwargs):
                await step(*args, **kwargs)
                crash()
        else:
            @functools.wraps(step)
            def wrapped(*args, **kwargs):
                step(*args, **kwargs)
                crash()
        return wrapped

    if crash_after != "nothing":
        owner, name = crash_after.split(".")
        setattr(owners[owner], name, ending(getattr(owners[owner], name)))

    async def main():
        driver = QemuDriver(Path(state), LocalImageStore(Path(images)), instance, "tcg")
        await driver.start()
        if call == "create":
            await driver.create(vm)
        else:
            await driver.destroy(vm.uid, grace_s=0)
        crash()

    asyncio.run(main())
""")


@pytest.fixture
def crash(state_dir: Path, store: LocalImageStore) -> Callable[..., Awaitable[None]]:
    """Runs one call in an agent of its own that dies after a step."""

    async def run(vm: object, call: str, after: str) -> None:
        import msgspec

        agent = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", AGENT, str(state_dir), str(store.root), INSTANCE, call, after),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(agent.communicate(msgspec.json.encode(vm)), CALL_S)
        assert agent.returncode == 42, errors.decode()

    return run


CREATE_STEPS = (
    "Folder.save_definition",
    "volumes.make",
    "network.make",
    "Folder.write",
    "Folder.save_run",
    "process.spawn",
    "nothing",
)
DESTROY_STEPS = ("Guest.stop", "network.remove", "Folder.remove", "nothing")


async def test_an_agent_that_dies_after_any_step_is_made_good(
    crash: Callable[..., Awaitable[None]],
    new_driver: Callable[[], QemuDriver],
    sample: MicroVMSpec,
    state_dir: Path,
    mark: str,
) -> None:
    interfaces = {"eth0": Interface()} if os.geteuid() == 0 else {}
    # Paused guests show all of it and cost no boot.
    spec = replace(sample, interfaces=interfaces, power_state=PowerState.PAUSED)
    for create_step in CREATE_STEPS:
        vm = definition(spec, uid=new_uid())
        await crash(vm, "create", create_step)
        driver = new_driver()
        await driver.start()
        before = [found.pid for found in process.scan(mark)]
        await driver.create(vm)
        seen = await existing(driver, vm.uid)
        assert seen.power is ObservedPower.PAUSED, create_step
        assert [found.pid for found in process.scan(mark)] == [pid_of(seen)], create_step
        assert before in ([], [pid_of(seen)]), f"{create_step}: the process that was there was not taken over"
        await driver.stop()
        destroy_step = DESTROY_STEPS[CREATE_STEPS.index(create_step) % len(DESTROY_STEPS)]
        await crash(vm, "destroy", destroy_step)
        driver = new_driver()
        await driver.start()
        await driver.destroy(vm.uid, grace_s=0)
        assert not await driver.list(), destroy_step
        await driver.stop()
        assert leftovers_in(state_dir, vm.uid) == [], destroy_step


async def test_guests_outlive_their_agent(
    crash: Callable[..., Awaitable[None]], new_driver: Callable[[], QemuDriver], sample: MicroVMSpec
) -> None:
    vm = definition(sample, uid=new_uid(), generation=5)
    await crash(vm, "create", "nothing")
    driver = new_driver()
    await driver.start()
    try:
        seen = await ready(driver, vm.uid)
        assert (seen.epoch, seen.generation, seen.vcpu, seen.memory_in_mb) == (1, 5, 1, 96)
        os.kill(pid_of(seen), signal.SIGKILL)
        # Not this agent's child: nobody knows with what signal it ended, and nothing is made up.
        gone = await in_power(driver, vm.uid, ObservedPower.STOPPED)
        assert gone.cause == "process is gone (killed or crashed)"
    finally:
        await driver.destroy(vm.uid, grace_s=0)
        await driver.stop()


async def test_the_probe_boots_a_kernel_and_remembers_the_verdict(store: LocalImageStore, tmp_path: Path) -> None:
    qemu = shutil.which("qemu-system-x86_64") or ""
    kernel = store.resolve("demo/kernel", None, role="kernel")
    facts = {"binary": qemu, "qemu_version": "1", "boot_id": "a"}
    verdict = await probe.decide(tmp_path / "verdict", **facts, kernel=kernel)
    assert verdict.accelerator in {"kvm", "tcg"}
    assert verdict.reason
    # A kept verdict needs no QEMU; one of another boot of the host counts for nothing.
    assert await probe.decide(tmp_path / "verdict", **facts | {"binary": "/absent"}, kernel=kernel) == verdict
    again = await probe.decide(tmp_path / "verdict", **facts | {"boot_id": "b"}, kernel=None)
    assert again.boot_id == "b"
    assert again.accelerator == "tcg"
    # A deadline for KVM is no deadline for TCG on a busy machine: only what is said about a kernel that boots counts.
    said = await probe.boot(qemu, kernel, "tcg", extra=["tsc_early_khz=2000000", "lpj=8000000", "no_timer_check"])
    assert said is None or "did not boot under tcg within" in said
    assert "QEMU said" in (await probe.boot(qemu, tmp_path / "verdict", "tcg") or "")
