"""Orders to delete what is left behind: carried out when nothing that lives here needs it, and again until it is so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import microvm_spec

from controlplane.agent.assignments import Assignment, Assignments, Clearing
from controlplane.agent.clearing import RETRY_S, Clearer, due
from controlplane.agent.journal import Record, RecordPhase
from controlplane.agent.plan import Found, Listing
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.drivers.simulated.store import Fault, Store
from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.ports import Instance, Remains
from controlplane.system import SystemClock

TAP = Remains("simulated", LeftoverKind.TAP, "tap/fl0", uid="a", epoch=3, marked=True)
VOLUMES = Remains("simulated", LeftoverKind.VOLUMES, "quarantine/a-3", uid="a", epoch=3, marked=True)
ORDERS = [Clearing("simulated", left.name, "the policy says so") for left in (TAP, VOLUMES)]


class ManualClock(SystemClock):
    now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s


def assignment(uid: str = "a", epoch: int = 4) -> Assignment:
    return Assignment(
        uid=uid, namespace="demo", name=uid, epoch=epoch, generation=1, repair_seq=0, restart_seq=0, spec=microvm_spec()
    )


def assigned(*those: Assignment, orders: list[Clearing] = ORDERS, governs: bool = True) -> Assignments:
    return Assignments("c", 1, {each.uid: each for each in those}, clearings=orders, governs_leftovers=governs)


def record(uid: str = "a") -> dict[str, Record]:
    return {uid: Record(uid=uid, epoch=3, phase=RecordPhase.ACTIVE, driver="simulated", generation=1)}


def running(uid: str | None = "a") -> Found:
    instance = Instance(
        uid=uid,
        native_id="1",
        cluster_id="c",
        namespace=None,
        name=None,
        epoch=3,
        generation=None,
        power=ObservedPower.RUNNING,
        ready=False,
        vcpu=None,
        memory_in_mb=None,
        cause=None,
        details={},
        interfaces={},
    )
    return Found("simulated", instance)


def names(assignments: Assignments, listing: Listing, records: dict[str, Record] | None = None) -> list[str]:
    return [order.name for order in due(assignments, records or {}, listing)]


THERE = Listing(found=[], leftovers=[TAP, VOLUMES])


def test_what_is_ordered_and_still_left_is_due() -> None:
    assert names(assigned(), THERE) == [TAP.name, VOLUMES.name]
    assert names(assigned(), Listing(found=[], leftovers=[VOLUMES])) == [VOLUMES.name]
    assert names(assigned(), Listing(found=[], leftovers=None)) == [], "who cannot look deletes nothing"
    assert names(assigned(orders=[]), THERE) == []


def test_nothing_of_what_is_to_be_here_or_is_here_is_deleted() -> None:
    assert names(assigned(assignment()), THERE) == [VOLUMES.name], "those are of an earlier placement"
    assert names(assigned(assignment(epoch=3)), THERE) == []
    assert names(assigned(), THERE, record()) == [VOLUMES.name]
    assert names(assigned(), Listing(found=[running()], leftovers=[TAP, VOLUMES])) == [VOLUMES.name]


@given(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc")))
def test_whatever_lives_here_keeps_its_taps(to_be: set[str], known: set[str], found: set[str]) -> None:
    taps = [Remains("simulated", LeftoverKind.TAP, f"tap/{uid}", uid=uid, marked=True) for uid in "abc"]
    orders = [Clearing("simulated", left.name, "") for left in taps]
    records = {uid: record(uid)[uid] for uid in known}
    listing = Listing(found=[running(uid) for uid in found], leftovers=taps)
    deleted = names(assigned(*map(assignment, to_be), orders=orders), listing, records)
    assert set(deleted) == {f"tap/{uid}" for uid in set("abc") - to_be - known - found}


# -- carrying them out -------------------------------------------------------------------------------------------------


async def test_orders_are_carried_out_and_what_fails_is_tried_again_later(tmp_path: Path) -> None:
    driver, clock = SimulatedDriver(tmp_path), ManualClock()
    await driver.start()
    store = Store(tmp_path)
    for left in (TAP, VOLUMES):
        store.leave(left)
    store.set_fault(Fault(call="clear", target=TAP.name, code="Broken", message="not now", times=1))
    woken: list[None] = []
    clearer = Clearer({"simulated": driver}, clock, timeout_s=5, wake=lambda: woken.append(None))

    async def once() -> list[str]:
        async with asyncio.TaskGroup() as group:
            left = await driver.leftovers()
            clearer.start(group, assigned(), due(assigned(), {}, Listing(found=[], leftovers=left)))
        return [each.name for each in await driver.leftovers()]

    assert await once() == [TAP.name], "one that fails does not keep the other"
    assert woken
    assert await once() == [TAP.name], "not at once again"
    clock.now_s += RETRY_S
    assert await once() == []
    store.close()
    await driver.stop()


async def test_what_is_not_marked_and_whose_driver_is_not_here_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = SimulatedDriver(tmp_path)
    await driver.start()
    store = Store(tmp_path)
    theirs = Remains("simulated", LeftoverKind.FOLDER, "vms/theirs")
    store.leave(theirs)
    orders = [Clearing("simulated", theirs.name, ""), Clearing("qemu", "tap/fl0", "")]
    clearer = Clearer({"simulated": driver}, ManualClock(), timeout_s=5, wake=lambda: None)
    async with asyncio.TaskGroup() as group:
        clearer.start(group, assigned(orders=orders), orders)
    assert [each.name for each in await driver.leftovers()] == [theirs.name]
    store.close()
    await driver.stop()
