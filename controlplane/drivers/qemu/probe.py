"""Can this host run guests under KVM? Decided by booting one.

/dev/kvm may be there, may even make a virtual machine, and guests still crawl or die (nested and para-virtualized
hosts). So a Linux kernel is booted under KVM until it panics for want of a root file system, which takes a fraction of
a second where KVM works; anything else within the deadline means TCG. The verdict is kept per boot of the host and per
QEMU version (docs/adr/0033).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from controlplane.model.types import DECODE_ERRORS

DEADLINE_S = 6.0
_PROOF = b"VFS: Unable to mount root fs"
_MEMORY_IN_MB = 128


class Verdict(msgspec.Struct, frozen=True):
    accelerator: str
    """`kvm` or `tcg`."""
    reason: str
    boot_id: str
    qemu_version: str


def find_kernel(boot: Path = Path("/boot")) -> Path | None:
    """Any readable kernel of this host; the newest one."""
    kernels = [path for path in boot.glob("vmlinuz-*") if os.access(path, os.R_OK)]
    return max(kernels, key=lambda path: path.stat().st_mtime, default=None)


async def decide(cache: Path, *, binary: str, qemu_version: str, boot_id: str, kernel: Path | None) -> Verdict:
    """The kept verdict when it is of this boot and this QEMU, else a new one. Blocks for at most DEADLINE_S."""
    kept = _kept(cache)
    if kept is not None and (kept.boot_id, kept.qemu_version) == (boot_id, qemu_version):
        return kept
    refusal = await _refusal(binary, kernel)
    accelerator = "kvm" if refusal is None else "tcg"
    verdict = Verdict(accelerator, refusal or "a kernel booted under KVM", boot_id, qemu_version)
    # Without a kernel nothing was tried: one that appears later is worth a try.
    if kernel is not None:
        temporary = cache.with_name(f".{cache.name}")
        temporary.write_bytes(msgspec.json.encode(verdict))
        temporary.rename(cache)
    return verdict


def _kept(cache: Path) -> Verdict | None:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Verdict)
    except (OSError, *DECODE_ERRORS):
        return None


async def _refusal(binary: str, kernel: Path | None) -> str | None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm is missing or not accessible"
    if kernel is None:
        return "no kernel to try KVM with (no readable /boot/vmlinuz-*); set the accelerator to kvm to use it untried"
    return await boot(binary, kernel, "kvm")


async def boot(binary: str, kernel: Path, accelerator: str, *, extra: Sequence[str] = ()) -> str | None:
    """Boot `kernel` until it looks for its root file system; None when it got there, else what happened instead."""
    with tempfile.TemporaryDirectory(prefix="flintlock-probe-") as folder:
        console = Path(folder) / "console"
        output = Path(folder) / "output"
        with output.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *_command(binary, kernel, accelerator, console, extra),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
            try:
                status = await asyncio.wait_for(process.wait(), DEADLINE_S)
            except TimeoutError:
                return f"a kernel did not boot under {accelerator} within {DEADLINE_S:.0f} s"
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if console.exists() and _PROOF in console.read_bytes():
            return None
        said = output.read_text(errors="replace").strip().splitlines() or ["nothing"]
        return f"a guest under {accelerator} ended with status {status}, QEMU said: {said[-1][:300]}"


def _command(binary: str, kernel: Path, accelerator: str, console: Path, extra: Sequence[str]) -> Sequence[str]:
    return [
        binary,
        "-machine", "microvm,acpi=on,pit=on",
        "-accel", accelerator,
        "-cpu", "host" if accelerator == "kvm" else "max",
        "-m", f"{_MEMORY_IN_MB}M",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-kernel", str(kernel),
        "-append", " ".join(("console=ttyS0 quiet panic=-1 root=/dev/none", *extra)),
        "-chardev", f"file,id=console,path={console}",
        "-serial", "chardev:console",
    ]  # fmt: skip
