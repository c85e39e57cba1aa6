"""Keeps the host as it is assigned: list, plan, act, report; woken early by events and regularly by the clock.

Steps of different microVMs run side by side up to a limit, steps of one never do. A microVM that is being acted on, or
was since the listing began, is left out of that round: what the listing says of it is not how it is. Its last
observation stands until then. Nothing here ends a microVM because the agent ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from controlplane.agent.assignments import Assignments, Goal, goal_of
from controlplane.agent.clearing import Clearer, due
from controlplane.agent.execute import Executor
from controlplane.agent.forecast import forecast
from controlplane.agent.journal import Journal, JournalError, Record
from controlplane.agent.lease import NO_LEASE, Standing
from controlplane.agent.lister import Lister
from controlplane.agent.observe import MAX_TEXT, HostView, failure_of, leftover, observe, says_the_same, stranger
from controlplane.agent.pacing import Pacing
from controlplane.agent.plan import Listing, Plan, copies_of, current_copy, driver_for, plan
from controlplane.agent.steps import Create, SetPower, ShutDown, Step, Update
from controlplane.model.gc import Leftover
from controlplane.model.resources import WAITS_FOR_LEASE, Amount, Failure, Observation, Unmanaged
from controlplane.model.types import replace
from controlplane.ports import Clock, DriverError, HostDriver, PlanItem

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


TELL_S = 2.0
"""A microVM that wants a lease for longer says so. Before that, one is probably on its way."""


class LeaseView(Protocol):
    """What the runner needs of the host's lease."""

    def standing(self, driver: str) -> Standing: ...
    def without_since_ms(self, driver: str) -> int: ...
    def problems(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    concurrency: int = 8
    resync_s: float = 5.0
    call_timeout_s: float = 120.0
    grace_s: float = 10.0
    """How long a guest may take to stop by itself."""
    rewatch_s: float = 1.0
    """Pause before a driver's stream of changes that ended is opened again."""


@dataclass(frozen=True, slots=True)
class _Repairs:
    """Of one microVM since this agent started: a repair is often done before anyone could have seen the drift."""

    count: int
    last: str

    def details(self) -> dict[str, str]:
        return {"repairs": str(self.count), "last_repair": self.last[:MAX_TEXT]}


class Runner:
    def __init__(
        self,
        *,
        host: str,
        drivers: Mapping[str, HostDriver],
        default_driver: str,
        capacity: Amount,
        journal: Journal,
        clock: Clock,
        pacing: Pacing,
        limits: RunnerLimits,
        lease: LeaseView,
    ) -> None:
        """`standing` tells of the lease; call `wake` when it is another one without the passing of time."""
        self._host = host
        self._drivers = drivers
        self._default_driver = default_driver
        self._capacity = capacity
        self._journal = journal
        self._clock = clock
        self._pacing = pacing
        self._limits = limits
        self._lease = lease
        self._lister = Lister(drivers, timeout_s=limits.call_timeout_s)
        self._executor = Executor(
            drivers, journal, self._lister, call_timeout_s=limits.call_timeout_s, grace_s=limits.grace_s
        )
        self._clearer = Clearer(drivers, clock, timeout_s=limits.call_timeout_s, wake=self.wake)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._wake = asyncio.Event()
        self._published = asyncio.Condition()
        self._assignments: Assignments | None = None
        self._view: HostView | None = None
        self._viewed: Assignments | None = None
        """What the view is of."""
        self._held: Mapping[str, str] = {}
        self._taken = Amount()
        self._failures: dict[str, tuple[Goal, Failure]] = {}
        self._busy: dict[str, Step] = {}
        self._repairs: dict[str, _Repairs] = {}
        self._touched: dict[str, tuple[int, Step]] = {}
        """uid to its last step, and the tick at which that ended."""

    @property
    def assignments(self) -> Assignments | None:
        return self._assignments

    @property
    def view(self) -> HostView | None:
        """What is known of the host; None before the first assignments were looked at."""
        return self._view

    @property
    def held(self) -> Mapping[str, str]:
        """uid to why something that differs is left alone."""
        return self._held

    @property
    def taken(self) -> Amount:
        """What copies of our cluster use here beyond what is assigned."""
        return self._taken

    def record(self, uid: str) -> Record | None:
        return self._journal.records.get(uid)

    def assign(self, assignments: Assignments) -> None:
        self._assignments = assignments
        self._wake.set()

    def wake(self) -> None:
        """Look again soon."""
        self._wake.set()

    async def next_view(self, after: HostView | None) -> HostView:
        """The view, once it is another one than `after`."""
        async with self._published:
            await self._published.wait_for(lambda: self._view is not None and self._view is not after)
        assert self._view is not None
        return self._view

    async def caught_up(self) -> None:
        """Until the view is of the present assignments."""
        async with self._published:
            await self._published.wait_for(lambda: self._viewed is self._assignments)

    async def look_ahead(self) -> Sequence[PlanItem]:
        """What would be done next if there were a lease, by the plan that does it. Raises DriverError."""
        listing = (await self._lister.fresh()).listing
        if self._assignments is None:
            raise DriverError("NotAssigned", "this host has not been told yet what it is to run")
        return forecast(
            self._assignments,
            self._journal.records,
            listing,
            drivers=self._drivers,
            default_driver=self._default_driver,
            capacity=self._capacity,
        )

    async def run(self) -> None:
        """Until cancelled. Raises JournalError when the journal cannot be written any more."""
        try:
            async with asyncio.TaskGroup() as group:
                for name, driver in self._drivers.items():
                    group.create_task(self._follow(name, driver))
                while True:
                    wait_s = await self._round(group)
                    try:
                        async with asyncio.timeout(wait_s):
                            await self._wake.wait()
                    except TimeoutError:
                        pass
        finally:
            await self._lister.close()

    # -- one round -----------------------------------------------------------------------------------------------------

    async def _round(self, group: asyncio.TaskGroup) -> float:
        """Look, decide, start what is due. Gives the seconds until the next round is due anyway."""
        self._wake.clear()
        if self._assignments is None:
            return self._limits.resync_s
        stamped = await self._lister.fresh()
        standings = {name: self._lease.standing(name) for name in self._drivers}
        assignments = self._assignments  # the newest: they may have changed while we looked
        self._touched = {uid: (tick, step) for uid, (tick, step) in self._touched.items() if tick > stamped.began}
        unsettled = {uid: step for uid, (_, step) in self._touched.items()} | self._busy
        decided = plan(
            assignments,
            self._journal.records,
            stamped.listing,
            drivers=self._drivers,
            default_driver=self._default_driver,
            capacity=self._capacity,
            may_run=lambda driver: standings.get(driver, NO_LEASE).may_run,
            shut_down=lambda driver: standings.get(driver, NO_LEASE).shut_down,
            acting=unsettled,
        )
        next_s = self._start_due(group, assignments, decided, unsettled.keys())
        self._held = decided.held
        self._taken = decided.taken
        self._clearer.start(group, assignments, due(assignments, self._journal.records, stamped.listing))
        await self._publish(assignments, stamped.listing, decided, unsettled.keys())
        changes = [each.changes_in_s for each in standings.values() if each.changes_in_s is not None]
        if decided.leaseless:
            changes.append(TELL_S)
        return min([next_s, *(seconds + 0.001 for seconds in changes)])

    def _start_due(
        self, group: asyncio.TaskGroup, assignments: Assignments, decided: Plan, unsettled: Set[str]
    ) -> float:
        now_s = self._clock.monotonic_s()
        wait_s = self._limits.resync_s
        goals = {uid: goal_of(assignment) for uid, assignment in assignments.by_uid.items()}
        for uid, (goal, _) in tuple(self._failures.items()):
            settled = uid not in unsettled and uid not in decided.steps
            if goals.get(uid) != goal or settled:
                del self._failures[uid]
        self._pacing.keep_only(frozenset(goals))
        self._repairs = {uid: repairs for uid, repairs in self._repairs.items() if uid in goals}
        for uid, step in decided.steps.items():
            if uid in unsettled:
                continue
            goal = goals.get(uid)
            if goal is not None and (ready_s := self._pacing.ready_at(uid, goal)) > now_s:
                wait_s = min(wait_s, ready_s - now_s)
                continue
            self._busy[uid] = step
            group.create_task(self._act(step, goal, assignments.cluster_id))
        return max(wait_s, 0.001)

    async def _act(self, step: Step, goal: Goal | None, cluster_id: str) -> None:
        failure: Failure | None = None
        try:
            # Guests that power off are only waited for, and the lease does not wait.
            async with contextlib.nullcontext() if isinstance(step, ShutDown) else self._slots:
                log.info("step", uid=step.uid, step=type(step).__name__, reason=step.reason)
                await self._executor.execute(step, cluster_id)
        except JournalError:
            raise  # without a journal nothing may be started any more; what runs keeps running
        except DriverError as error:
            failure = failure_of(error)
            if error.code == "NotFound":  # it went away since we looked; the next round knows better
                failure = Failure(code=error.code, message=error.message, pointer=error.pointer)
        except Exception as error:
            log.exception("driver failed", uid=step.uid, step=type(step).__name__)
            failure = Failure(code="DriverFailed", message=f"{type(error).__name__}: {error}"[:1024])
        finally:
            self._busy.pop(step.uid, None)
            self._touched[step.uid] = self._lister.tick(), step
        self._note(step, goal, failure)
        self._wake.set()

    def _note(self, step: Step, goal: Goal | None, failure: Failure | None) -> None:
        if goal is None:
            return
        now_s = self._clock.monotonic_s()
        if failure is None:
            if isinstance(step, Create | Update | SetPower) and step.drift is not None:
                before = self._repairs.get(step.uid)
                self._repairs[step.uid] = _Repairs((before.count if before is not None else 0) + 1, step.drift)
            self._failures.pop(step.uid, None)
            self._pacing.done(step.uid, goal, now_s=now_s)
            return
        log.warning("step failed", uid=step.uid, step=type(step).__name__, code=failure.code, message=failure.message)
        self._failures[step.uid] = (goal, failure)
        self._pacing.failed(step.uid, goal, now_s=now_s, permanent=failure.permanent)

    # -- what is told --------------------------------------------------------------------------------------------------

    async def _publish(self, assignments: Assignments, listing: Listing, decided: Plan, unsettled: Set[str]) -> None:
        before = self._view
        view = HostView(
            revision=assignments.revision,
            observed=self._observed(assignments, listing, decided, unsettled, before),
            unmanaged=self._unmanaged(assignments.cluster_id, listing, decided, before),
            destroyed={uid: epoch for uid, epoch in decided.confirmed.items() if uid not in unsettled},
            left_behind=self._left_behind(assignments.cluster_id, listing, unsettled, before),
        )
        async with self._published:
            self._viewed = assignments
            if view != before:
                self._view = view
            self._published.notify_all()

    def _observed(
        self,
        assignments: Assignments,
        listing: Listing,
        decided: Plan,
        unsettled: Set[str],
        before: HostView | None,
    ) -> dict[str, Observation]:
        at_ms = self._clock.now_ms()
        copies = copies_of(assignments.cluster_id, listing)
        observed: dict[str, Observation] = {}
        for uid, assignment in assignments.by_uid.items():
            last = before.observed.get(uid) if before is not None else None
            failure = self._failures[uid][1] if uid in self._failures else decided.refused.get(uid)
            failure = failure or self._wants_a_lease(decided.leaseless.get(uid), at_ms)
            record = self._journal.records.get(uid)
            driver = driver_for(assignment, record, self._default_driver)
            known = last is not None and last.epoch == assignment.epoch
            if driver in listing.blind:
                # Unknown is not absent: what was last seen stands, with the reason why it may be old.
                blind = Failure(code="DriverUnavailable", message=f"cannot list: {listing.blind[driver]}"[:1024])
                seen = replace(last, failure=blind, at=at_ms) if last is not None and known else None
            elif uid in unsettled:
                seen = replace(last, failure=failure) if last is not None and known else None
            else:
                instance = current_copy(assignment, copies.get(uid, ()), driver)
                info = self._drivers[driver].info if driver in self._drivers else None
                seen = observe(self._host, assignment, record, instance, failure, info, at_ms=at_ms)
                if seen is not None and uid in self._repairs:
                    seen = replace(seen, details={**seen.details, **self._repairs[uid].details()})
            if seen is not None:
                observed[uid] = last if last is not None and says_the_same(last, seen) else seen
        return observed

    def _wants_a_lease(self, driver: str | None, at_ms: int) -> Failure | None:
        if driver is None:
            return None
        since_ms = self._lease.without_since_ms(driver)
        if at_ms - since_ms < TELL_S * 1000:
            return None
        since = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="seconds")
        problem = self._lease.problems().get(driver)
        why = f"driver {driver} takes none: {problem}" if problem is not None else "none was granted to its host"
        return Failure(code=WAITS_FOR_LEASE, message=f"waits for a lease since {since}: {why}"[:MAX_TEXT])

    def _unmanaged(
        self, cluster_id: str, listing: Listing, decided: Plan, before: HostView | None
    ) -> tuple[Unmanaged, ...]:
        strangers = [stranger(found, cluster_id) for found in decided.unmanaged if found.instance.uid not in self._busy]
        if before is not None:  # of a driver that cannot list, what was last known stands
            strangers += [old for old in before.unmanaged if old.driver in listing.blind]
        return tuple(sorted(strangers, key=lambda each: (each.driver, each.native_id)))

    @staticmethod
    def _left_behind(
        cluster_id: str, listing: Listing, unsettled: Set[str], before: HostView | None
    ) -> Sequence[Leftover] | None:
        """What is being destroyed right now is left for a moment: that is no news."""
        if listing.leftovers is None or unsettled:
            return before.left_behind if before is not None else None
        return [leftover(each, cluster_id) for each in listing.leftovers]

    async def _follow(self, name: str, driver: HostDriver) -> None:
        while True:
            try:
                async for _ in driver.changes():
                    self._wake.set()
            except DriverError as error:
                log.warning("driver reports no changes", driver=name, code=error.code, message=error.message)
            await asyncio.sleep(self._limits.rewatch_s)
