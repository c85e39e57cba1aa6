"""The distribution's own kernel, as this machine has it: its file, and its modules in the order they load.

Looks for the newest kernel meant for virtual machines in /boot first, then for any other. Modules are taken with their
dependencies from modules.dep and handed out uncompressed, because the guest's insmod reads nothing else.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.ports import DriverError

APT_COMMAND = "apt-get install linux-image-cloud-amd64 (Debian) or linux-image-virtual (Ubuntu)"
_FLAVOURS = ("cloud-amd64", "kvm", "virtual", "amd64", "generic", "")
_MAX_MODULE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class HostKernel:
    release: str
    """As `uname -r` would print it, such as `6.1.0-56-cloud-amd64`."""
    image: Path
    modules: Path
    """The folder that holds modules.dep."""

    @property
    def series(self) -> str:
        """Major and minor version, such as `6.1`."""
        match = re.match(r"\d+\.\d+", self.release)
        return match.group() if match else self.release

    @property
    def tag(self) -> str:
        """`release` as the tag of an image, which holds no `+`, as in `6.12.117+deb13-cloud-amd64`."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.release)


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    data: bytes


def find_kernel(boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> HostKernel:
    """The newest kernel of the best flavour that has its modules. Raises DriverError(`KernelMissing`)."""
    found = [
        HostKernel(release, image, modules / release)
        for image in boot.glob("vmlinuz-*")
        if (modules / (release := image.name.removeprefix("vmlinuz-")) / "modules.dep").is_file()
    ]
    for flavour in _FLAVOURS:
        matching = [kernel for kernel in found if kernel.release.endswith(flavour)]
        if matching:
            best = max(matching, key=lambda kernel: _version_key(kernel.release))
            _check_readable(best.image)
            return best
    raise DriverError(
        "KernelMissing",
        f"no kernel with its modules in {boot} and {modules}; install one: {APT_COMMAND}",
        retryable=False,
    )


def load_order(kernel: HostKernel, names: Sequence[str]) -> list[Module]:
    """`names` and what they need, each after what it needs; those built into the kernel are left out.

    Raises DriverError(`KernelModuleMissing`) for one that is neither a module nor built in.
    """
    needs = _dependencies(kernel)
    builtin = {_module_name(line) for line in (kernel.modules / "modules.builtin").read_text().splitlines()}
    paths = {_module_name(path): path for path in needs}
    ordered: dict[str, Module] = {}
    for name in names:
        if name in builtin:
            continue
        if name not in paths:
            raise DriverError(
                "KernelModuleMissing", f"kernel {kernel.release} has no module {name}; {APT_COMMAND}", retryable=False
            )
        # modules.dep lists what a module needs with the deepest last.
        for path in [*reversed(needs[paths[name]]), paths[name]]:
            ordered.setdefault(path, Module(_module_name(path), _read_module(kernel.modules / path)))
    return list(ordered.values())


def _dependencies(kernel: HostKernel) -> dict[str, list[str]]:
    needs: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    return needs


def _module_name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def _read_module(path: Path) -> bytes:
    match path.suffix:
        case ".ko":
            return path.read_bytes()
        case ".xz":
            return lzma.decompress(path.read_bytes())
        case ".zst":
            return _unzstd(path)
        case other:
            raise DriverError(
                "KernelModuleMissing", f"{path} is compressed as {other}, which is not supported", retryable=False
            )


def _unzstd(path: Path) -> bytes:
    try:
        done = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True, timeout=60)
    except FileNotFoundError as error:
        raise DriverError("KernelModuleMissing", f"{path} needs zstd: apt-get install zstd", retryable=False) from error
    except subprocess.SubprocessError as error:
        raise DriverError("KernelModuleMissing", f"zstd could not unpack {path}: {error}", retryable=False) from error
    return done.stdout[:_MAX_MODULE_BYTES]


def _version_key(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


def _check_readable(image: Path) -> None:
    try:
        with image.open("rb"):
            return
    except PermissionError as error:
        raise DriverError(
            "KernelUnreadable",
            f"{image} is readable by root only; run as root, or: sudo chmod a+r {image}",
            retryable=False,
        ) from error
