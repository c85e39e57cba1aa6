"""Why a microVM is not running, from what the last run left behind.

QEMU itself writes each shutdown request with its reason to `events.log` (its trace event of that name), and to its
output which signal ended it, whether or not an agent is there to see it. A process that left neither was killed or
crashed.
"""

from __future__ import annotations

import re
from pathlib import Path

from controlplane.drivers.qemu.layout import Folder, Run
from controlplane.ports import LEASE_ENDED

_REQUEST = re.compile(rb"qemu_system_shutdown_request reason=(\d+)")
# QEMU's ShutdownCause (qapi/run-state.json), in its order.
_REASONS = {
    1: "hypervisor met an error of the host",
    2: "quit through the hypervisor's monitor",
    6: "guest powered off",
    7: "guest rebooted",
    8: "guest panicked",
}
_TERMINATED = re.compile(rb"terminating on signal (\d+)")
_TAIL_BYTES = 2000


def cause(folder: Folder, run: Run | None, *, boot_id: str) -> str:
    """One line for people. `boot_id` is the host's present one."""
    if run is None:
        return "not started"
    if run.stop_requested:
        return "stopped on request"
    if folder.lease_ended.exists():
        return LEASE_ENDED
    requests = _REQUEST.findall(_tail(folder.events))
    if requests and int(requests[-1]) in _REASONS:
        return _REASONS[int(requests[-1])]
    terminated = _TERMINATED.findall(_tail(folder.output))
    if terminated:
        return f"hypervisor was ended by signal {int(terminated[-1])}"
    if run.boot_id != boot_id:
        return "host restarted"
    if run.exit_status is not None and run.exit_status.startswith("signal"):
        return f"process exited ({run.exit_status})"
    if run.exit_status is not None:
        return f"process exited ({run.exit_status}): {complaint(folder)}"
    return "process is gone (killed or crashed)"


def complaint(folder: Folder) -> str:
    """The last line that QEMU wrote to its standard error."""
    lines = _tail(folder.output).decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "QEMU said nothing"


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
            return file.read(_TAIL_BYTES)
    except FileNotFoundError:
        return b""
