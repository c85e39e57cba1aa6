"""An agent under a lease, over loopback with mutual TLS: nodes that grant or do not, and the simulated driver."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.builders import microvm_spec
from support.granting_node import GrantingNode
from support.ports import free_ports

from controlplane.agent import Agent, AgentSettings
from controlplane.agent.pacing import Backoff
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.drivers.simulated.store import Store
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles
from controlplane.model.resources import WAITS_FOR_LEASE, ObservedPower
from controlplane.model.spec import DriftPolicy, MicroVMSpec, OnDetach, Recovery
from controlplane.ports import LEASE_ENDED, DriverError, DriverInfo, HostDriver, Lease
from controlplane.system import SystemClock, Ulids

WAIT_S = 15.0


def bound(on_detach: OnDetach = OnDetach.PAUSE, **changes: object) -> MicroVMSpec:
    """One whose drift nobody repairs."""
    return microvm_spec(recovery=Recovery(on_detach=on_detach), drift_policy=DriftPolicy.REPORT, **changes)


class Driver(SimulatedDriver):
    """May be told to take no lease."""

    takes = True

    async def renew(self, lease: Lease) -> None:
        if not self.takes:
            raise DriverError("FenceUnavailable", "the rehearsed failure")
        await super().renew(lease)


@dataclass
class World:
    directory: Path
    nodes: dict[str, GrantingNode]
    tls: TlsFiles
    driver: Driver = field(init=False)
    agent: Agent = field(init=False)
    _task: asyncio.Task[None] | None = None

    async def start(self, *, more: Mapping[str, HostDriver] | None = None, **changes: object) -> None:
        self.driver = Driver(self.directory / "simulated", poll_s=0.02)
        settings = AgentSettings(
            host="h1",
            state_dir=self.directory / "agent",
            endpoints={name: node.address for name, node in self.nodes.items()},
            tls=self.tls,
            **{
                "heartbeat_s": 0.1,
                "grantless_s": 0.4,
                "unresponsive_s": 1.0,
                "reconnect_base_s": 0.02,
                "reconnect_cap_s": 0.1,
                "resync_s": 0.2,
                "grace_s": 0.0,
                "backoff": Backoff(base_s=0.02, cap_s=0.2, permanent_s=0.3),
                **changes,
            },
        )
        self.agent = Agent(settings, {"simulated": self.driver, **(more or {})}, SystemClock(), Ulids())
        self._task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def one(self) -> GrantingNode:
        (node,) = self.nodes.values()
        return node

    async def reaches(self, holds: Callable[[], bool], *, within_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert self._task is None or not self._task.done(), self._task
            assert time.monotonic() < deadline, [(node.name, node.observed) for node in self.nodes.values()]
            await asyncio.sleep(0.01)

    def held_grace_s(self) -> float | None:
        """Of the lease that the driver has."""
        store = Store(self.directory / "simulated")
        try:
            held = store.lease()
        finally:
            store.close()
        return held.grace_s if held is not None else None

    def seen(self, uid: str = "a") -> tuple[str, str] | None:
        """Power and cause as the node was told last."""
        told = self.one.observed.get(uid)
        return (told.power, told.cause) if told is not None else None


RUNS = ("running", "")


async def worlds(tmp_path: Path, *names: str) -> World:
    authority = Authority.create(tmp_path / "ca", cluster_id="test")
    nodes: dict[str, GrantingNode] = {}
    for name, port in zip(names, free_ports(len(names)), strict=True):
        tls = authority.issue_node(name, tmp_path / name)
        nodes[name] = GrantingNode(name=name, tls=tls, address=f"127.0.0.1:{port}")
        await nodes[name].start()
    return World(tmp_path, nodes, authority.issue_host("h1", tmp_path / "h1"))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """One node."""
    made = await worlds(tmp_path, "n1")
    yield made
    await made.stop()
    await made.one.stop()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[World]:
    made = await worlds(tmp_path, "n1", "n2")
    yield made
    await made.stop()
    for node in made.nodes.values():
        await node.stop()


async def test_what_needs_a_lease_waits_for_one_ends_with_it_and_comes_back_with_the_next(world: World) -> None:
    world.one.grants = False
    world.one.assign("a", bound())
    world.one.assign("b", microvm_spec())
    await world.start(grantless_s=60.0)
    await world.reaches(lambda: world.seen("b") == RUNS)
    assert world.seen() is None
    world.one.grants = True
    await world.reaches(lambda: world.seen() == RUNS)
    world.one.grants = False
    await world.reaches(lambda: world.seen() == ("paused", LEASE_ENDED))
    assert world.seen("b") == RUNS
    world.one.grants = True
    await world.reaches(lambda: world.seen() == RUNS)
    world.one.grants, world.one.grace_s = False, 0.0
    world.one.grants = True
    await world.reaches(lambda: world.held_grace_s() == 0.0)
    world.one.grants = False
    await world.reaches(lambda: world.seen() == ("stopped", LEASE_ENDED))
    world.one.grants = True
    await world.reaches(lambda: world.seen() == RUNS)
    assert "repairs" not in world.one.observed["a"].details


async def test_a_grant_for_no_heartbeat_of_ours_is_none(world: World) -> None:
    world.one.off_by = 1000
    world.one.assign("a", bound())
    await world.start(grantless_s=60.0)
    await world.reaches(lambda: world.one.granted > 5)
    assert world.seen() is None
    assert world.one.hellos[-1].held_ttl_ms == 0


async def test_a_driver_that_takes_no_lease_starts_nothing_under_it(world: World) -> None:
    world.one.assign("a", bound())
    Driver.takes = False
    try:
        await world.start()
        await world.reaches(lambda: world.one.granted > 5)
        assert world.seen() is None
    finally:
        Driver.takes = True
    await world.reaches(lambda: world.seen() == RUNS)


async def test_what_waits_for_a_lease_says_since_when_and_why(world: World) -> None:
    world.one.grants = False
    world.one.assign("a", bound())
    await world.start(grantless_s=60.0)
    await world.reaches(lambda: "a" in world.one.observed)
    failure = world.one.observed["a"].failure
    assert (failure.code, failure.permanent) == (WAITS_FOR_LEASE, False)
    assert "none was granted to its host" in failure.message
    since = datetime.fromisoformat(failure.message.removeprefix("waits for a lease since ").partition(": ")[0])
    assert abs((datetime.now(UTC) - since).total_seconds()) < WAIT_S
    await asyncio.sleep(0.5)
    assert world.one.observed["a"].failure.message == failure.message, "it does not change with every look"
    world.one.grants = True
    await world.reaches(lambda: world.seen() == RUNS)
    assert not world.one.observed["a"].HasField("failure")


class Second(SimulatedDriver):
    """Another driver of the same host, which takes no lease while it is told so."""

    takes = False

    @property
    def info(self) -> DriverInfo:
        return replace(super().info, name="second")

    async def renew(self, lease: Lease) -> None:
        if not self.takes:
            raise DriverError("FenceUnavailable", "the rehearsed failure")
        await super().renew(lease)


async def test_a_driver_that_takes_no_lease_is_reported_and_the_others_go_on(world: World) -> None:
    world.one.assign("a", bound())
    world.one.assign("b", bound(provider="second"))
    second = Second(world.directory / "second", poll_s=0.02)
    await world.start(grantless_s=60.0, more={"second": second})
    await world.reaches(lambda: world.seen() == RUNS)
    await world.reaches(lambda: world.one.hellos[-1].drivers[1].lease_problem != "")
    told = {driver.name: driver for driver in world.one.hellos[-1].drivers}
    assert (told["simulated"].fences, told["second"].fences) == (True, False)
    assert told["second"].lease_problem == "FenceUnavailable: the rehearsed failure"
    await world.reaches(lambda: "b" in world.one.observed)
    assert "driver second takes none: FenceUnavailable" in world.one.observed["b"].failure.message
    assert len(world.one.hellos) == 2, "it is said once"
    second.takes = True
    await world.reaches(lambda: world.seen("b") == RUNS)
    assert world.seen() == RUNS


async def test_a_guest_to_be_shut_down_is_asked_while_the_lease_still_lives(world: World) -> None:
    world.one.ttl_s = 4.0
    world.one.assign("a", bound(OnDetach.SHUTDOWN))
    await world.start(grantless_s=60.0)
    await world.reaches(lambda: world.seen() == RUNS)
    world.one.grants = False
    begun_s = time.monotonic()
    await world.reaches(lambda: world.seen() == ("stopped", LEASE_ENDED))
    assert 1.5 <= time.monotonic() - begun_s < 3.9
    _, console = await world.driver.console("a", offset=0, limit=1 << 20)
    assert b"stopped on request" in console, "it was killed, not asked"
    await asyncio.sleep(0.5)
    assert world.seen() == ("stopped", LEASE_ENDED), "it was started again under a lease that is about to end"
    world.one.grants = True
    await world.reaches(lambda: world.seen() == RUNS)


async def test_a_restarted_agent_says_what_is_held_and_starts_nothing_before_its_own_grant(world: World) -> None:
    world.one.ttl_s = 30.0
    world.one.assign("a", bound())
    await world.start(grantless_s=60.0)
    await world.reaches(lambda: world.seen() == RUNS)
    assert world.one.hellos[-1].held_ttl_ms == 0
    await world.stop()
    world.one.grants = False
    await world.start(grantless_s=60.0)
    await world.reaches(lambda: len(world.one.hellos) == 2)
    assert world.one.hellos[-1].held_ttl_ms == 30_000
    world.one.assign("b", bound())
    await world.reaches(lambda: world.seen() == RUNS)  # it ran on
    await asyncio.sleep(0.3)
    assert world.seen("b") is None
    world.one.grants, world.one.ttl_s = True, 0.5
    await world.reaches(lambda: world.seen("b") == RUNS)
    await world.stop()
    await world.start()
    await world.reaches(lambda: len(world.one.hellos) == 3)
    assert world.one.hellos[-1].held_ttl_ms == 30_000, "a shorter lease does not end a longer one"


async def test_a_node_that_only_acknowledges_is_left_for_one_that_grants(two: World) -> None:
    await two.start()
    await two.reaches(lambda: any(node.granted > 3 for node in two.nodes.values()))
    first = next(node for node in two.nodes.values() if node.granted)
    first.grants = False
    other = next(node for node in two.nodes.values() if node is not first)
    await two.reaches(lambda: other.granted > 0, within_s=3.0)


async def test_no_grant_anywhere_does_not_send_it_round_for_ever(two: World) -> None:
    for node in two.nodes.values():
        node.grants = False
    await two.start(grantless_s=0.2)
    await asyncio.sleep(5.0)
    # After 1, 2 and 4 seconds more; a plain deadline would have been a session every 0.2 s.
    sessions = sum(len(node.hellos) for node in two.nodes.values())
    assert 2 <= sessions <= 3


async def test_a_host_that_nobody_declared_stays_where_it_is(world: World) -> None:
    world.one.grants = world.one.admitted = False
    await world.start(grantless_s=0.2)
    await world.reaches(lambda: world.agent.node is not None)
    await asyncio.sleep(2.0)
    assert len(world.one.hellos) == 1


async def test_the_lease_ends_for_guests_of_an_agent_that_is_gone(world: World) -> None:
    world.one.assign("a", bound())
    await world.start()
    await world.reaches(lambda: world.seen() == RUNS)
    await world.stop()
    await asyncio.sleep(1.1)
    other = SimulatedDriver(world.directory / "simulated")
    await other.start()
    (instance,) = await other.list()
    assert (instance.power, instance.cause) == (ObservedPower.PAUSED, LEASE_ENDED)
    await other.stop()
