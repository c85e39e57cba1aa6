"""Every multi-step change, interrupted before and after each of its effects, is completed by planning again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.builders import microvm_spec

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.execute import Executor
from controlplane.agent.journal import Journal, Record, RecordPhase
from controlplane.agent.lister import Lister
from controlplane.agent.plan import Plan, plan
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.drivers.simulated.store import Fault, Store
from controlplane.model.resources import Amount
from controlplane.model.spec import MicroVMSpec, PowerState
from controlplane.ports import DriverError, Instance


class Crash(BaseException):
    """The process dies here."""


class Fuse:
    """Burns at one effect: before it happened, or just after."""

    def __init__(self, burns_at: int) -> None:
        self._left = burns_at

    async def around(self, effect: Callable[[], Any]) -> Any:
        self._burn()
        result = await effect()
        self._burn()
        return result

    def _burn(self) -> None:
        if self._left == 0:
            raise Crash
        self._left -= 1


class FusedDriver(SimulatedDriver):
    def __init__(self, state_dir: Path, fuse: Fuse) -> None:
        super().__init__(state_dir)
        self._fuse = fuse

    async def create(self, vm: Any) -> None:
        await self._fuse.around(lambda: SimulatedDriver.create(self, vm))

    async def update(self, vm: Any) -> None:
        await self._fuse.around(lambda: SimulatedDriver.update(self, vm))

    async def set_power(self, uid: str, power: PowerState, *, grace_s: float) -> None:
        await self._fuse.around(lambda: SimulatedDriver.set_power(self, uid, power, grace_s=grace_s))

    async def destroy(self, uid: str, *, grace_s: float) -> None:
        await self._fuse.around(lambda: SimulatedDriver.destroy(self, uid, grace_s=grace_s))


class FusedJournal(Journal):
    fuse: Fuse

    async def put(self, record: Record) -> None:
        await self.fuse.around(lambda: Journal.put(self, record))

    async def remove(self, uid: str) -> None:
        await self.fuse.around(lambda: Journal.remove(self, uid))


def assigned(spec: MicroVMSpec | None, **changes: int) -> Assignments:
    fields = {"epoch": 1, "generation": 1, "repair_seq": 0, "restart_seq": 0, **changes}
    one = Assignment(uid="a", namespace="demo", name="web", spec=spec, **fields)
    return Assignments(cluster_id="test", revision=1, by_uid={"a": one})


async def live(directory: Path, wanted: Assignments, *, burns_at: int = 10**6) -> tuple[Plan, Sequence[Instance]]:
    """One life of an agent: plan and act until nothing is left to do, or until the fuse burns."""
    fuse = Fuse(burns_at)
    driver = FusedDriver(directory / "driver", fuse)
    await driver.start()
    journal = FusedJournal.open(directory / "journal")
    assert isinstance(journal, FusedJournal)
    journal.fuse = fuse
    lister = Lister({"simulated": driver}, timeout_s=5, gather_s=0)
    executor = Executor({"simulated": driver}, journal, lister, call_timeout_s=5, grace_s=0)
    try:
        for _ in range(10):
            listing = (await lister.fresh()).listing
            decided = plan(
                wanted,
                journal.records,
                listing,
                drivers=["simulated"],
                default_driver="simulated",
                capacity=Amount(vcpu=64, memory_in_mb=65536),
                may_run=lambda _: True,
            )
            if not decided.steps:
                return decided, await driver.list()
            for step in decided.steps.values():
                await executor.execute(step, "test")
        pytest.fail("the plan does not end")
    finally:
        await lister.close()
        await driver.stop()


SPEC = microvm_spec()
CHANGES = [
    pytest.param(None, assigned(SPEC), id="create"),
    pytest.param(None, assigned(microvm_spec(power_state=PowerState.PAUSED)), id="create-paused"),
    pytest.param(assigned(SPEC), assigned(microvm_spec(vcpu=2), generation=2), id="update"),
    pytest.param(
        assigned(SPEC), assigned(microvm_spec(power_state=PowerState.STOPPED), generation=2), id="update-power"
    ),
    pytest.param(assigned(SPEC), assigned(SPEC, restart_seq=1), id="restart"),
    pytest.param(assigned(SPEC), assigned(None), id="destroy"),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
async def test_interrupted_anywhere_it_is_completed(
    tmp_path: Path, before: Assignments | None, after: Assignments
) -> None:
    for burns_at in itertools.count():
        directory = tmp_path / str(burns_at)
        if before is not None:
            await live(directory, before)
        try:
            await live(directory, after, burns_at=burns_at)
        except Crash:
            interrupted = True
        else:
            interrupted = False
        decided, there = await live(directory, after)
        wanted = after.by_uid["a"]
        if wanted.spec is None:
            assert not there
            assert decided.confirmed == {"a": 1}
        else:
            (one,) = there
            assert (one.power.value, one.vcpu, one.epoch) == (wanted.spec.power_state.value, wanted.spec.vcpu, 1)
            (kept,) = Journal.open(directory / "journal").records.values()
            assert (kept.phase, kept.generation, kept.restart_seq) == (
                RecordPhase.ACTIVE,
                wanted.generation,
                wanted.restart_seq,
            )
        if not interrupted:
            assert burns_at >= 4, "every effect was interrupted once"
            return


async def test_the_intent_is_on_disk_before_the_driver_is_called(tmp_path: Path) -> None:
    class Witness(SimulatedDriver):
        async def create(self, vm: Any) -> None:
            (kept,) = Journal.open(tmp_path / "journal").records.values()
            assert kept.phase is RecordPhase.CREATING
            await super().create(vm)

        async def destroy(self, uid: str, *, grace_s: float) -> None:
            (kept,) = Journal.open(tmp_path / "journal").records.values()
            assert kept.phase is RecordPhase.DESTROYING
            await super().destroy(uid, grace_s=grace_s)

    driver = Witness(tmp_path / "driver")
    await driver.start()
    journal = Journal.open(tmp_path / "journal")
    lister = Lister({"simulated": driver}, timeout_s=5, gather_s=0)
    executor = Executor({"simulated": driver}, journal, lister, call_timeout_s=5, grace_s=0)
    for wanted in (assigned(SPEC), assigned(None)):
        decided = plan(
            wanted,
            journal.records,
            (await lister.fresh()).listing,
            drivers=["simulated"],
            default_driver="simulated",
            capacity=Amount(vcpu=64, memory_in_mb=65536),
            may_run=lambda _: True,
        )
        await executor.execute(decided.steps["a"], "test")
    assert not journal.records
    await lister.close()
    await driver.stop()


async def test_a_driver_that_lies_is_found_out(tmp_path: Path) -> None:
    class Liar(SimulatedDriver):
        async def create(self, vm: Any) -> None:
            """Says that it did."""

    driver = Liar(tmp_path / "driver")
    await driver.start()
    journal = Journal.open(tmp_path / "journal")
    lister = Lister({"simulated": driver}, timeout_s=5, gather_s=0)
    executor = Executor({"simulated": driver}, journal, lister, call_timeout_s=5, grace_s=0)
    listing = (await lister.fresh()).listing
    decided = plan(
        assigned(SPEC),
        {},
        listing,
        drivers=["simulated"],
        default_driver="simulated",
        capacity=Amount(vcpu=64, memory_in_mb=65536),
        may_run=lambda _: True,
    )
    with pytest.raises(DriverError, match="does not list the microVM") as found:
        await executor.execute(decided.steps["a"], "test")
    assert found.value.code == "NotConverged"
    assert journal.records["a"].phase is RecordPhase.CREATING
    await lister.close()
    await driver.stop()


async def test_what_a_destroy_leaves_behind_is_named_and_not_confirmed(tmp_path: Path) -> None:
    driver = SimulatedDriver(tmp_path / "driver")
    await driver.start()
    journal = Journal.open(tmp_path / "journal")
    lister = Lister({"simulated": driver}, timeout_s=5, gather_s=0)
    executor = Executor({"simulated": driver}, journal, lister, call_timeout_s=5, grace_s=0)

    async def planned(wanted: Assignments) -> Plan:
        listing = (await lister.fresh()).listing
        return plan(
            wanted,
            journal.records,
            listing,
            drivers=["simulated"],
            default_driver="simulated",
            capacity=Amount(vcpu=64, memory_in_mb=65536),
            may_run=lambda _: True,
        )

    await executor.execute((await planned(assigned(SPEC))).steps["a"], "test")
    store = Store(tmp_path / "driver")
    store.set_fault(Fault(call="leftovers", target="a", code="", message="tap sim0", times=1))
    with pytest.raises(DriverError, match="still there: tap sim0"):
        await executor.execute((await planned(assigned(None))).steps["a"], "test")
    again = await planned(assigned(None))
    assert not again.confirmed
    await executor.execute(again.steps["a"], "test")
    assert (await planned(assigned(None))).confirmed == {"a": 1}
    store.close()
    await lister.close()
    await driver.stop()
