"""One microVM: its folder, its process, and the steps between what is and what should be.

Every step looks first and then does only what is missing, so a step that was interrupted anywhere is completed by
taking it again. The caller sees to it that only one step at a time is taken on one microVM.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from controlplane.drivers.common import not_found, restarts
from controlplane.drivers.qemu import command, console, exits, network, process, seed, volumes
from controlplane.drivers.qemu.boot import boot_files
from controlplane.drivers.qemu.describe import Seen, describe
from controlplane.drivers.qemu.fence import Fence
from controlplane.drivers.qemu.following import Following
from controlplane.drivers.qemu.layout import SEED, Folder, Run
from controlplane.drivers.qemu.leash import Leash, needs_lease
from controlplane.drivers.qemu.qmp import Monitor, MonitorError, Status
from controlplane.drivers.qemu.quarantine import Quarantine
from controlplane.drivers.qemu.tag import Tag
from controlplane.drivers.qemu.threads import to_the_end
from controlplane.drivers.qemu.watchdog import process_stat
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import PowerState
from controlplane.ports import LEASE_ENDED, DriverError, ImageStore, Instance, VMDefinition

START_TIMEOUT_S = 20.0
RESTART_GRACE_S = 10.0
"""How long a guest is asked to shut down before an update restarts it."""
_PRESS_AGAIN_S = 1.0
_TERMINATE_S = 1.0
_START_POLL_S = 0.01
_SETTLE_S = 2.0
_ENDING_S = 0.5
_HALTED_POLL_S = 0.2
"""How soon a question to QEMU is given up that was halted meanwhile."""
_MARK_POLLS = 50
_BOOT_S = 60.0
"""A guest that is not ready by then is looked at less often."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the microVMs of one driver share."""

    instance: str
    vms: Path
    trash: Path
    quarantine: Quarantine
    images: ImageStore
    facts: command.HostFacts
    boot_id: str
    wake: Callable[[], None]
    fence: Fence


