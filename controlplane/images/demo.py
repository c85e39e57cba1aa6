"""The demo images, built from what the machine's distribution has: `demo/kernel`, `demo/initrd` and `demo/root`.

The kernel is the distribution's own; the initrd is a static busybox, the few modules that a microVM needs and
`guest/init.sh`; the root volume is a small ext4 file system. Building twice from the same packages gives the same
bytes, so filling a store again changes nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from controlplane.images import cpio
from controlplane.images.ext4 import make_ext4
from controlplane.images.kernel import HostKernel, Module, find_kernel, load_order
from controlplane.images.store import LocalImageStore, Manifest
from controlplane.ports import DriverError

INITRD_IMAGE = "demo/initrd:1"
ROOT_IMAGE = "demo/root:1"
MODULES = (
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "button",
    "evdev",
    "ext4",
    "isofs",
    "nls_iso8859_1",
)
_ROOT_SIZE_MB = 8
_FIXED_UUID = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f1"


@dataclass(frozen=True, slots=True)
class DemoImages:
    kernel: Manifest
    initrd: Manifest
    root: Manifest


def add_demo_images(store: LocalImageStore) -> DemoImages:
    """Build the demo images and put them into `store`.

    `demo/kernel` gets the tags `latest`, its series (such as `6.1`) and its whole version; `demo/initrd` `1` and the
    kernel's version, whose modules it holds.

    Raises DriverError (`KernelMissing`, `BusyboxMissing`, `Mke2fsMissing`, ...) with the apt command that helps.
    """
    kernel = find_kernel()
    source = f"built from {kernel.image} and busybox-static of this host"
    with tempfile.TemporaryDirectory(prefix="flintlock-images-") as folder:
        initrd = Path(folder) / "initrd"
        initrd.write_bytes(build_initrd(kernel))
        root = Path(folder) / "root.ext4"
        build_root(root)
        version = kernel.tag
        store.add("demo/kernel", {"vmlinuz": kernel.image}, {"kernel": "vmlinuz"}, source=source)
        store.add(f"demo/kernel:{version}", {"vmlinuz": kernel.image}, {"kernel": "vmlinuz"}, source=source)
        store.add(f"demo/initrd:{version}", {"initrd": initrd}, {"initrd": "initrd"}, source=source)
        return DemoImages(
            kernel=store.add(
                f"demo/kernel:{kernel.series}", {"vmlinuz": kernel.image}, {"kernel": "vmlinuz"}, source=source
            ),
            initrd=store.add(INITRD_IMAGE, {"initrd": initrd}, {"initrd": "initrd"}, source=source),
            root=store.add(ROOT_IMAGE, {"root.ext4": root}, {"disk": "root.ext4"}, source=source),
        )


def build_initrd(kernel: HostKernel) -> bytes:
    """An uncompressed cpio archive: the guest is up sooner than if it had to unpack one."""
    return cpio.archive(_initrd_entries(_busybox(), load_order(kernel, MODULES)))


def _initrd_entries(busybox: bytes, modules: Sequence[Module]) -> list[cpio.Entry]:
    init = resources.files("controlplane.images").joinpath("guest/init.sh").read_bytes()
    return [
        *(cpio.directory(name) for name in ("bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "modules")),
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.symlink("bin/sh", "busybox"),
        cpio.file("init", init, 0o755),
        # busybox acpid runs this file when the power button is pressed.
        cpio.file("etc/acpi/PWRF/00000080", b"#!/bin/sh\necho 'init: power button'\numount /mnt\npoweroff -f\n", 0o755),
        *(cpio.file(f"modules/{module.name}.ko", module.data) for module in modules),
        cpio.file("modules/order", "".join(f"{module.name}\n" for module in modules).encode()),
    ]


def _busybox() -> bytes:
    path = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    data = Path(path).read_bytes() if path else b""
    # A dynamically linked busybox names its loader, and would need a C library inside the guest.
    if not data or b"/lib64/ld-linux" in data:
        raise DriverError(
            "BusyboxMissing", "no static busybox; install it: apt-get install busybox-static", retryable=False
        )
    return data


def build_root(target: Path, size_in_mb: int = _ROOT_SIZE_MB) -> None:
    """A small empty ext4 file system with a fixed identity."""
    make_ext4(target, None, size_in_mb=size_in_mb, uuid=_FIXED_UUID)
