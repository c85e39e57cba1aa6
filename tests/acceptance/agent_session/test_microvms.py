"""What is placed on a host is made there, changed, restarted and destroyed, through restarts of the agent."""

from __future__ import annotations

import asyncio

from acceptance.agent_session.world import Cluster
from support.builders import begin_incarnation, declare_microvm

from controlplane.drivers.simulated import SimulatedDriver
from controlplane.model.commands import Act, Action, Delete
from controlplane.model.resources import HostPhase, MicroVMPhase, ObservedPower
from controlplane.model.spec import PowerState
from controlplane.model.types import Kind


async def test_a_placed_microvm_is_created_and_settles(ready: Cluster) -> None:
    await ready.place(vcpu=2)
    vm = await ready.settled()
    assert vm.phase is MicroVMPhase.ACTIVE
    assert vm.observed is not None
    assert (vm.observed.power, vm.observed.vcpu, vm.observed.simulated) == (ObservedPower.RUNNING, 2, True)


async def test_changes_travel_by_events_and_not_by_looking_again(ready: Cluster) -> None:
    begun_s = asyncio.get_running_loop().time()
    await ready.place()
    await ready.settled()
    assert asyncio.get_running_loop().time() - begun_s < 3.0, "the gateway looks again every 5 s"


async def test_an_update_and_a_change_of_power_settle(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.replica.accept(declare_microvm(vcpu=4, power_state=PowerState.PAUSED))
    vm = await ready.settled()
    assert vm.observed is not None
    assert (vm.observed.power, vm.observed.vcpu) == (ObservedPower.PAUSED, 4)


async def test_a_restart_is_carried_out_and_confirmed(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.replica.accept(Act(namespace="demo", name="web", action=Action.RESTART))
    vm = await ready.settled()
    assert vm.observed is not None
    assert vm.observed.restart_seq == vm.restart_seq == 1
    _, console = await ready.gateways["n1"].link.console("h1", vm.meta.uid, offset=0, limit=65536, timeout_s=5)
    assert b"stopped on request" in console


async def test_a_tombstone_is_carried_out_and_confirmed(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    await ready.reaches(ready.gone)
    assert await ready.drivers["h1"].list() == ()
    await ready.reaches(lambda: not list((ready.directory / "h1" / "journal").iterdir()))


async def test_an_idle_host_writes_nothing_to_the_log(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    written = len(ready.replica.commands)
    await asyncio.sleep(1.6)  # more than one complete report and three listings
    assert len(ready.replica.commands) == written


async def test_microvms_outlive_the_agent_and_are_found_again(ready: Cluster) -> None:
    before = await ready.place()
    await ready.settled()
    uid = before.meta.uid
    await ready.stop_agent()
    other = SimulatedDriver(ready.simulated_dir())
    await other.start()
    (alone,) = await other.list()
    await other.stop()
    assert alone.power is ObservedPower.RUNNING
    ready.start_agent()
    await ready.connected()
    await ready.replica.accept(declare_microvm(vcpu=3))
    vm = await ready.settled()
    assert vm.meta.uid == uid
    assert vm.epoch == before.epoch
    assert len(await ready.drivers["h1"].list()) == 1


async def test_deleting_while_the_agent_is_away(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.stop_agent()
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    ready.start_agent()
    await ready.reaches(ready.gone)
    assert await ready.drivers["h1"].list() == ()


async def test_a_host_that_nobody_declared_gets_nothing(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    cluster.start_agent()
    await cluster.connected()
    await cluster.reaches(lambda: "h1" in cluster.replica.state.hosts)
    assert not cluster.replica.state.hosts["h1"].declared
    await cluster.declared()
    await cluster.place()
    await cluster.settled()


async def test_a_host_is_told_nothing_before_the_incarnation_has_begun(ready: Cluster) -> None:
    """What the restored state says of it may run elsewhere, and its own lease may be one of the lost history."""
    await ready.place("held")
    held = await ready.settled("held")
    ready.replica.incarnation = 2
    late = await ready.place("late")
    await asyncio.sleep(0.7)  # more than one resync
    assert [each.uid for each in await ready.drivers["h1"].list()] == [held.meta.uid]
    await ready.replica.accept(begin_incarnation())
    # The session ends, and what the next one reports is of what it was assigned.
    await ready.reaches(lambda: ready.replica.state.begun is not None and not ready.replica.state.begun.awaited)
    assert ready.replica.state.hosts["h1"].phase is HostPhase.READY
    assert (await ready.settled("late")).epoch == late.epoch == 1
