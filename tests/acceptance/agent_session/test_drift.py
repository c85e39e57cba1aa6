"""What changes behind an agent's back or fails on its host is repaired or reported."""

from __future__ import annotations

import asyncio

from acceptance.agent_session.world import Cluster
from support.builders import declare_microvm

from controlplane.machine.convergence import differences, is_confirmed
from controlplane.model.commands import Act, Action, Delete
from controlplane.model.resources import MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.spec import DriftPolicy
from controlplane.model.types import Kind


async def test_drift_is_repaired_when_the_policy_says_so(ready: Cluster) -> None:
    vm = await ready.place()
    await ready.settled()
    await ready.tamper("kill", vm.meta.uid)
    await ready.reaches(lambda: details(ready.vm()).get("repairs") == "1")
    assert details(ready.vm())["last_repair"] == "power_state (process exited (signal 9))"
    after = await ready.settled()
    assert after.observed is not None
    assert after.observed.power is ObservedPower.RUNNING
    await ready.tamper("set-vcpu", "--vcpu", "7", vm.meta.uid)
    await ready.reaches(lambda: details(ready.vm()).get("repairs") == "2")
    await ready.settled()
    assert details(ready.vm())["last_repair"] == "vcpu"


async def test_drift_is_reported_and_left_alone_until_a_repair_is_asked_for(ready: Cluster) -> None:
    vm = await ready.place(drift_policy=DriftPolicy.REPORT)
    await ready.settled()
    await ready.tamper("kill", vm.meta.uid)
    await ready.reaches(lambda: bool(differences(ready.vm())))
    await asyncio.sleep(0.7)  # more than one resync
    drifted = ready.vm()
    assert is_confirmed(drifted)
    assert [each.pointer for each in differences(drifted)] == ["/spec/power_state"]
    assert differences(drifted)[0].cause == "process exited (signal 9)"
    await ready.replica.accept(Act(namespace="demo", name="web", action=Action.REPAIR))
    await ready.settled()


async def test_a_vanished_microvm_is_made_again(ready: Cluster) -> None:
    vm = await ready.place()
    await ready.settled()
    await ready.tamper("remove", vm.meta.uid)
    await ready.reaches(lambda: details(ready.vm()).get("last_repair") == "vanished")
    await ready.settled()
    assert len(await ready.drivers["h1"].list()) == 1


async def test_a_stranger_is_reported_and_never_touched(ready: Cluster) -> None:
    await ready.tamper("create", "stranger")
    await ready.reaches(lambda: bool(ready.replica.state.hosts["h1"].unmanaged))
    (found,) = ready.replica.state.hosts["h1"].unmanaged
    assert (found.name, found.driver, found.uid) == ("stranger", "simulated", None)
    await ready.place()
    await ready.settled()
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    await ready.reaches(ready.gone)
    (left,) = await ready.drivers["h1"].list()
    assert left.name == "stranger"
    await ready.tamper("remove", found.native_id)
    await ready.reaches(lambda: not ready.replica.state.hosts["h1"].unmanaged)


async def test_a_failure_is_reported_with_its_field_and_heals(ready: Cluster) -> None:
    await ready.tamper(
        "fail", "*", "--call", "create", "--code", "ImageNotFound", "--pointer", "/spec/kernel/image", "--permanent"
    )
    await ready.place()
    await ready.reaches(lambda: ready.vm().phase is MicroVMPhase.FAILED)
    seen = ready.vm().observed
    assert seen is not None
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.pointer, seen.failure.permanent) == (
        "ImageNotFound",
        "/spec/kernel/image",
        True,
    )
    await ready.tamper("heal")
    await ready.settled()


async def test_a_new_intent_that_fails_in_the_same_way_fails_again(ready: Cluster) -> None:
    await ready.tamper("fail", "*", "--call", "create", "--permanent")
    await ready.place()
    await ready.reaches(lambda: ready.vm().phase is MicroVMPhase.FAILED)
    for vcpu in (2, 3):
        await ready.replica.accept(declare_microvm(vcpu=vcpu))
        assert ready.vm().phase is MicroVMPhase.PLACED
        await ready.reaches(lambda: ready.vm().phase is MicroVMPhase.FAILED)
    await ready.tamper("heal")
    await ready.settled()


async def test_a_passing_failure_is_retried(ready: Cluster) -> None:
    await ready.tamper("fail", "*", "--call", "create", "--times", "4")
    await ready.place()
    await ready.settled()
    await ready.tamper("fail", "*", "--call", "destroy", "--times", "3")
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    await ready.reaches(ready.gone)


async def test_a_driver_that_cannot_list_makes_nothing_absent(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.tamper("fail", "*", "--call", "list")
    await ready.reaches(lambda: ready.vm().observed is not None and ready.vm().observed.failure is not None)
    seen = ready.vm().observed
    assert seen is not None
    assert seen.failure is not None
    assert (seen.failure.code, seen.power) == ("DriverUnavailable", ObservedPower.RUNNING)
    await ready.tamper("heal")
    await ready.settled()


def details(vm: MicroVM) -> dict[str, str]:
    return vm.observed.details if vm.observed is not None else {}
