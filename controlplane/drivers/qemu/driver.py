"""`ports.HostDriver` over QEMU: a lock per microVM, a look at all of them, and a watch that wakes the agent.

What exists is read from the folders under `STATE/vms` and from /proc each time; nothing is remembered that a restart of
the agent would lose. The agent's process may end at any time: microVMs run on in sessions of their own, and the next
driver on the same state folder finds them.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import platform
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal
from weakref import WeakValueDictionary

import structlog

from controlplane.drivers.common import not_found, stale_epoch, unsupported
from controlplane.drivers.qemu import command, console, host, leftovers, network, probe, process, volumes
from controlplane.drivers.qemu.boot import boot_files
from controlplane.drivers.qemu.describe import describe_stray
from controlplane.drivers.qemu.fence import Fence, Present
from controlplane.drivers.qemu.guest import Guest, Site
from controlplane.drivers.qemu.layout import Folder, sweep
from controlplane.drivers.qemu.leash import guards_of
from controlplane.drivers.qemu.quarantine import Quarantine
from controlplane.drivers.qemu.tag import is_part
from controlplane.drivers.qemu.threads import to_the_end
from controlplane.drivers.qemu.watch import Watch
from controlplane.model.spec import MicroVMSpec, PowerState
from controlplane.ports import DriverError, DriverInfo, ImageStore, Instance, Lease, Remains, VMDefinition

_log = structlog.get_logger(__name__)
_TIDY_S = 60.0
"""How often the quarantine is looked at."""


class QemuDriver:
    """A host's QEMU microVMs.

    state_dir: holds one folder per microVM; one driver at a time may use it.
    instance: the host's name for people, 1 to 64 letters, digits, `.`, `-` and `_`.
    accelerator: `auto` boots a guest once per start of the host to find out whether KVM is of use.
    probe_kernel: what `auto` boots; the newest readable kernel in /boot when there is none.
    keep_local_volumes_s: how long local volumes of destroyed microVMs stay in quarantine until a cluster says when they
    go; 0: not at all.
    """

    def __init__(
        self,
        state_dir: Path,
        images: ImageStore,
        instance: str,
        accelerator: Literal["auto", "kvm", "tcg"] = "auto",
        *,
        probe_kernel: Path | None = None,
        keep_local_volumes_s: int = 0,
    ) -> None:
        if not is_part(instance) or len(instance) > 64:
            raise ValueError(f"instance {instance!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
        self._state_dir = state_dir.absolute()
        self._images = images
        self._mark = instance_mark(instance, self._state_dir)
        self._accelerator = accelerator
        self._probe_kernel = probe_kernel
        self._quarantine = Quarantine(
            path=self._state_dir / "quarantine", trash=self._state_dir / "trash", keep_s=keep_local_volumes_s
        )
        self._tidying: asyncio.Task[None] | None = None
        self._site_now: Site | None = None
        self._own_lock: BinaryIO | None = None
        self._guests: dict[str, Guest] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Each lives as long as somebody holds it or waits for it."""
        self._watch = Watch(self._signature, self._boot_progress)
        self._fence = Fence(self._state_dir)

    @property
    def info(self) -> DriverInfo:
        facts = self._site_now.facts if self._site_now else None
        return DriverInfo(
            name="qemu",
            version=facts.version if facts else "",
            simulated=False,
            accelerator=facts.accelerator if facts else None,
            fences=True,
        )

    # -- life of the driver

    async def start(self) -> None:
        if self._site_now is not None:
            return
        if platform.machine() != "x86_64":
            raise DriverError(
                "Unsupported", f"the qemu driver runs on x86_64, not on {platform.machine()}", retryable=False
            )
        vms, trash = self._state_dir / "vms", self._state_dir / "trash"
        self._claim(vms)
        try:
            await asyncio.to_thread(sweep, trash)
            facts = await self._facts()
        except BaseException:
            self._release()
            raise
        self._site_now = Site(
            instance=self._mark,
            vms=vms.resolve(),
            trash=trash,
            quarantine=self._quarantine,
            images=self._images,
            facts=facts,
            boot_id=host.boot_id(),
            wake=self._watch.wake,
            fence=self._fence,
        )
        found = await asyncio.to_thread(process.scan, self._mark)
        await self._fence.start(guards_of(found, self._site.vms))
        for uid in self._uids():
            guest = self._guest(uid)
            own = guest.own(found)
            if own is not None:
                guest.adopt(own)
        self._watch.start()
        self._tidying = asyncio.create_task(self._tidy())

    async def _tidy(self) -> None:
        while True:
            try:
                await to_the_end(self._quarantine.tidy, int(time.time()))
            except OSError as error:
                _log.warning("quarantine.not_tidied", error=str(error))
            await asyncio.sleep(_TIDY_S)

    async def stop(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait({self._tidying})
            self._tidying = None
        await self._watch.stop()
        await self._fence.stop()
        for guest in self._guests.values():
            await guest.close()
        self._guests.clear()
        self._site_now = None
        self._release()

    def _claim(self, vms: Path) -> None:
        try:
            vms.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._state_dir / "driver.lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise DriverError("StateInUse", f"another agent is using {self._state_dir}") from error
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot use {self._state_dir}: {error}") from error
        self._own_lock = lock

    def _release(self) -> None:
        if self._own_lock is not None:
            # A child that a thread is just forking still has the descriptor: closing ours alone would not let go.
            fcntl.flock(self._own_lock, fcntl.LOCK_UN)
            self._own_lock.close()
            self._own_lock = None

    async def _facts(self) -> command.HostFacts:
        binary, version = await asyncio.to_thread(host.find_qemu)
        accelerator: str = self._accelerator
        if accelerator == "auto":
            verdict = await probe.decide(
                self._state_dir / "accelerator.json",
                binary=binary,
                qemu_version=version,
                boot_id=host.boot_id(),
                kernel=self._probe_kernel or probe.find_kernel(),
            )
            accelerator = verdict.accelerator
            _log.info("accelerator chosen", accelerator=accelerator, reason=verdict.reason)
        return command.HostFacts(binary, version, accelerator, host.tsc_khz())

    @property
    def _site(self) -> Site:
        if self._site_now is None:
            raise DriverError("NotStarted", "the qemu driver is not started")
        return self._site_now

    # -- what exists

    async def check(self, spec: MicroVMSpec) -> None:
        facts = self._site.facts
        if spec.provider not in (None, "qemu"):
            raise unsupported(f"this host's driver is qemu, not {spec.provider}", pointer="/spec/provider")
        kernel, initrd = boot_files(spec, self._images)
        planned = volumes.plan(spec)
        for item in planned:
            volumes.source_of(item, self._images)
        network.check(spec)
        if len(planned) + 1 + len(spec.interfaces) > command.MAX_DEVICES:
            raise unsupported(
                f"a microVM has at most {command.MAX_DEVICES} disks and interfaces, its seed included",
                pointer="/spec/additional_volumes",
            )
        command.kernel_cmdline(spec, command.Parts(kernel, initrd, (), (), ""), facts)

    async def list(self) -> Sequence[Instance]:
        found = await asyncio.to_thread(process.scan, self._site.instance)
        guests = [self._guest(uid) for uid in self._uids()]
        looks = await asyncio.gather(*(guest.look(guest.own(found)) for guest in guests))
        instances = [instance for instance in looks if instance is not None]
        known = {instance.uid for instance in instances}
        own = {item.pid for guest in guests if guest.uid in known and (item := guest.own(found)) is not None}
        return (*instances, *(describe_stray(item, known) for item in found if item.pid not in own))

    def _uids(self) -> list[str]:
        return sorted(entry.name for entry in self._site.vms.iterdir() if is_part(entry.name) and entry.is_dir())

    def _guest(self, uid: str) -> Guest:
        guest = self._guests.get(uid)
        if guest is None:
            guest = self._guests[uid] = Guest(self._site, uid)
        return guest

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    async def console(self, uid: str, *, offset: int, limit: int) -> tuple[int, bytes]:
        folder = Folder(self._site.vms, uid)
        if not folder.exists():
            raise not_found(uid)
        return await asyncio.to_thread(console.read, folder.console, offset=offset, limit=limit)

    def changes(self) -> AsyncIterator[None]:
        return self._watch.changes()

    # -- changes

    async def create(self, vm: VMDefinition) -> None:
        await self.check(vm.spec)
        async with self._lock(vm.uid):
            await self._put_in_effect(vm)

    async def update(self, vm: VMDefinition) -> None:
        await self.check(vm.spec)
        async with self._lock(vm.uid):
            if Folder(self._site.vms, vm.uid).definition() is None:
                raise not_found(vm.uid)
            await self._put_in_effect(vm)

    async def _put_in_effect(self, vm: VMDefinition) -> None:
        guest = self._guest(vm.uid)
        present = guest.folder.definition()
        if present is not None and present.epoch > vm.epoch:
            raise stale_epoch(vm.uid, held=present.epoch, asked=vm.epoch)
        await guest.bring_into_effect(vm)
        self._watch.wake()

    async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
        async with self._lock(uid):
            if Folder(self._site.vms, uid).definition() is None:
                raise not_found(uid)
            await self._guest(uid).set_power(power, grace_s=grace_s)
        self._watch.wake()

    async def destroy(self, uid: str, *, grace_s: float) -> None:
        async with self._lock(uid):
            guest = self._guest(uid)
            await guest.destroy(grace_s=grace_s)
            self._guests.pop(uid, None)
        self._watch.wake()

    async def definition(self, uid: str) -> VMDefinition | None:
        return await asyncio.to_thread(Folder(self._site.vms, uid).definition)

    async def leftovers(self, uid: str | None = None) -> Sequence[Remains]:
        if uid is None:
            return await asyncio.to_thread(leftovers.of_all, self._site)
        async with self._lock(uid):
            return await asyncio.to_thread(leftovers.of, self._site, uid)

    async def clear(self, name: str) -> None:
        site = self._site
        left = await asyncio.to_thread(leftovers.named, site, name)
        if left is None:
            return
        async with self._lock(left.uid or name):
            # Again under the lock: something may have been made of it meanwhile.
            if (left := await asyncio.to_thread(leftovers.named, site, name)) is not None:
                await leftovers.delete(site, left)
        self._watch.wake()

    async def keep_until_told(self) -> None:
        try:
            await asyncio.to_thread(self._quarantine.keep_until_told)
        except OSError as error:
            raise DriverError("StateUnavailable", f"cannot write in {self._state_dir}: {error.strerror}") from error

    # -- the lease

    async def renew(self, lease: Lease) -> None:
        site = self._site

        def look() -> Present:
            found = process.scan(site.instance)
            return Present([item.key for item in found], guards_of(found, site.vms))

        await self._fence.renew(lease, lambda: asyncio.to_thread(look))

    async def held(self) -> Lease | None:
        return await self._fence.held()

    # -- the watch

    def _signature(self) -> object:
        """Changes when a process came, went or was halted, or a folder came or went."""
        processes = [(item.pid, item.stopped) for item in process.scan(self._mark)]
        return processes, self._uids()

    def _boot_progress(self) -> bool:
        """True while a guest is on its way to its ready line."""
        booting = [guest.tend() for guest in self._guests.values()]
        return any(booting)


def instance_mark(instance: str, state_dir: Path) -> str:
    """What the processes and taps of one state folder are marked with, unique among all agents of the machine."""
    return f"{instance}-{hashlib.sha256(bytes(state_dir.resolve())).hexdigest()[:8]}"
