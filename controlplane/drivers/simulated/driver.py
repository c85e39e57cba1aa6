"""`ports.HostDriver` over rows: thousands of microVMs per host, many hosts per process.

Every call is one transaction, so there is no half-made microVM to complete. What `list` answers is kept in memory and
renewed row by row on own changes, entirely when another process changed the file (SQLite's `data_version`) or the
host's lease ends, and when a boot comes due; so listing an idle host costs nothing however many microVMs it has.

Every row is read as the lease leaves it (`lease.under`), and so is every row that an order starts from.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from controlplane.drivers.common import no_lease, not_found, restarts, stale_epoch
from controlplane.drivers.simulated import lease as leases
from controlplane.drivers.simulated import power as steps
from controlplane.drivers.simulated.store import DRIVER, HeldLease, Row, Store
from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Interface, MicroVMSpec, OnDetach, PowerState, detach_action
from controlplane.ports import DriverError, DriverInfo, Instance, InterfaceStatus, Lease, Remains, VMDefinition

VERSION = "1"
POLL_S = 0.2
"""How soon a change made by another process is noticed."""

_definitions = msgspec.json.Decoder(VMDefinition)
_interfaces = msgspec.json.Decoder(dict[str, tuple[str, str]])


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def moment(now_ms: Callable[[], int] = _wall_ms, boottime_s: Callable[[], float] = _boottime_s) -> leases.Moment:
    return leases.Moment(now_ms(), boottime_s(), Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def _images_of(spec: MicroVMSpec) -> Iterable[tuple[str, str]]:
    """Every image that a spec names, with the pointer to it."""
    yield "/spec/kernel/image", spec.kernel.image
    if spec.initrd:
        yield "/spec/initrd/image", spec.initrd.image
    volumes = {"/spec/root_volume": spec.root_volume} if spec.root_volume else {}
    volumes |= {f"/spec/additional_volumes/{key}": volume for key, volume in spec.additional_volumes.items()}
    for pointer, volume in volumes.items():
        if volume.container_source:
            yield f"{pointer}/container_source", volume.container_source


def _interface_facts(uid: str, interfaces: dict[str, Interface]) -> bytes:
    """Stable device names and addresses, as a real host would give them."""
    facts: dict[str, tuple[str, str]] = {}
    for device, interface in interfaces.items():
        digest = hashlib.sha256(f"{uid}/{device}".encode()).hexdigest()
        mac = ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])
        facts[device] = (f"sim{digest[:8]}", interface.guest_mac or mac)
    return msgspec.json.encode(facts)


class SimulatedDriver:
    """A host whose microVMs are rows under `state_dir`.

    images: image references that this host has; None means every one.
    boot_s: seconds from a start until the guest is ready.
    now_ms: wall clock in milliseconds. boottime_s: CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        images: frozenset[str] | None = None,
        boot_s: float = 0.0,
        poll_s: float = POLL_S,
        now_ms: Callable[[], int] = _wall_ms,
        boottime_s: Callable[[], float] = _boottime_s,
    ) -> None:
        self._state_dir = state_dir
        self._images = images
        self._boot_ms = round(boot_s * 1000)
        self._poll_s = poll_s
        self._now_ms = now_ms
        self._boottime_s = boottime_s
        self._boot_id = moment().boot_id
        self._held: HeldLease | None = None
        self._refresh_at_s = 0.0
        """CLOCK_BOOTTIME at which the lease makes something else of the rows; 0: not by time."""
        self._open_store: Store | None = None
        self._foreign_version = -1
        self._seen: dict[str, Instance] = {}
        """By native id; what `list` answers."""
        self._booting: dict[str, Row] = {}
        """Rows that become ready later, by native id."""
        self._watchers: set[asyncio.Event] = set()

    @property
    def info(self) -> DriverInfo:
        return DriverInfo(name=DRIVER, version=VERSION, simulated=True, accelerator=None, fences=True)

    # -- life of the driver

    async def start(self) -> None:
        if self._open_store is None:
            self._open_store = Store(self._state_dir)
            self._refresh()

    async def stop(self) -> None:
        if self._open_store is not None:
            self._open_store.close()
            self._open_store = None
        self._foreign_version = -1

    @property
    def _store(self) -> Store:
        if self._open_store is None:
            raise DriverError("NotStarted", "the simulated driver is not started")
        return self._open_store

    # -- what exists

    async def check(self, spec: MicroVMSpec) -> None:
        self._fail_if_told("check", "*")
        self._check_images(spec)

    def _check_images(self, spec: MicroVMSpec) -> None:
        if self._images is None:
            return
        for pointer, image in _images_of(spec):
            if image not in self._images:
                have = ", ".join(sorted(self._images)) or "none"
                raise DriverError("ImageNotFound", f"no image {image} on this host (it has: {have})", pointer=pointer)

    async def list(self) -> Sequence[Instance]:
        self._fail_if_told("list", "*")
        self._refresh()
        return tuple(self._seen.values())

    async def console(self, uid: str, *, offset: int, limit: int) -> tuple[int, bytes]:
        row = self._existing(uid)
        first, data = self._store.console(row.native_id, now_ms=self._console_ms(row))
        end = first + len(data)
        begin = min(max(offset if offset >= 0 else end + offset, first), end)
        chunk = data[begin - first : begin - first + max(limit, 0)]
        return begin + len(chunk), chunk

    async def changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._next_look_s()):
                        await event.wait()
                except TimeoutError:
                    self._refresh()
                if event.is_set():
                    event.clear()
                    yield None
        finally:
            self._watchers.discard(event)

    def _console_ms(self, row: Row) -> int:
        """Until when the guest can have said something: one that the lease halted says nothing more."""
        now, held = self._moment(), self._held
        if held is None or row.power is ObservedPower.STOPPED or leases.under(row, held, now).row == row:
            return now.wall_ms
        return now.wall_ms - round(max(now.boottime_s - held.ends_s, 0.0) * 1000)

    def _next_look_s(self) -> float:
        due = [row.ready_at_ms - self._now_ms() for row in self._booting.values() if row.ready_at_ms is not None]
        look_s = min(self._poll_s, max(min(due) / 1000, 0.001)) if due else self._poll_s
        return look_s if not self._refresh_at_s else min(look_s, max(self._refresh_at_s - self._boottime_s(), 0.001))

    def _moment(self) -> leases.Moment:
        return leases.Moment(self._now_ms(), self._boottime_s(), self._boot_id)

    def _refresh(self) -> None:
        """Take in what other processes and the clock have changed."""
        now_ms = self._now_ms()
        version = self._store.foreign_version()
        elsewhere = version != self._foreign_version
        if elsewhere or (self._refresh_at_s and self._boottime_s() >= self._refresh_at_s):
            elsewhere = True
            self._foreign_version = version
            rows = self._store.all()
            self._take_lease(self._store.lease())
            self._seen.clear()
            self._booting.clear()
        else:
            rows = [row for row in self._booting.values() if steps.is_ready(row, now_ms)]
        for row in rows:
            self._remember(row, now_ms)
        if rows or elsewhere:
            self._wake()

    def _take_lease(self, held: HeldLease | None) -> None:
        self._held = held
        now = self._moment()
        next_s = leases.next_change_s(held, now)
        self._refresh_at_s = now.boottime_s + next_s if next_s is not None else 0.0

    def _remember(self, row: Row, now_ms: int) -> None:
        row = leases.under(row, self._held, self._moment()).row
        ready = steps.is_ready(row, now_ms)
        if row.ready_at_ms is not None and not ready:
            self._booting[row.native_id] = row
        else:
            self._booting.pop(row.native_id, None)
        interfaces = _interfaces.decode(row.interfaces)
        self._seen[row.native_id] = Instance(
            uid=row.uid,
            native_id=row.native_id,
            cluster_id=row.cluster_id,
            namespace=row.namespace,
            name=row.name,
            epoch=row.epoch,
            generation=row.generation,
            power=row.power,
            ready=ready,
            vcpu=row.vcpu,
            memory_in_mb=row.memory_in_mb,
            cause=row.cause,
            details={"hypervisor": "none (simulated)"},
            interfaces={key: InterfaceStatus(device, mac) for key, (device, mac) in interfaces.items()},
        )

    def _wake(self) -> None:
        for event in self._watchers:
            event.set()

    def _existing(self, uid: str) -> Row:
        row = self._store.get(uid)
        if row is None:
            raise not_found(uid)
        return row

    def _fail_if_told(self, call: str, uid: str) -> None:
        fault = self._store.take_fault(call, uid)
        if fault is not None:
            raise DriverError(fault.code, fault.message, pointer=fault.pointer, retryable=bool(fault.retryable))

    # -- the lease

    async def renew(self, lease: Lease) -> None:
        self._fail_if_told("renew", "*")
        with self._store.transaction():
            held, now = self._store.lease(), self._moment()
            ended = not leases.is_live(held, now)
            for row in self._store.all() if ended else ():
                if (step := leases.resumed(row, held, now)) is not None:
                    self._store.put(self._take(step))
            known_ends_s = held.ends_s if held is not None and held.boot_id == self._boot_id else 0.0
            if lease.ends_s >= known_ends_s:
                held = HeldLease(self._boot_id, lease.ends_s, lease.grace_s, lease.ttl_s)
                self._store.put_lease(held)
        self._take_lease(held)
        if ended:  # what was halted or ended is another than before
            for row in self._store.all():
                self._remember(row, now.wall_ms)
            self._wake()

    async def held(self) -> Lease | None:
        held = self._store.lease()
        if held is None or not leases.is_live(held, self._moment()):
            return None
        return Lease(ends_s=held.ends_s, grace_s=held.grace_s, ttl_s=held.ttl_s)

    def _require_lease(self, uid: str, spec: MicroVMSpec, power: PowerState) -> None:
        """Raises DriverError(`NoLease`) when nothing may be started or resumed."""
        if power is PowerState.STOPPED or detach_action(spec) is OnDetach.KEEP:
            return
        if not leases.is_live(self._store.lease(), self._moment()):
            raise no_lease(uid)

    def _as_left(self, row: Row) -> Row:
        """The row as the lease leaves it, for an order that is to start from there."""
        return leases.under(row, self._store.lease(), self._moment()).row

    # -- changes

    async def create(self, vm: VMDefinition) -> None:
        self._fail_if_told("create", vm.uid)
        self._put_in_effect(vm, may_create=True)

    async def update(self, vm: VMDefinition) -> None:
        self._fail_if_told("update", vm.uid)
        self._put_in_effect(vm, may_create=False)

    def _put_in_effect(self, vm: VMDefinition, *, may_create: bool) -> None:
        """Make the row of `vm` match it, booting again when its configuration differs from what is there."""
        with self._store.transaction():
            stored = self._store.get(vm.uid)
            if stored is None and not may_create:
                raise not_found(vm.uid)
            present = self._as_left(stored) if stored is not None else None
            if present is not None and (present.epoch or 0) > vm.epoch:
                raise stale_epoch(vm.uid, held=present.epoch or 0, asked=vm.epoch)
            self._check_images(vm.spec)
            self._require_lease(vm.uid, vm.spec, vm.spec.power_state)
            same_placement = present is not None and present.epoch == vm.epoch
            row = self._describe(vm, present if same_placement else None)
            restart = present is None or self._must_restart(present, vm)
            if restart and vm.spec.power_state is not PowerState.STOPPED:
                row = self._take(steps.boot(row, now_ms=self._now_ms(), boot_ms=self._boot_ms))
            row = self._bring(row, vm.spec.power_state)
            if row != stored:
                self._store.put(row)
        if row != stored:
            self._changed(row)

    def _must_restart(self, row: Row, vm: VMDefinition) -> bool:
        if row.epoch != vm.epoch or row.definition is None:
            return True
        actual = (row.vcpu, row.memory_in_mb)
        wanted = (vm.spec.vcpu, vm.spec.memory_in_mb)
        return actual != wanted or restarts(_definitions.decode(row.definition).spec, vm.spec)

    def _describe(self, vm: VMDefinition, present: Row | None) -> Row:
        """The row as `vm` describes it, in the power state of `present`, or stopped when there is none."""
        described = Row(
            native_id=vm.uid,
            uid=vm.uid,
            cluster_id=vm.cluster_id,
            namespace=vm.namespace,
            name=vm.name,
            epoch=vm.epoch,
            generation=vm.generation,
            power=ObservedPower.STOPPED,
            vcpu=vm.spec.vcpu,
            memory_in_mb=vm.spec.memory_in_mb,
            interfaces=_interface_facts(vm.uid, vm.spec.interfaces),
            definition=msgspec.json.encode(vm.public()),
        )
        if present is None:
            return described
        return replace(
            described,
            power=present.power,
            cause=present.cause,
            ready_at_ms=present.ready_at_ms,
            boot_left_ms=present.boot_left_ms,
        )

    def _bring(self, row: Row, power: PowerState) -> Row:
        """Take the steps from the row's power state to `power`."""
        now_ms = self._now_ms()
        if power is PowerState.STOPPED:
            if row.power is not ObservedPower.STOPPED:
                row = self._take(steps.halt(row, "stopped on request", now_ms=now_ms))
            return row
        if row.power is ObservedPower.STOPPED:
            row = self._take(steps.boot(self._as_defined(row), now_ms=now_ms, boot_ms=self._boot_ms))
        if power is PowerState.PAUSED and row.power is ObservedPower.RUNNING:
            row = self._take(steps.pause(row, now_ms=now_ms))
        if power is PowerState.RUNNING and row.power is ObservedPower.PAUSED:
            row = self._take(steps.resume(row, now_ms=now_ms))
        return row

    @staticmethod
    def _as_defined(row: Row) -> Row:
        """A start takes its configuration from the definition, whatever the last run had been changed to."""
        if row.definition is None:
            return row
        spec = _definitions.decode(row.definition).spec
        return replace(row, vcpu=spec.vcpu, memory_in_mb=spec.memory_in_mb)

    def _take(self, step: steps.Step) -> Row:
        since_ms = step.lines[0][0] if step.lines else self._now_ms()
        self._store.print(step.row.native_id, step.lines, now_ms=since_ms)
        return step.row

    async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
        self._fail_if_told("set_power", uid)
        with self._store.transaction():
            stored = self._existing(uid)
            if stored.definition is not None:
                self._require_lease(uid, _definitions.decode(stored.definition).spec, power)
            row = self._bring(self._as_left(stored), power)
            if row != stored:
                self._store.put(row)
        if row != stored:
            self._changed(row)

    async def destroy(self, uid: str, *, grace_s: float) -> None:
        self._fail_if_told("destroy", uid)
        with self._store.transaction():
            row = self._store.get(uid)
            if row is None:
                return
            self._store.delete(row.native_id)
        self._seen.pop(row.native_id, None)
        self._booting.pop(row.native_id, None)
        self._wake()

    async def definition(self, uid: str) -> VMDefinition | None:
        row = self._store.get(uid)
        return _definitions.decode(row.definition) if row is not None and row.definition is not None else None

    async def leftovers(self, uid: str | None = None) -> Sequence[Remains]:
        """Nothing can be left but what a rehearsal put there, or what a fault of this call names."""
        fault = self._store.take_fault("leftovers", uid or "")
        if fault is not None:
            return [Remains(DRIVER, LeftoverKind.TAP, fault.message, uid=uid)]
        if uid is None:
            return self._store.remains()
        row = self._store.get(uid)
        return [Remains(DRIVER, LeftoverKind.INSTANCE, f"row/{row.native_id}", uid=uid)] if row is not None else []

    async def clear(self, name: str) -> None:
        self._fail_if_told("clear", name)
        left = next((each for each in self._store.remains() if each.name == name), None)
        if left is None:
            return
        if not left.marked:
            raise DriverError("NotOurs", f"{name} does not say that it is ours: it is left alone", retryable=False)
        self._store.clear(name)
        self._wake()

    async def keep_until_told(self) -> None:
        """Nothing here goes by itself."""

    def _changed(self, row: Row) -> None:
        self._remember(row, self._now_ms())
        self._wake()
