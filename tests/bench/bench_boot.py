"""Boot time to the guest's ready line through the driver beside bare QEMU in the same run, and memory per idle microVM.

    python tests/bench/bench_boot.py [--runs 5] [--vms 2] [--memory 96] [--json]

Bare QEMU is started by hand with the same kernel, initrd, disks and machine; both clocks stop when the ready line is in
the console file, looked at every millisecond. Driver and bare runs alternate, so that a busy machine slows both; the
processor time that QEMU needed until then is shown too, which other load changes little. KVM is measured only where the
driver's probe boots a guest under it. Memory is the proportional set size (PSS) of each QEMU process when its guest has
been ready and idle for two seconds, with `--vms` of them up at once.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from controlplane.drivers.qemu import QemuDriver, console, host, probe, seed
from controlplane.images.demo import add_demo_images
from controlplane.images.store import LocalImageStore
from controlplane.model.spec import Initrd, Kernel, MicroVMSpec, Volume
from controlplane.ports import VMDefinition

Accelerator = Literal["kvm", "tcg"]
DEADLINE_S = 120.0
IDLE_S = 2.0
INSTANCE = "bench-boot"


@dataclass(frozen=True)
class Boot:
    ready_s: float
    cpu_s: float
    """Processor time of QEMU until then."""
    create_s: float = 0.0


@dataclass(frozen=True)
class Figures:
    accelerator: str
    runs: int
    driver_s: float
    """Median, from the call of `create` to the ready line."""
    driver_worst_s: float
    bare_s: float
    """Median, from the start of the process to the ready line."""
    bare_worst_s: float
    driver_cpu_s: float
    """Median processor time of QEMU until the ready line."""
    bare_cpu_s: float
    create_call_s: float
    """Median of how long `create` itself takes: it returns when QEMU answers."""
    pss_mb: list[float]
    """Of each idle microVM."""


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"a guest was not ready within {DEADLINE_S} s")
        await asyncio.sleep(0.001)


def definition(number: int, memory_in_mb: int) -> VMDefinition:
    spec = MicroVMSpec(
        vcpu=1,
        memory_in_mb=memory_in_mb,
        kernel=Kernel(image="demo/kernel"),
        initrd=Initrd(image="demo/initrd:1"),
        root_volume=Volume(container_source="demo/root:1"),
    )
    return VMDefinition("bench", f"01BENCH{number:04d}", "bench", f"vm-{number}", 1, 1, {}, spec)


async def through_driver(driver: QemuDriver, state: Path, memory_in_mb: int, number: int) -> Boot:
    vm = definition(number, memory_in_mb)
    watch = console.ReadyWatch(state / "vms" / vm.uid / "console.log", 0)
    began = time.monotonic()
    await driver.create(vm)
    created = time.monotonic()
    await until(watch.look)
    ready = time.monotonic()
    cpu = cpu_s(int((await driver.list())[0].details["pid"]))
    await driver.destroy(vm.uid, grace_s=0)
    return Boot(ready - began, cpu, created - began)


async def bare(store: LocalImageStore, folder: Path, accelerator: Accelerator, memory_in_mb: int) -> Boot:
    """From the start of QEMU to the ready line, without any of our code around it."""
    shutil.copyfile(store.resolve("demo/root:1", None, role="disk"), folder / "root.raw")
    (folder / "seed.iso").write_bytes(seed.build({"meta-data": "instance-id: bare\nlocal-hostname: bare\n"}))
    khz = host.tsc_khz()
    clock = f"tsc_early_khz={khz} lpj={4 * khz} cryptomgr.notests " if accelerator == "tcg" else ""
    argv = [
        host.BINARY, "-machine", "microvm,acpi=on,pit=on",
        "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max",
        "-m", f"{memory_in_mb}M", "-smp", "1", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-kernel", str(store.resolve("demo/kernel", None, role="kernel")),
        "-initrd", str(store.resolve("demo/initrd:1", None, role="initrd")),
        "-append", f"console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check {clock}root=/dev/vda rw",
        "-chardev", "file,id=console,path=console.log", "-serial", "chardev:console",
        "-drive", "if=none,id=root,file=root.raw,format=raw", "-device", "virtio-blk-device,drive=root",
        "-drive", "if=none,id=seed,file=seed.iso,format=raw,readonly=on", "-device", "virtio-blk-device,drive=seed",
    ]  # fmt: skip
    watch = console.ReadyWatch(folder / "console.log", 0)
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*argv, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        await until(watch.look)
        return Boot(time.monotonic() - began, cpu_s(process.pid))
    finally:
        process.kill()
        await process.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


async def idle_memory(driver: QemuDriver, vms: int, memory_in_mb: int) -> list[float]:
    numbers = range(1000, 1000 + vms)
    for number in numbers:
        await driver.create(definition(number, memory_in_mb))
    deadline = time.monotonic() + DEADLINE_S
    while not all(instance.ready for instance in await driver.list()):
        if time.monotonic() > deadline:
            raise TimeoutError("the idle microVMs were not ready in time")
        await asyncio.sleep(0.1)
    await asyncio.sleep(IDLE_S)
    figures = [pss_mb(int(instance.details["pid"])) for instance in await driver.list()]
    for number in numbers:
        await driver.destroy(definition(number, memory_in_mb).uid, grace_s=0)
    return figures


async def measure(
    store: LocalImageStore, folder: Path, accelerator: Accelerator, options: argparse.Namespace
) -> Figures:
    state = folder / accelerator
    driver = QemuDriver(state, store, INSTANCE, accelerator)
    await driver.start()
    try:
        ours: list[Boot] = []
        theirs: list[Boot] = []
        for run in range(options.runs):
            ours.append(await through_driver(driver, state, options.memory, run))
            with TemporaryDirectory(dir=folder) as name:
                theirs.append(await bare(store, Path(name), accelerator, options.memory))
        idle = await idle_memory(driver, options.vms, options.memory)
    finally:
        for instance in await driver.list():
            if instance.uid is not None:
                await driver.destroy(instance.uid, grace_s=0)
        await driver.stop()
    return Figures(
        accelerator=accelerator,
        runs=options.runs,
        driver_s=statistics.median(boot.ready_s for boot in ours),
        driver_worst_s=max(boot.ready_s for boot in ours),
        bare_s=statistics.median(boot.ready_s for boot in theirs),
        bare_worst_s=max(boot.ready_s for boot in theirs),
        driver_cpu_s=statistics.median(boot.cpu_s for boot in ours),
        bare_cpu_s=statistics.median(boot.cpu_s for boot in theirs),
        create_call_s=statistics.median(boot.create_s for boot in ours),
        pss_mb=idle,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="boots of each kind")
    parser.add_argument("--vms", type=int, default=2, help="idle microVMs whose memory is measured")
    parser.add_argument("--memory", type=int, default=96, help="MiB per microVM")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="flintlock-bench-") as name:
        folder = Path(name)
        store = LocalImageStore(folder / "images")
        add_demo_images(store)
        binary, version = host.find_qemu()
        kernel = store.resolve("demo/kernel", None, role="kernel")
        verdict = await probe.decide(
            folder / "probe", binary=binary, qemu_version=version, boot_id=host.boot_id(), kernel=kernel
        )
        accelerators: list[Accelerator] = ["tcg", "kvm"] if verdict.accelerator == "kvm" else ["tcg"]
        figures = [await measure(store, folder, accelerator, options) for accelerator in accelerators]
    result = {
        "qemu": version,
        "memory_in_mb": options.memory,
        "kvm": "available" if verdict.accelerator == "kvm" else f"unavailable: {verdict.reason}",
        "figures": [asdict(figure) for figure in figures],
    }
    if not options.json:
        show(result, figures)
    print(json.dumps(result))


def show(result: dict[str, object], figures: list[Figures]) -> None:
    print(f"QEMU {result['qemu']}, {result['memory_in_mb']} MiB, 1 vCPU; KVM {result['kvm']}\n")
    print(f"{'':6}{'driver':>18}{'bare QEMU':>18}{'CPU':>16}{'create call':>14}{'PSS per idle VM':>18}")
    for figure in figures:
        driver = f"{figure.driver_s:.2f} s (<{figure.driver_worst_s:.2f})"
        bare_qemu = f"{figure.bare_s:.2f} s (<{figure.bare_worst_s:.2f})"
        cpu = f"{figure.driver_cpu_s:.2f} / {figure.bare_cpu_s:.2f} s"
        create = f"{figure.create_call_s * 1000:.0f} ms"
        pss = f"{statistics.mean(figure.pss_mb):.0f} MiB x {len(figure.pss_mb)}"
        print(f"{figure.accelerator:6}{driver:>18}{bare_qemu:>18}{cpu:>16}{create:>14}{pss:>18}")
    print()


if __name__ == "__main__":
    if shutil.which(host.BINARY) is None:
        sys.exit(f"needs {host.BINARY}: apt-get install qemu-system-x86")
    asyncio.run(main())
