"""A host with QEMU and the demo images; in the end nothing of it runs any more."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from acceptance.qemu.guests import INSTANCE, require, watchdogs_of

from controlplane.drivers.qemu import QemuDriver, process
from controlplane.drivers.qemu.driver import instance_mark
from controlplane.images.demo import add_demo_images
from controlplane.images.store import LocalImageStore
from controlplane.model.spec import Initrd, Kernel, MicroVMSpec, Volume
from controlplane.ports import DriverError


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalImageStore:
    require(shutil.which("qemu-system-x86_64") is not None, "needs QEMU: apt-get install qemu-system-x86")
    store = LocalImageStore(tmp_path_factory.mktemp("images"))
    try:
        add_demo_images(store)
    except DriverError as error:
        require(False, f"needs the demo images: {error}")
    return store


@pytest.fixture
def sample(store: LocalImageStore) -> MicroVMSpec:
    return MicroVMSpec(
        vcpu=1,
        memory_in_mb=96,
        kernel=Kernel(image="demo/kernel"),
        initrd=Initrd(image="demo/initrd:1"),
        root_volume=Volume(container_source="demo/root:1"),
    )


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """Deeper than a unix socket's path may be. A process that still runs there in the end is killed, and a failure."""
    path = tmp_path / ("deep-" * 20) / "state"
    yield path
    left = process.scan(instance_mark(INSTANCE, path))
    for found in left:
        os.kill(found.pid, signal.SIGKILL)
    for pid in watchdogs_of(path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes are left: {left}"


@pytest.fixture
def new_driver(state_dir: Path, store: LocalImageStore) -> Callable[[], QemuDriver]:
    return lambda: QemuDriver(state_dir, store, INSTANCE, "tcg")


@pytest.fixture
async def driver(new_driver: Callable[[], QemuDriver]) -> AsyncIterator[QemuDriver]:
    driver = new_driver()
    await driver.start()
    yield driver
    for instance in await driver.list():
        if instance.uid is not None:
            await driver.destroy(instance.uid, grace_s=0)
    await driver.stop()


@pytest.fixture
def mark(state_dir: Path) -> str:
    return instance_mark(INSTANCE, state_dir)
