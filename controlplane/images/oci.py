"""From a container image to an image of the store: `skopeo` fetches, `umoci` unpacks, `mke2fs -d` makes the disk.

The unpacked tree becomes one ext4 file, the role `disk`. Kernels and initrds are found under `boot/`, which is where
Flintlock's kernel images keep them; an image that holds nothing else gets no disk.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from controlplane.images.ext4 import make_ext4
from controlplane.images.names import parse_reference
from controlplane.images.store import LocalImageStore, Manifest
from controlplane.ports import DriverError

TIMEOUT_S = 1800.0
DISK = "rootfs.ext4"
_KERNELS = ("vmlinux", "vmlinuz", "bzImage", "Image")
_INITRDS = ("initrd", "initramfs")
_SPARE_MB = 32


def import_image(
    store: LocalImageStore, source: str, *, image: str | None = None, size_in_mb: int | None = None
) -> Manifest:
    """Put a container image into `store`.

    source: `docker://HOST/NAME:TAG`, the same without `docker://`, or `oci:FOLDER:TAG` for a layout on disk.
    image: the name in the store; the source's own reference when there is none.
    size_in_mb: of the disk; what the tree needs and some room when there is none.
    Raises DriverError: `ToolMissing`, `ImagePullFailed`, `InvalidImage`, ...
    """
    transport, reference = _split(source)
    if image is None and transport == "oci":
        raise DriverError("InvalidImageReference", f"{source} needs a name in the store", retryable=False)
    name = str(parse_reference(image if image is not None else reference))
    with tempfile.TemporaryDirectory(prefix="flintlock-oci-") as folder:
        layout, bundle = Path(folder) / "layout", Path(folder) / "bundle"
        plain_http = transport == "docker" and _is_loopback(reference)
        tls = ["--src-tls-verify=false"] if plain_http else []
        target = f"oci:{layout}:image"
        separator = "//" if transport == "docker" else ""
        _run(["skopeo", "copy", "--quiet", *tls, f"{transport}:{separator}{reference}", target])
        rootless = [] if os.geteuid() == 0 else ["--rootless"]
        _run(["umoci", "unpack", *rootless, "--image", f"{layout}:image", str(bundle)])
        tree = bundle / "rootfs"
        files, roles = boot_files(tree)
        if not files or any(entry.name != "boot" for entry in tree.iterdir()):
            disk = Path(folder) / DISK
            make_ext4(disk, tree, size_in_mb=size_in_mb or _needed_mb(tree))
            files, roles = {**files, DISK: disk}, {**roles, "disk": DISK}
        return store.add(name, files, roles, source=source)


def boot_files(tree: Path) -> tuple[Mapping[str, Path], Mapping[str, str]]:
    """(files, roles) of the kernels and initrds under `boot/`; links may lead out of the tree and do not count."""
    boot = tree / "boot"
    if boot.is_symlink() or not boot.is_dir():
        return {}, {}
    found = {f"boot/{path.name}": path for path in sorted(boot.iterdir()) if path.is_file() and not path.is_symlink()}
    roles = {
        role: next((name for prefix in prefixes for name in found if name.startswith(f"boot/{prefix}")), None)
        for role, prefixes in (("kernel", _KERNELS), ("initrd", _INITRDS))
    }
    starts = tuple(f"boot/{prefix}" for prefix in (*_KERNELS, *_INITRDS))
    files = {name: path for name, path in found.items() if name.startswith(starts)}
    return files, {role: name for role, name in roles.items() if name is not None}


def _split(source: str) -> tuple[Literal["docker", "oci"], str]:
    if source.startswith("oci:"):
        return "oci", source.removeprefix("oci:")
    reference = source.removeprefix("docker://")
    parse_reference(reference)
    return "docker", reference


def _is_loopback(reference: str) -> bool:
    """A registry on this machine may speak plain HTTP; every other one must show a certificate."""
    host = reference.split("/", 1)[0].rpartition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _needed_mb(tree: Path) -> int:
    total = 0
    for folder, _, names in os.walk(tree):
        # Half a block per file is lost on average, and an inode is needed for each.
        total += sum(Path(folder, name).lstat().st_size + 4096 for name in names) + 4096
    return total * 5 // 4 // (1 << 20) + _SPARE_MB


def _run(command: Sequence[str]) -> None:
    if shutil.which(command[0]) is None:
        raise DriverError("ToolMissing", f"no {command[0]}; install it: apt-get install skopeo umoci", retryable=False)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DriverError("ImagePullFailed", f"{command[0]} took over {TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise DriverError("ImagePullFailed", f"{command[0]} {command[1]} failed: {said[-1][-1000:]}")
