"""Who is lost, and who is only not known: the presence watch over a state of its own, with time told by the test.

One look takes one second of the test's clock, as it does in the product; nothing here waits for real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest
from support.harness import Replica

from controlplane.model.commands import AgentConnected, DeclareHost
from controlplane.model.resources import Amount, Bid, DriverFacts, HostPhase, Inventory
from controlplane.model.spec import HostSpec
from controlplane.ports import BidRequestItem, HostUnreachableError, Presence
from controlplane.reconcile import presence
from controlplane.reconcile.presence import PresenceWatch

TIMEOUT_S = 10.0


class World:
    """Agents that are heard or not, at nodes that answer or not; and the watch's clock, which every look moves on."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.look_s = 1.0
        self.looks = 0
        self.heard: dict[str, float] = {}
        """Host to the age of its last heartbeat."""
        self.silent_nodes: list[str] = []
        self.away: set[str] = set()
        self.term: int | None = 1
        self.before_look: Callable[[], None] = lambda: None

    def now_ms(self) -> int:
        return int(self.time_s * 1000)

    def monotonic_s(self) -> float:
        return self.time_s

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        self.looks += 1
        self.time_s += self.look_s
        self.before_look()
        sessions = [Presence("n1", host, f"s-{host}", age_s) for host, age_s in self.heard.items()]
        return sessions, self.silent_nodes

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        raise HostUnreachableError("not asked here")

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        raise HostUnreachableError("not asked here")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    # The pause between looks is real time that the test's clock does not see.
    monkeypatch.setattr(presence, "PERIOD_S", 0.0)
    monkeypatch.setattr(presence, "STALLED_S", 2.0)
    return World()


@pytest.fixture
async def replica() -> Replica:
    replica = Replica()
    for host, node in (("h1", "n1"), ("h2", "n2")):
        await replica.accept(DeclareHost(name=host, uid=f"uid-{host}", spec=HostSpec()))
        inventory = Inventory(
            agent_version="1",
            boot_id="b",
            drivers=[DriverFacts(name="simulated", simulated=True)],
            capacity=Amount(vcpu=8, memory_in_mb=8192),
        )
        await replica.accept(AgentConnected(host=host, uid="x", session=f"s-{host}", node=node, inventory=inventory))
    return replica


async def watch(replica: Replica, world: World, *, looks: int) -> dict[str, int]:
    """The look at which each host was found lost, within so many of them."""
    lost: dict[str, int] = {}
    watching = asyncio.create_task(
        PresenceWatch(
            replica,
            replica,
            world,
            world,
            leading_term=lambda: world.term,
            away=lambda: world.away,
            timeout_s=TIMEOUT_S,
        ).run()
    )
    try:
        async with asyncio.timeout(20):
            while world.looks < looks:
                await asyncio.sleep(0)
                for name, host in replica.state.hosts.items():
                    if host.phase is HostPhase.UNREACHABLE:
                        lost.setdefault(name, world.looks)
    finally:
        watching.cancel()
    return lost


async def test_a_session_that_nobody_hears_is_lost_after_the_whole_timeout(replica: Replica, world: World) -> None:
    world.heard = {"h2": 0.2}
    lost = await watch(replica, world, looks=30)
    # The first look begins the wait, so the timeout has passed at the twelfth.
    assert lost.keys() == {"h1"}
    assert 12 <= lost["h1"] <= 13


async def test_a_new_term_begins_the_wait_again(replica: Replica, world: World) -> None:
    def elected_anew() -> None:
        if world.looks == 9:
            world.term = 2

    world.before_look = elected_anew
    lost = await watch(replica, world, looks=30)
    assert 21 <= min(lost.values()) <= 23


async def test_a_node_that_does_not_lead_finds_nobody_lost(replica: Replica, world: World) -> None:
    world.term = None
    watching = asyncio.create_task(watch(replica, world, looks=1))
    done, _ = await asyncio.wait([watching], timeout=0.3)
    assert not done
    watching.cancel()
    assert world.looks == 0


async def test_a_process_that_was_stopped_begins_the_wait_again(replica: Replica, world: World) -> None:
    """Its own sessions are as old as the stop was long, and so is all it knows of the others'."""

    def stopped() -> None:
        if world.looks == 5:
            world.time_s += 60.0
            world.heard = {"h1": 60.0, "h2": 60.0}
        elif world.looks == 6:
            world.heard = {"h1": 0.1, "h2": 61.0}

    world.before_look = stopped
    world.heard = {"h1": 0.1, "h2": 0.1}
    lost = await watch(replica, world, looks=30)
    assert lost.keys() == {"h2"}
    assert lost["h2"] >= 15


async def test_a_host_at_a_node_that_does_not_answer_is_not_known_to_be_lost(replica: Replica, world: World) -> None:
    world.heard = {"h1": 0.1}
    world.silent_nodes = ["n2"]
    assert await watch(replica, world, looks=40) == {}


async def test_it_is_lost_when_the_log_does_not_hear_that_node_either(replica: Replica, world: World) -> None:
    def gone() -> None:
        if world.looks == 15:
            world.away = {"n2"}

    world.before_look = gone
    world.heard = {"h1": 0.1}
    world.silent_nodes = ["n2"]
    lost = await watch(replica, world, looks=40)
    assert lost.keys() == {"h2"}
    assert lost["h2"] >= 25, "the whole timeout, from when its node was known to be away"


async def test_a_look_that_fails_is_taken_again(replica: Replica, world: World) -> None:
    def broken() -> None:
        if world.looks == 1:
            raise RuntimeError("a mistake in the product")

    world.before_look = broken
    assert (await watch(replica, world, looks=30)).keys() == {"h1", "h2"}