class Guest:
    def __init__(self, site: Site, uid: str) -> None:
        self._site = site
        self.folder = Folder(site.vms, uid)
        self.uid = uid
        self._monitor = Monitor(self.folder.path, site.wake)
        self._following = Following(site.wake)
        self._leash = Leash(site.fence, site.vms, uid)
        self._ready: console.ReadyWatch | None = None

    # -- what is

    def find(self) -> process.Found | None:
        """The running process whose folder is ours."""
        return self.own(process.scan(self._site.instance))

    def own(self, found: list[process.Found]) -> process.Found | None:
        path = str(self.folder.path)
        return next((item for item in found if item.folder == path), None)

    def marked(self) -> list[process.Found]:
        """Every process marked with our uid, wherever it runs."""
        return [item for item in process.scan(self._site.instance) if item.tag is not None and item.tag.uid == self.uid]

    async def look(self, found: process.Found | None) -> Instance | None:
        """The microVM as it is; None when there is nothing of it in its folder. `found`: its process, from a scan."""
        definition = self.folder.definition()
        if definition is None:
            return None
        if found is None:
            found = await self._settle()
        power, status, cause = ObservedPower.STOPPED, None, None
        if found is not None:
            self.adopt(found)
            power, status, cause = await self._power(found)
        if found is None or not self._following.running:
            await self._await_mark(definition)
            self._note_end()
            found = None
            power, status = ObservedPower.STOPPED, None
            cause = exits.cause(self.folder, self.folder.run(), boot_id=self._site.boot_id)
        seen = Seen(found, power, status, cause, ready=found is not None and self.ready())
        return describe(self.folder, definition, self.folder.run(), seen, self._site.instance, self._site.facts)

    async def _settle(self) -> process.Found | None:
        """A process shows no mark for an instant while it starts and while it ends: wait for either to be over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SETTLE_S
        while self._following.running and loop.time() < deadline:
            found = self.find()
            if found is not None:
                return found
            await asyncio.sleep(_START_POLL_S)
        return None

    async def _await_mark(self, definition: VMDefinition) -> None:
        """When the lease is over and the process has just ended: give the watchdog time to say that it did it."""
        if self._following.handle is None or not self._leash.is_over(definition):
            return
        for _ in range(_MARK_POLLS):
            if self.folder.lease_ended.exists():
                return
            await asyncio.sleep(_START_POLL_S)

    async def _status(self, found: process.Found) -> Status | None:
        """What QEMU says; None when it is halted, for then it says nothing."""
        asking = asyncio.ensure_future(self._monitor.status())
        try:
            while not process.is_halted(found):
                await asyncio.wait({asking}, timeout=_HALTED_POLL_S)
                if asking.done():
                    return asking.result()
            return None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _power(self, found: process.Found) -> tuple[ObservedPower, Status | None, str | None]:
        try:
            status = await self._status(found)
        except MonitorError as error:
            # A process that is about to end closes its monitor first.
            handle = self._following.handle
            if handle is not None:
                await handle.wait(_ENDING_S)
            return ObservedPower.RUNNING, None, f"hypervisor does not answer: {error}"
        if status is None:
            why = LEASE_ENDED if self.folder.lease_ended.exists() else "hypervisor process is halted by a signal"
            return ObservedPower.PAUSED, None, why
        match status.run_state:
            case "running":
                return ObservedPower.RUNNING, status, None
            case "paused" | "prelaunch":
                return ObservedPower.PAUSED, status, None
            case other:
                return ObservedPower.PAUSED, status, f"hypervisor is in state {other}"

    def ready(self) -> bool:
        """Whether the guest said so since its last start; kept in the record once seen."""
        run = self.folder.run()
        if run is None:
            return False
        if self._ready is None:
            self._ready = console.ReadyWatch(self.folder.console, run.console_start)
            self._ready.seen = run.ready
        if self._ready.seen:
            return True
        if not self._ready.look():
            return False
        self.folder.save_run(msgspec.structs.replace(run, ready=True))
        return True

    # -- following the process

    def adopt(self, found: process.Found) -> None:
        """Follow a process that was found, to see its end at once."""
        self._following.adopt(found)

    def _note_end(self) -> None:
        """Write down how the process ended, when it has and we were its parent."""
        status = self._following.take_end()
        run = self.folder.run() if status is not None else None
        if run is not None and run.exit_status is None:
            self.folder.save_run(msgspec.structs.replace(run, exit_status=status))

    def tend(self) -> bool:
        """Bound the console, and look for the ready line; True while that is still expected soon."""
        if not self._following.running:
            return False
        console.trim(self.folder.console)
        if self._ready is not None and self._ready.seen:
            return False
        if self.ready():
            self._site.wake()
            return False
        return self._following.age_s < _BOOT_S

    async def close(self) -> None:
        """Let go of the process, which runs on."""
        await self._monitor.close()
        self._following.release()

    # -- what should be

    async def bring_into_effect(self, definition: VMDefinition) -> None:
        """Make the folder, the disks, the taps and the process match `definition`."""
        power = definition.spec.power_state
        if power is not PowerState.STOPPED:
            self._leash.require(definition)
        present = self.folder.definition()
        if present is not None and present.epoch < definition.epoch:
            # An older placement's copy: it lost its right to run, and what its ephemeral disks held with it.
            await self.stop(grace_s=0)
            await to_the_end(volumes.remove_ephemeral, self.folder.path, present.spec)
        elif present is not None:
            volumes.refuse_changes(present.spec, definition.spec)
        if present != definition or self.folder.sensitive() != definition.sensitive:
            self.folder.save_definition(definition)
        await to_the_end(volumes.make, self.folder.path, volumes.plan(definition.spec), self._site.images)
        await self._end_copies()
        if power is not PowerState.STOPPED and await self._must_restart(definition):
            await self.stop(grace_s=RESTART_GRACE_S)
        # The leash too: the generation is told after it is what it says, and until then the control plane reckons with
        # the more permissive of both.
        await self.set_power(power, grace_s=RESTART_GRACE_S)
        run = self.folder.run()
        if run is not None and run.definition != definition and self.find() is not None:
            self.folder.save_run(msgspec.structs.replace(run, definition=definition))

    async def _end_copies(self) -> None:
        """End processes with our mark that run elsewhere, such as in a folder that was deleted under them."""
        path = str(self.folder.path)
        for found in self.marked():
            if found.folder != path:
                await _end(found)

    async def _must_restart(self, definition: VMDefinition) -> bool:
        found = self.find()
        if found is None:
            return False
        run = self.folder.run()
        if run is None or found.tag is None or found.tag.epoch != definition.epoch:
            return True
        if restarts(run.definition.spec, definition.spec):
            return True
        self.adopt(found)
        _, status, _ = await self._power(found)
        wanted = (definition.spec.vcpu, definition.spec.memory_in_mb)
        return status is not None and (status.vcpu, status.memory_in_mb) != wanted

    async def set_power(self, power: PowerState, *, grace_s: float) -> None:
        if power is PowerState.STOPPED:
            await self.stop(grace_s=grace_s)
            return
        found = self.find()
        if found is None:
            await self.start(paused=power is PowerState.PAUSED)
            return
        handle = self._following.adopt(found)
        definition = self._defined()
        if power is PowerState.RUNNING or found.stopped:
            self._leash.require(definition)
        await self._leash.put_on(definition, found.key)
        if handle is not None and found.stopped:
            await self._leash.resume(found, handle)
        await (self._pause() if power is PowerState.PAUSED else self._go_on())

    async def _pause(self) -> None:
        try:
            await self._monitor.pause()
        except MonitorError as error:
            raise DriverError("HypervisorFailed", f"QEMU does not answer: {error}") from error

    async def _go_on(self) -> None:
        try:
            await self._monitor.resume()
        except MonitorError as error:
            raise DriverError("HypervisorFailed", f"QEMU does not answer: {error}") from error

    def _defined(self) -> VMDefinition:
        definition = self.folder.definition()
        if definition is None:
            raise not_found(self.uid)
        return definition

    async def start(self, *, paused: bool) -> None:
        """Start QEMU from the definition, and wait until it answers."""
        definition = self._defined()
        self._leash.require(definition)
        self._following.release()
        await self._monitor.close()
        lock_fd = process.lock(self.folder.lock)
        if lock_fd is None:
            raise DriverError("HypervisorStuck", "another QEMU process is still using the disks of this microVM")
        try:
            parts = await self._parts(definition)
            for stale in (command.QMP_SOCKET, command.OPERATOR_SOCKET):
                (self.folder.path / stale).unlink(missing_ok=True)
            halted = paused or needs_lease(definition)
            argv = command.build(definition.spec, self._tag(definition), parts, self._site.facts, paused=halted)
            self._ready = None
            self.folder.lease_ended.unlink(missing_ok=True)
            self.folder.save_run(
                Run(definition, self._site.boot_id, console.size(self.folder.console), self._site.facts.accelerator)
            )
            pid, pidfd = process.spawn(argv, folder=self.folder.path, lock_fd=lock_fd, output=self.folder.output)
        finally:
            process.unlock(lock_fd)
        self._following.begin(process.Handle(pidfd))
        await self._leash.put_on(definition, (pid, process_stat(pid)[1]))
        await self._await_monitor()
        if halted and not paused:
            await self._go_on()
        self._site.wake()

    async def _await_monitor(self) -> None:
        """Wait until QEMU answers. Raises DriverError(`HypervisorFailed`) with what it said when it ended instead."""
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            if not self._following.running:
                self._note_end()
                raise DriverError("HypervisorFailed", f"QEMU did not start: {exits.complaint(self.folder)}")
            if (self.folder.path / command.QMP_SOCKET).exists():
                try:
                    await self._monitor.execute("query-status")
                except MonitorError:
                    continue
                return
            await asyncio.sleep(_START_POLL_S)
        raise DriverError("HypervisorFailed", f"QEMU did not answer within {START_TIMEOUT_S:.0f} s of its start")

    async def _parts(self, definition: VMDefinition) -> command.Parts:
        """Make the taps and the seed, and resolve the images."""
        spec, site = definition.spec, self._site
        kernel, initrd = boot_files(spec, site.images)
        await network.make(self._tag(definition), spec.interfaces)
        nics = network.nics(site.instance, self.uid, spec.interfaces)
        sensitive = self.folder.sensitive()
        if missing := sorted(spec.sensitive_metadata.keys() - sensitive.keys()):
            raise DriverError("SecretMissing", f"{self.folder.path} lacks the sensitive metadata {missing[0]}")
        contents = seed.files(spec, uid=self.uid, name=definition.name, nics=nics) | dict(sensitive)
        self.folder.write(SEED, await asyncio.to_thread(seed.build, contents))
        disks = [command.Disk(item.name, item.file, item.volume.is_read_only) for item in volumes.plan(spec)]
        disks.append(command.Disk(seed.LABEL, SEED, read_only=True))
        return command.Parts(kernel, initrd, disks, nics, seed.network_config(spec, nics))

    def _tag(self, definition: VMDefinition) -> Tag:
        return Tag(
            self._site.instance,
            definition.cluster_id,
            self.uid,
            definition.epoch,
            definition.namespace,
            definition.name,
        )

    # -- the end

    async def stop(self, *, grace_s: float) -> None:
        """Ask the guest for `grace_s`, then QEMU, then the kernel; with no grace the kernel at once.

        Every process with our mark is gone afterwards.
        """
        run = self.folder.run()
        processes = self.marked()
        if not self._leash.may_go_on(processes):
            grace_s = 0  # to shut down it would have to run
        if run is not None and processes and not run.stop_requested:
            self.folder.save_run(msgspec.structs.replace(run, stop_requested=True))
        own = self.own(processes)
        handle = self._following.adopt(own) if own is not None and grace_s > 0 else None
        if own is not None and handle is not None:
            await self._ask(handle, own, grace_s)
        await self._monitor.close()
        for found in self.marked():
            await _end(found, gently=grace_s > 0)
        if self.folder.exists():
            self._note_end()
        self._site.wake()

    async def _ask(self, handle: process.Handle, found: process.Found, grace_s: float) -> None:
        """Press the power button until the process ends; a guest that is still booting misses the first press."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        try:
            if found.stopped:
                await self._leash.resume(found, handle)
            await self._monitor.resume()
            while (left := deadline - loop.time()) > 0:
                await self._monitor.press_power_button()
                if await handle.wait(min(left, _PRESS_AGAIN_S)):
                    return
        except (MonitorError, DriverError):
            # The connection breaks when QEMU ends; one that does not answer otherwise is not asked again.
            await handle.wait(min(_PRESS_AGAIN_S, grace_s))

    async def destroy(self, *, grace_s: float) -> None:
        """Leave nothing. What is gone already is no error."""
        await self.stop(grace_s=grace_s)
        await network.remove(self._site.instance, self.uid)
        if self.folder.exists():
            await self._await_unlocked()
            if not await to_the_end(self._site.quarantine.take, self.folder, int(time.time())):
                await to_the_end(self.folder.remove, self._site.trash)
        await self.close()

    async def _await_unlocked(self) -> None:
        """A process that was forked but has not become QEMU yet has no mark; it shows by the lock that it holds."""
        deadline = asyncio.get_running_loop().time() + process.KILL_TIMEOUT_S
        while (descriptor := process.lock(self.folder.lock)) is None:
            if asyncio.get_running_loop().time() > deadline:
                raise DriverError("HypervisorStuck", "a process is still using the disks of this microVM")
            for found in self.marked():
                await _end(found)
            await asyncio.sleep(_START_POLL_S)
        process.unlock(descriptor)


async def _end(found: process.Found, *, gently: bool = False) -> None:
    """SIGTERM lets QEMU finish what it writes, for a moment; SIGKILL does not ask."""
    handle = process.Handle.open(found)
    if handle is None:
        return
    try:
        if gently and not found.stopped:
            handle.send(signal.SIGTERM)
            if await handle.wait(_TERMINATE_S):
                return
        await handle.kill()
    finally:
        handle.close()
