"""`ports.HostDriver` over a Flintlock host.

Every order is level-based: list what is there, choose the copy that already is what is asked for, delete the others,
and only when there is none journal the intent and create. So an order may be repeated after any interruption. A create
without an answer is in doubt: its copy is looked for during `doubt_s` before another create may be sent, and whatever
turns up later is surplus, which the watcher deletes. An update that a running guest cannot take over deletes the copy
and creates the next one, with new volumes. `ready` means that Flintlock says CREATED; what the guest says is not in
the API. Neither are pause, stop and the console, which are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from controlplane.drivers.common import not_found, stale_epoch, unsupported
from controlplane.drivers.flintlockd.client import CallError, FlintlockClient
from controlplane.drivers.flintlockd.copies import Copy, choose, copies_of, highest_epoch, instances, surplus_of
from controlplane.drivers.flintlockd.journal import Journal, Phase, Record
from controlplane.drivers.flintlockd.settings import FlintlockdSettings
from controlplane.drivers.flintlockd.translate import DRIVER_NAME, check, to_wire
from controlplane.model.gc import LeftoverKind
from controlplane.model.spec import MicroVMSpec, PowerState
from controlplane.ports import DriverError, DriverInfo, Instance, Lease, Remains, VMDefinition
from controlplane.wire.flintlock.types import microvm_pb2 as types

P = ParamSpec("P")
T = TypeVar("T")
State = types.MicroVMStatus

SETTLE_POLL_S = 0.1
"""How often to look while a create or a delete goes on in the background."""

_log = structlog.stdlib.get_logger(__name__)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class FlintlockdDriver:
    """One Flintlock host. `now_ms`: wall clock in milliseconds."""

    def __init__(self, settings: FlintlockdSettings, *, now_ms: Callable[[], int] = _wall_ms) -> None:
        self._settings = settings
        self._now_ms = now_ms
        self._journal = Journal(settings.state_dir)
        self._open_client: FlintlockClient | None = None
        self._disk: ThreadPoolExecutor | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._awaiting_change: set[asyncio.Event] = set()

    @property
    def info(self) -> DriverInfo:
        return DriverInfo(name=DRIVER_NAME, version="v1alpha1", simulated=False, accelerator=None)

    # -- life of the driver

    async def start(self) -> None:
        if self._open_client is not None:
            return
        # One thread, so that the journal's writes reach the disk in the order in which they were asked for.
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flintlockd-journal")
        await self._durably(self._journal.load)
        self._open_client = FlintlockClient(self._settings)
        self._watcher = asyncio.create_task(self._watch(), name="flintlockd-watcher")

    async def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        if self._open_client is not None:
            await self._open_client.close()
            self._open_client = None
        if self._disk is not None:
            await asyncio.to_thread(self._disk.shutdown)
            self._disk = None

    @property
    def _client(self) -> FlintlockClient:
        if self._open_client is None:
            raise DriverError("NotStarted", "the flintlockd driver is not started")
        return self._open_client

    async def _durably(self, write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._disk is None:
            raise DriverError("NotStarted", "the flintlockd driver is not started")
        # Shielded: a write that was begun is finished, so a cancelled caller leaves disk and memory in agreement.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._disk, lambda: write(*args, **kwargs)))

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    # -- what exists

    async def check(self, spec: MicroVMSpec) -> None:
        check(spec)

    async def list(self) -> Sequence[Instance]:
        return instances(await self._microvms(), self._journal.all())

    async def _microvms(self) -> list[types.MicroVM]:
        return await self._client.list({*self._settings.namespaces, *self._journal.namespaces})

    async def _copies(self, vm: VMDefinition) -> list[Copy]:
        """Every copy of `vm`, of whatever epoch: a uid keeps its namespace and its name."""
        return copies_of(await self._client.list([vm.namespace], name=vm.name), vm.uid, vm.cluster_id)

    async def _record(self, uid: str) -> Record | None:
        """After the writes that are under way, so that one whose caller was cancelled is seen."""
        return await self._durably(self._journal.get, uid)

    async def console(self, uid: str, *, offset: int, limit: int) -> tuple[int, bytes]:
        raise DriverError("Unsupported", "Flintlock's API has no serial console", retryable=False)

    async def renew(self, lease: Lease) -> None:
        """Nothing that runs here needs one: `check` refuses it."""

    async def held(self) -> Lease | None:
        return None

    # -- orders

    async def create(self, vm: VMDefinition) -> None:
        check(vm.spec)
        async with self._lock(vm.uid):
            await self._ensure(vm, await self._copies(vm))

    async def update(self, vm: VMDefinition) -> None:
        check(vm.spec)
        async with self._lock(vm.uid):
            copies = await self._copies(vm)
            record = await self._record(vm.uid)
            if not copies and (record is None or record.phase is Phase.DESTROYED):
                raise not_found(vm.uid)
            await self._ensure(vm, copies)

    async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
        if power is not PowerState.RUNNING:
            raise unsupported(f"Flintlock has no call that makes a microVM {power}", pointer="/spec/power_state")
        async with self._lock(uid):
            record = await self._record(uid)
            if record is not None and record.phase is not Phase.DESTROYED:
                # The only start that there is: whatever is not running is replaced.
                await self._ensure(record.definition, await self._copies(record.definition))
                return
            copies = copies_of(await self._microvms(), uid)
            if not copies:
                raise not_found(uid)
            await self._settle(copies[0].wire.spec)

    async def destroy(self, uid: str, *, grace_s: float) -> None:
        async with self._lock(uid):
            record = await self._record(uid)
            copies = await self._copies(record.definition) if record else copies_of(await self._microvms(), uid)
            await self._delete(copies)
            if record is None or record.phase is Phase.DESTROYED:
                return
            if record.in_doubt:
                tomb = replace(record, phase=Phase.DESTROYED, native_id=None, at_ms=self._now_ms())
                await self._durably(self._journal.put, tomb)
            else:
                await self._durably(self._journal.remove, uid)
            self._wake()

    async def _ensure(self, vm: VMDefinition, copies: Sequence[Copy]) -> None:
        """Make exactly one copy of `vm` exist, and run. The caller holds its lock."""
        record = await self._record(vm.uid)
        held = highest_epoch(copies, record)
        if held > vm.epoch:
            raise stale_epoch(vm.uid, held=held, asked=vm.epoch)
        kept, surplus = choose(copies, vm, record)
        if kept is None and record is not None and record.phase is Phase.CREATING and record.in_doubt:
            kept, surplus = await self._look_for_unanswered(vm, record)
        if kept is None:
            await self._replace(vm, surplus, record)
            return
        if record is None or record.native_id != kept.native_id or record.definition != vm:
            await self._note_created(vm, kept.native_id, in_doubt=record is not None and record.in_doubt)
        await self._delete(surplus)
        await self._settle(kept.wire.spec)

    async def _replace(self, vm: VMDefinition, surplus: Sequence[Copy], record: Record | None) -> None:
        """Delete every copy there is and create the one that is asked for."""
        was_in_doubt = record is not None and record.in_doubt
        intent = Record(definition=vm, phase=Phase.CREATING, in_doubt=was_in_doubt, at_ms=self._now_ms())
        if surplus:
            await self._durably(self._journal.put, intent)
            await self._delete(surplus)
        attempt = replace(intent, in_doubt=True, at_ms=self._now_ms())
        await self._durably(self._journal.put, attempt)
        try:
            microvm = await self._client.create(to_wire(vm, provider=self._settings.provider))
        except CallError as error:
            microvm = await self._resolve(vm, attempt, error, was_in_doubt=was_in_doubt)
        await self._note_created(vm, microvm.spec.uid, in_doubt=was_in_doubt)
        await self._settle(microvm.spec)

    async def _resolve(
        self, vm: VMDefinition, attempt: Record, error: CallError, *, was_in_doubt: bool
    ) -> types.MicroVM:
        """What became of a create that failed: its copy, or `error` again."""
        if not error.certainly_not_done:
            # An error of the use case may come after the microVM was stored, as well as before.
            found = attempt if not error.answered else replace(attempt, at_ms=0)
            kept, _ = await self._look_for_unanswered(vm, found)
            if kept is not None:
                return kept.wire
        if error.answered:
            await self._durably(self._journal.put, replace(attempt, in_doubt=was_in_doubt))
        raise error

    async def _look_for_unanswered(self, vm: VMDefinition, attempt: Record) -> tuple[Copy | None, list[Copy]]:
        """List, at least once, until the copy of an unanswered create turns up or its time of doubt is over."""
        over_ms = attempt.at_ms + round(self._settings.doubt_s * 1000)
        while True:
            kept, surplus = choose(await self._copies(vm), vm, attempt)
            if kept is not None or not attempt.at_ms <= self._now_ms() < over_ms:
                return kept, surplus
            await asyncio.sleep(SETTLE_POLL_S)

    async def _note_created(self, vm: VMDefinition, native_id: str, *, in_doubt: bool) -> None:
        record = Record(
            definition=vm, phase=Phase.CREATED, native_id=native_id, in_doubt=in_doubt, at_ms=self._now_ms()
        )
        await self._durably(self._journal.put, record)
        self._wake()

    async def _find(self, spec: types.MicroVMSpec) -> types.MicroVM | None:
        """The microVM of this spec as it is now."""
        named = await self._client.list([spec.namespace], name=spec.id)
        return next((microvm for microvm in named if microvm.spec.uid == spec.uid), None)

    async def _settle(self, spec: types.MicroVMSpec) -> None:
        """Wait until Flintlock has created it. Raises when it gave up, or takes too long for now."""
        deadline = time.monotonic() + self._settings.settle_timeout_s
        while True:
            found = await self._find(spec)
            if found is None:
                raise DriverError("HypervisorFailed", f"Flintlock's microVM {spec.uid} vanished while it was created")
            if found.status.state == State.CREATED:
                return
            if found.status.state == State.FAILED:
                raise DriverError(
                    "HypervisorFailed",
                    f"Flintlock gave up creating {spec.uid} after {found.status.retry} retries; its log says why",
                )
            if time.monotonic() >= deadline:
                raise DriverError(
                    "NotConverged",
                    f"Flintlock has not created {spec.uid} within {self._settings.settle_timeout_s:g} s"
                    f" (retry {found.status.retry})",
                )
            await asyncio.sleep(SETTLE_POLL_S)

    async def _delete(self, copies: Sequence[Copy]) -> None:
        """Delete them and see that they are gone."""
        if not copies:
            return
        for copy in copies:
            if copy.wire.status.state != State.DELETING:
                await self._ask_to_delete(copy.wire.spec)
        deadline = time.monotonic() + self._settings.settle_timeout_s
        for copy in copies:
            while await self._find(copy.wire.spec) is not None:
                if time.monotonic() >= deadline:
                    raise DriverError(
                        "NotConverged",
                        f"Flintlock has not deleted {copy.native_id} within {self._settings.settle_timeout_s:g} s",
                    )
                await asyncio.sleep(SETTLE_POLL_S)
        self._wake()

    async def _ask_to_delete(self, spec: types.MicroVMSpec) -> None:
        try:
            await self._client.delete(spec.uid)
        except CallError:
            # Also the answer for what is gone already; the listing knows.
            left = await self._find(spec)
            if left is not None and left.status.state != State.DELETING:
                raise

    async def definition(self, uid: str) -> VMDefinition | None:
        record = await self._record(uid)
        return record.definition if record is not None and record.phase is not Phase.DESTROYED else None

    async def leftovers(self, uid: str | None = None) -> Sequence[Remains]:
        """What Flintlock lists. Disks and interfaces are its own, and its API does not tell of them."""
        record = await self._record(uid) if uid is not None else None
        if record is None:
            return []
        copies = await self._copies(record.definition)
        return [Remains(DRIVER_NAME, LeftoverKind.INSTANCE, f"microvm/{copy.native_id}", uid=uid) for copy in copies]

    async def clear(self, name: str) -> None:
        """There is nothing that a list without a uid names."""

    async def keep_until_told(self) -> None:
        """Flintlock keeps nothing of what is deleted."""

    # -- changes

    async def changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._awaiting_change.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield None
        finally:
            self._awaiting_change.discard(event)

    def _wake(self) -> None:
        for event in self._awaiting_change:
            event.set()

    async def _watch(self) -> None:
        """Look for changes, and delete late copies, for as long as the driver runs."""
        last: object = None
        while True:
            try:
                microvms = await self._microvms()
                seen: object = sorted((m.spec.uid, m.status.state, m.status.retry) for m in microvms)
                await self._sweep(microvms)
            except DriverError as error:
                seen = error.code
            if seen != last:
                self._wake()
            last = seen
            await asyncio.sleep(self._settings.poll_s)

    async def _sweep(self, microvms: Sequence[types.MicroVM]) -> None:
        """Delete copies that turned up late, and forget tombstones whose time is over."""
        for uid, record in self._journal.all().items():
            expired = record.phase is Phase.DESTROYED and self._now_ms() > record.at_ms + round(
                self._settings.tombstone_s * 1000
            )
            if not expired and not surplus_of(copies_of(microvms, uid, record.definition.cluster_id), record):
                continue
            async with self._lock(uid):
                # Again under the lock: an order may have changed what is meant since the listing.
                present = await self._record(uid)
                if present is None:
                    continue
                surplus = surplus_of(await self._copies(present.definition), present)
                if surplus:
                    _log.warning("deleting late copies", uid=uid, copies=[copy.native_id for copy in surplus])
                    await self._delete(surplus)
                elif expired and present == record:
                    await self._durably(self._journal.remove, uid)
