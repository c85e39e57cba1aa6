"""The simulated driver conforms, also when another process changes its microVMs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from acceptance.drivers.conformance import (
    DriverFactory,
    Kill,
    Timeouts,
    definition,
    existing,
    new_uid,
)
from acceptance.drivers.lease_conformance import LeaseConformance, leased, needing_a_lease

from controlplane.drivers.simulated import SimulatedDriver
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Initrd, Interface, Kernel, MicroVMSpec, Volume
from controlplane.ports import HostDriver, Instance

IMAGES = frozenset({"demo/kernel:6.1", "demo/initrd:1", "demo/root:1"})


async def tamper(state_dir: Path, *arguments: str) -> tuple[int, str]:
    """Run the tampering command as an operator would; gives its exit code and what it said."""
    command, *rest = arguments
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "controlplane.drivers.simulated", command, "--state-dir", str(state_dir), *rest),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode or 0, output.decode()


class TestSimulatedDriver(LeaseConformance):
    @pytest.fixture
    def lease_s(self) -> float:
        return 0.4

    @pytest.fixture
    def driver_factory(self, tmp_path: Path) -> DriverFactory:
        return lambda: SimulatedDriver(tmp_path / "host", images=IMAGES, boot_s=0.05, poll_s=0.02)

    @pytest.fixture
    def timeouts(self) -> Timeouts:
        # The kill starts an interpreter, so a wake may be some seconds away on a busy machine.
        return Timeouts(change_s=10.0)

    @pytest.fixture
    def sample_spec(self) -> MicroVMSpec:
        return MicroVMSpec(
            vcpu=1,
            memory_in_mb=128,
            kernel=Kernel(image="demo/kernel:6.1"),
            initrd=Initrd(image="demo/initrd:1"),
            interfaces={"eth1": Interface(guest_mac="02:00:00:00:00:01"), "eth2": Interface()},
        )

    @pytest.fixture
    def refused_specs(self, sample_spec: MicroVMSpec) -> Mapping[str, MicroVMSpec]:
        gone = Volume(container_source="demo/gone:1")
        return {
            "/spec/kernel/image": replace(sample_spec, kernel=Kernel(image="demo/gone:1")),
            "/spec/initrd/image": replace(sample_spec, initrd=Initrd(image="demo/gone:1")),
            "/spec/root_volume/container_source": replace(sample_spec, root_volume=gone),
            "/spec/additional_volumes/data/container_source": replace(sample_spec, additional_volumes={"data": gone}),
        }

    @pytest.fixture
    def kill(self, tmp_path: Path) -> Kill:
        async def kill(instance: Instance) -> None:
            assert (await tamper(tmp_path / "host", "kill", instance.native_id))[0] == 0

        return kill

    def test_it_says_that_it_is_simulated(self, driver: HostDriver) -> None:
        assert driver.info.simulated
        assert driver.info.accelerator is None

    async def test_tampering_by_another_process_is_seen_and_undone(
        self, driver: HostDriver, sample_spec: MicroVMSpec, tmp_path: Path
    ) -> None:
        vm = definition(sample_spec, uid=new_uid())
        host = tmp_path / "host"
        await driver.create(vm)
        which = f"{vm.namespace}/{vm.name}"

        assert await tamper(host, "set-vcpu", which, "--vcpu", "4") == (0, "")
        assert (await existing(driver, vm.uid)).vcpu == 4
        await driver.update(vm)
        assert (await existing(driver, vm.uid)).vcpu == 1

        assert await tamper(host, "pause", which) == (0, "")
        assert (await existing(driver, vm.uid)).power is ObservedPower.PAUSED
        assert await tamper(host, "pause", which) == (1, f"{which} is paused: cannot pause it\n")
        assert await tamper(host, "resume", which) == (0, "")
        assert (await existing(driver, vm.uid)).power is ObservedPower.RUNNING

        assert await tamper(host, "create", "stranger") == (0, "")
        stranger = next(instance for instance in await driver.list() if instance.name == "stranger")
        assert (stranger.uid, stranger.cluster_id, stranger.power) == (None, None, ObservedPower.RUNNING)
        code, listing = await tamper(host, "list")
        assert code == 0
        assert "unmanaged-stranger" in listing
        assert which in listing

        assert await tamper(host, "remove", which) == (0, "")
        assert [instance.name for instance in await driver.list()] == ["stranger"]
        code, words = await tamper(host, "kill", which)
        assert (code, "unmanaged-stranger" in words) == (1, True)
        code, words = await tamper(tmp_path / "nothing", "list")
        assert code == 2
        assert not (tmp_path / "nothing").exists()

    async def test_the_lease_ends_for_whoever_looks(
        self, driver: HostDriver, sample_spec: MicroVMSpec, tmp_path: Path
    ) -> None:
        vm = definition(needing_a_lease(sample_spec), uid=new_uid())
        async with leased(driver, 0.4, grace_s=30.0):
            await driver.create(vm)
            code, listing = await tamper(tmp_path / "host", "list")
            assert (code, f"{vm.uid}\tconformance/{vm.name}\tepoch 1\trunning" in listing) == (0, True), listing
        await driver.stop()
        await asyncio.sleep(0.5)
        code, listing = await tamper(tmp_path / "host", "list")
        assert "\tpaused\t" in listing
        assert "the host's lease ended\n" in listing
        code, said = await tamper(tmp_path / "host", "lease")
        assert (code, said.startswith("ended "), said.endswith("s ago, grace 30 s\n")) == (0, True, True), said
