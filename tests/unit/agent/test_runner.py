"""The runner with drivers that are slow, broken or hopeless: the others are served, nothing is done twice at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.agent_values import assignment
from support.leases import NoLease

from controlplane.agent.assignments import Assignment, Assignments, definition
from controlplane.agent.journal import Journal
from controlplane.agent.pacing import Backoff, Pacing
from controlplane.agent.runner import Runner, RunnerLimits
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.model.resources import Amount, ObservedPower
from controlplane.model.spec import PowerState
from controlplane.ports import DriverError, Instance, VMDefinition
from controlplane.system import SystemClock

WAIT_S = 10.0
LIMITS = RunnerLimits(concurrency=4, resync_s=0.2, call_timeout_s=5.0, grace_s=0.0, rewatch_s=0.1)


def assigned(*wanted: Assignment, revision: int = 1) -> Assignments:
    return Assignments(cluster_id="test", revision=revision, by_uid={each.uid: each for each in wanted})


@contextlib.asynccontextmanager
async def running(
    directory: Path, driver: SimulatedDriver, *, limits: RunnerLimits = LIMITS, vcpu: int = 64
) -> AsyncIterator[Runner]:
    await driver.start()
    runner = Runner(
        host="h1",
        drivers={"simulated": driver},
        default_driver="simulated",
        capacity=Amount(vcpu=vcpu, memory_in_mb=65536),
        journal=Journal.open(directory / "journal"),
        clock=SystemClock(),
        pacing=Pacing(Backoff(base_s=0.05, cap_s=0.4, permanent_s=0.4), random.Random(1)),
        limits=limits,
        lease=NoLease(),
    )
    task = asyncio.create_task(runner.run())
    try:
        yield runner
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await driver.stop()


async def reaches(runner: Runner, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        view = runner.view
        while not condition():
            view = await runner.next_view(view)


def all_run(runner: Runner, count: int) -> bool:
    seen = runner.view.observed.values() if runner.view is not None else ()
    return len(seen) == count and all(each.generation == 1 and each.failure is None for each in seen)


async def test_the_view_has_caught_up_once_it_is_of_the_assignments_that_came_last(tmp_path: Path) -> None:
    """A revision does not tell: after a restore, older ones come again and stand for something else."""
    driver = SimulatedDriver(tmp_path / "driver")
    async with running(tmp_path, driver) as runner:
        runner.assign(assigned(assignment("a"), revision=7))
        await reaches(runner, lambda: all_run(runner, 1))
        assert runner.view is not None
        assert not runner.view.unmanaged
        runner.assign(assigned(revision=7))
        async with asyncio.timeout(WAIT_S):
            await runner.caught_up()
        assert [each.uid for each in runner.view.unmanaged] == ["a"]
        assert runner.taken == Amount(microvms=1, vcpu=1, memory_in_mb=128)
        runner.assign(assigned(revision=7))
        async with asyncio.timeout(WAIT_S):
            await runner.caught_up()  # though nothing else is to be told


async def test_many_run_side_by_side_up_to_the_limit_and_never_two_steps_of_one(tmp_path: Path) -> None:
    busy: Counter[str] = Counter()

    class Counting(SimulatedDriver):
        most = 0

        async def create(self, vm: Any) -> None:
            busy[vm.uid] += 1
            assert busy[vm.uid] == 1
            self.most = max(self.most, busy.total())
            await asyncio.sleep(0.002)
            await super().create(vm)
            busy[vm.uid] -= 1

    driver = Counting(tmp_path / "driver")
    async with running(tmp_path, driver) as runner:
        runner.assign(assigned(*(assignment(f"u{number}") for number in range(40))))
        await reaches(runner, lambda: all_run(runner, 40))
    assert driver.most == LIMITS.concurrency


async def test_a_call_that_hangs_is_ended_and_holds_up_nobody(tmp_path: Path) -> None:
    class Hanging(SimulatedDriver):
        async def create(self, vm: Any) -> None:
            if vm.uid == "stuck":
                await asyncio.Event().wait()
            await super().create(vm)

    async with running(tmp_path, Hanging(tmp_path / "driver"), limits=replace(LIMITS, call_timeout_s=0.3)) as runner:
        runner.assign(assigned(assignment("stuck"), assignment("fine")))
        await reaches(runner, lambda: runner.view is not None and len(runner.view.observed) == 2)
        assert runner.view is not None
        failure = runner.view.observed["stuck"].failure
        assert failure is not None
        assert (failure.code, failure.permanent) == ("Timeout", False)
        assert runner.view.observed["fine"].power is ObservedPower.RUNNING


async def test_a_bug_in_a_driver_is_a_failure_of_one_microvm(tmp_path: Path) -> None:
    class Buggy(SimulatedDriver):
        async def create(self, vm: Any) -> None:
            if vm.uid == "bad":
                raise ZeroDivisionError("a bug")
            await super().create(vm)

    async with running(tmp_path, Buggy(tmp_path / "driver")) as runner:
        runner.assign(assigned(assignment("bad"), assignment("fine")))
        await reaches(runner, lambda: runner.view is not None and len(runner.view.observed) == 2)
        assert runner.view is not None
        failure = runner.view.observed["bad"].failure
        assert failure is not None
        assert (failure.code, failure.message) == ("DriverFailed", "ZeroDivisionError: a bug")


async def test_a_guest_that_dies_at_once_is_started_ever_less_often(tmp_path: Path) -> None:
    class Dying(SimulatedDriver):
        starts = 0

        async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
            self.starts += 1

        async def list(self) -> Sequence[Instance]:
            dead = [replace(each, power=ObservedPower.STOPPED, cause="panic") for each in await super().list()]
            return tuple(dead)

    driver = Dying(tmp_path / "driver")
    async with running(tmp_path, driver) as runner:
        runner.assign(assigned(assignment("a")))
        await reaches(
            runner, lambda: runner.view is not None and any(each.failure for each in runner.view.observed.values())
        )
        assert runner.view is not None
        failure = runner.view.observed["a"].failure
        assert failure is not None
        assert failure.message == "asked to be running, it is stopped (panic)"
        await asyncio.sleep(1.0)
        assert 2 <= driver.starts <= 10


class Racing(SimulatedDriver):
    """The first create of `raced` takes effect and fails, during a listing that `look_again` began and that still shows
    nothing of it.
    """

    def __init__(self, directory: Path, raced: str, look_again: Callable[[], None]) -> None:
        super().__init__(directory)
        self.created: list[str] = []
        self._raced = raced
        self._look_again = look_again
        self._listed = asyncio.Event()
        self._acted = asyncio.Event()
        self._slow = False

    async def list(self) -> Sequence[Instance]:
        before = await super().list()
        if self._slow and not self._acted.is_set():
            self._listed.set()
            await self._acted.wait()
            await asyncio.sleep(0.05)
        return before

    async def create(self, vm: VMDefinition) -> None:
        self.created.append(vm.uid)
        if vm.uid != self._raced or self._acted.is_set():
            return await super().create(vm)
        self._slow = True
        self._look_again()
        await self._listed.wait()
        await super().create(vm)
        self._acted.set()
        raise DriverError("Interrupted", "it happened, and the answer was lost")


async def test_a_listing_from_before_an_action_says_nothing_of_it(tmp_path: Path) -> None:
    driver = Racing(tmp_path / "driver", "a", lambda: runner.assign(assigned(assignment("a"), revision=2)))
    shown: list[ObservedPower] = []
    async with running(tmp_path, driver) as runner:
        runner.assign(assigned(assignment("a")))
        view = None
        async with asyncio.timeout(WAIT_S):
            while not all_run(runner, 1):
                view = await runner.next_view(view)
                shown += [seen.power for seen in view.observed.values()]
    assert ObservedPower.ABSENT not in shown


async def test_what_was_started_since_the_listing_began_takes_its_room(tmp_path: Path) -> None:
    """Meanwhile another one is assigned, for which there is room in the old listing alone."""
    both = assigned(assignment("a"), assignment("z"), revision=2)
    driver = Racing(tmp_path / "driver", "z", lambda: runner.assign(both))
    async with running(tmp_path, driver, vcpu=2) as runner:
        await driver.create(definition("test", assignment("lost")))
        runner.assign(assigned(assignment("z")))

        def waits_for_room() -> bool:
            seen = runner.view.observed if runner.view is not None else {}
            failures = {uid: each.failure and each.failure.code for uid, each in seen.items()}
            return failures == {"a": "NoRoom", "z": None}

        await reaches(runner, waits_for_room)
    assert "a" not in driver.created


async def test_without_assignments_nothing_is_done(tmp_path: Path) -> None:
    driver = SimulatedDriver(tmp_path / "driver")
    async with running(tmp_path, driver, limits=replace(LIMITS, resync_s=0.02)) as runner:
        await asyncio.sleep(0.2)
        assert runner.view is None
