"""What a local cluster may have left behind: microVM processes, tap devices, files of microVMs.

MicroVMs are meant to outlive their agents, so ending a cluster has to look for them. The QEMU driver marks each
process with `flintlock/HOST/CLUSTER/UID/...` in `-name`, and the cluster's id is random, so the mark alone says
whose it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from controlplane.cli.dev import processes
from controlplane.cli.dev.layout import Layout

_NET = Path("/sys/class/net")
_IFNAME = re.compile(r"\bifname=([A-Za-z0-9._-]+)")


def find(layout: Layout, *, taps: Iterable[str] = ()) -> list[str]:
    """A line per thing that is left, and per device of `taps` that still exists; none when nothing is."""
    found = [f"process {identity.pid}: {command[:100]}" for identity, command in vm_processes(layout)]
    found += [f"file {path}" for path in vm_files(layout)]
    found += [f"simulated microVM: {line}" for line in simulated_microvms(layout)]
    found += [f"tap {name}" for name in sorted(taps) if (_NET / name).exists()]
    return found


def vm_processes(layout: Layout) -> list[tuple[processes.ProcessId, str]]:
    """The QEMU processes that carry the mark of this cluster, by pid."""
    mark = re.compile(rf"flintlock/[^/ ]+/{re.escape(layout.plan.cluster_id)}/")
    marked = [entry for entry in processes.mentioning(f"/{layout.plan.cluster_id}/") if mark.search(entry[1])]
    return sorted(marked, key=lambda entry: entry[0].pid)


def vm_files(layout: Layout) -> list[Path]:
    """What the QEMU driver keeps per microVM."""
    found: list[Path] = []
    for host in layout.plan.hosts:
        for folder in ("vms", "trash"):
            root = layout.data(host.name) / "qemu" / folder
            found += sorted(root.iterdir()) if root.is_dir() else []
    return found


def simulated_microvms(layout: Layout) -> list[str]:
    """What the simulated driver still holds, as it prints it."""
    found: list[str] = []
    for host in layout.plan.hosts:
        state_dir = layout.data(host.name) / "simulated"
        if (state_dir / "simulated.db").is_file():
            found += simulated(state_dir, "list").splitlines()
    return found


def simulated(state_dir: Path, *arguments: str) -> str:
    """Run the simulated driver's tampering command; gives what it printed. Raises CalledProcessError."""
    command = [sys.executable, "-m", "controlplane.drivers.simulated", *arguments, "--state-dir", str(state_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


def vm_taps(layout: Layout) -> frozenset[str]:
    """The tap devices that this cluster's QEMU processes hold, as their command lines say."""
    return frozenset(name for _, command in vm_processes(layout) for name in _IFNAME.findall(command))


def destroy(layout: Layout) -> bool:
    """Kill the microVMs that are left and remove their taps; False when a process resists.

    Only what carries this cluster's mark is touched.
    """
    taps = vm_taps(layout)
    gone = processes.kill([identity for identity, _ in vm_processes(layout)])
    for name in taps:
        if (_NET / name).exists():
            subprocess.run(["ip", "tuntap", "del", "dev", name, "mode", "tap"], timeout=10, check=False)
    return gone
