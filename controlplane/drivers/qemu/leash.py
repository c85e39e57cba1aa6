"""What a microVM's definition means to the fence: whether it needs a lease, and how its process is guarded.

A guest that may run only under the host's lease (`on_detach` other than `keep`) is started halted (`-S`) and told to go
on after the watchdog guards it, so no interruption leaves it running unguarded. Once it is guarded, only the watchdog
sends it SIGCONT: nobody else knows in that instant whether it may.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from controlplane.drivers.qemu.fence import Fence, Guarded
from controlplane.drivers.qemu.layout import Folder
from controlplane.drivers.qemu.process import Found, Handle
from controlplane.drivers.qemu.tag import is_part
from controlplane.drivers.qemu.watchdog import Key
from controlplane.model.spec import OnDetach, detach_action
from controlplane.ports import DriverError, VMDefinition

_log = structlog.get_logger(__name__)


def needs_lease(definition: VMDefinition) -> bool:
    return detach_action(definition.spec) is not OnDetach.KEEP


def guards_of(found: Iterable[Found], vms: Path) -> list[Guarded]:
    """What of all that runs needs a lease. Where it cannot be told, it does: not knowing is no right to run."""
    guards = [_guard_of(item, vms) for item in found]
    return [guard for guard in guards if guard is not None]


def _guard_of(item: Found, vms: Path) -> Guarded | None:
    uid = Path(item.folder).name
    if not is_part(uid) or item.folder != str(vms / uid):
        return Guarded(uid, item.pid, item.start, "pause", None)
    try:
        definition = Folder(vms, uid).definition()
    except DriverError as error:
        _log.warning("a running guest's definition cannot be read", uid=uid, error=error.message)
        definition = None
    if definition is None:
        return Guarded(uid, item.pid, item.start, "pause", _folder(vms, uid))
    return _guarded(definition, item.key, vms)


def _guarded(definition: VMDefinition, key: Key, vms: Path) -> Guarded | None:
    if not needs_lease(definition):
        return None
    # `shutdown` is the agent's to ask for, while there is a lease; what is left at its end is killed.
    action = "pause" if detach_action(definition.spec) is OnDetach.PAUSE else "stop"
    return Guarded(definition.uid, *key, action, _folder(vms, definition.uid))


def _folder(vms: Path, uid: str) -> str:
    return f"{vms.name}/{uid}"


class Leash:
    """Of one microVM. Calls raise DriverError(`NoLease`) or DriverError(`FenceUnavailable`)."""

    def __init__(self, fence: Fence, vms: Path, uid: str) -> None:
        self._fence = fence
        self._vms = vms
        self._uid = uid

    def require(self, definition: VMDefinition) -> None:
        """Refuse when `definition` may not be started or let go on now."""
        if needs_lease(definition):
            self._fence.require(self._uid)

    def is_over(self, definition: VMDefinition) -> bool:
        return needs_lease(definition) and not self._fence.live()

    def may_go_on(self, processes: Sequence[Found]) -> bool:
        """Whether none of them would have to be kept from running."""
        return self._fence.live() or not any(self._fence.guards(item.key) for item in processes)

    async def put_on(self, definition: VMDefinition, key: Key) -> None:
        """Have the watchdog do with the process as `definition` says: guard it, or let it be."""
        guarded = _guarded(definition, key, self._vms)
        if guarded is not None:
            await self._fence.guard(guarded)
        elif self._fence.guards(key):
            await self._fence.release(key)

    async def resume(self, found: Found, handle: Handle) -> None:
        """Let a process go on that was halted by a signal."""
        if self._fence.guards(found.key):
            await self._fence.resume(found.key)
        else:
            handle.send(signal.SIGCONT)
