"""Facts about this host that QEMU's command line and the records depend on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from controlplane.ports import DriverError

BINARY = "qemu-system-x86_64"
_FALLBACK_KHZ = 1_000_000


def find_qemu() -> tuple[str, str]:
    """(path, version). Raises DriverError(`HypervisorMissing`)."""
    path = shutil.which(BINARY)
    if path is None:
        raise DriverError(
            "HypervisorMissing",
            f"no {BINARY} on the PATH; install it: apt-get install qemu-system-x86",
            retryable=False,
        )
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise DriverError("HypervisorMissing", f"{path} does not run: {error}", retryable=False) from error
    match = re.search(r"version (\S+)", done.stdout)
    return path, match.group(1) if match else "unknown"


def boot_id() -> str:
    """Changes with every start of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def tsc_khz(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """The processor's clock in kHz, which a guest under TCG is told instead of measuring it."""
    match = re.search(r"^cpu MHz\s*:\s*(\d+)\.(\d{3})", cpuinfo.read_text(), re.MULTILINE)
    return int(match.group(1)) * 1000 + int(match.group(2)) if match else _FALLBACK_KHZ
