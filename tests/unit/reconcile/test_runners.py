"""The scheduler over a real single-node log; only the agents are stood in for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controlplane.consensus import RaftNode, RaftSettings
from controlplane.machine.entry import MachineState
from controlplane.machine.outcome import Applied
from controlplane.model.commands import AgentConnected, DeclareHost, DeclareMicroVM, DeclareNamespace
from controlplane.model.resources import Amount, Bid, DriverFacts, Inventory, MicroVMPhase
from controlplane.model.spec import HostSpec, Kernel, MicroVMSpec, NamespaceSpec
from controlplane.ports import BidRequestItem, HostUnreachableError, Presence
from controlplane.reconcile.scheduler import Scheduler
from controlplane.replica import Replica
from controlplane.system import SystemClock, Ulids


@dataclass
class Agents:
    """Answers bids from a table; hosts that are not in it do not answer."""

    scores: dict[str, float]
    refusals: dict[str, str] = field(default_factory=dict)
    present: list[Presence] = field(default_factory=list)
    takes: set[str] | None = None
    """The only uids that hosts bid for; None: all."""

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        if host in self.refusals:
            return {item.uid: Bid(host=host, refused=self.refusals[host]) for item in items}
        if host not in self.scores:
            raise HostUnreachableError("no session")
        return {
            item.uid: Bid(host=host, score=self.scores[host])
            if self.takes is None or item.uid in self.takes
            else Bid(host=host, refused="taken by nobody")
            for item in items
        }

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        raise HostUnreachableError("no session")

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        return [], []


@pytest.fixture
async def replica(tmp_path: Path) -> AsyncIterator[Replica]:
    node = RaftNode(RaftSettings(node="n1", cluster_id="c1", data_dir=tmp_path), MachineState("c1"))
    await node.start()
    replica = Replica(node, cluster_id="c1", clock=SystemClock(), ids=Ulids())
    following = asyncio.create_task(replica.run())
    await replica.propose(DeclareNamespace(name="demo", uid=Ulids().new(), spec=NamespaceSpec()), actor="test")
    await replica.until(lambda _: replica.is_leader, timeout_s=5)
    yield replica
    following.cancel()
    await asyncio.wait([following])
    await node.stop()


async def add_host(replica: Replica, name: str, *, vcpu: int = 8) -> None:
    await replica.propose(DeclareHost(name=name, uid=Ulids().new(), spec=HostSpec()), actor="test")
    inventory = Inventory(
        agent_version="1",
        boot_id="b",
        drivers=[DriverFacts(name="simulated", simulated=True)],
        capacity=Amount(vcpu=vcpu, memory_in_mb=8192),
    )
    outcome = await replica.propose(
        AgentConnected(host=name, uid="unused", session=f"s-{name}", node="n1", inventory=inventory), actor="test"
    )
    assert isinstance(outcome, Applied)


async def declare(replica: Replica, name: str, *, vcpu: int = 2) -> str:
    uid = Ulids().new()
    spec = MicroVMSpec(vcpu=vcpu, memory_in_mb=128, kernel=Kernel(image="demo/kernel:1"))
    await replica.propose(DeclareMicroVM(namespace="demo", name=name, uid=uid, spec=spec), actor="test")
    return uid


async def test_the_lowest_bid_wins_and_the_losing_bids_are_kept(replica: Replica) -> None:
    for host in ("h1", "h2", "h3"):
        await add_host(replica, host)
    agents = Agents(scores={"h1": 0.5, "h2": 0.2}, refusals={"h3": "image demo/kernel:1 is not in its store"})
    running = asyncio.create_task(Scheduler(replica, replica, agents, lambda: True).run())
    uid = await declare(replica, "a")
    state = await replica.until(lambda now: now.microvms[uid].phase is MicroVMPhase.PLACED, timeout_s=10)
    running.cancel()
    assert state is not None
    decision = state.microvms[uid].placement
    assert decision is not None
    assert decision.host == "h2"
    assert {bid.host: bid.refused for bid in decision.bids} == {
        "h1": None,
        "h2": None,
        "h3": "image demo/kernel:1 is not in its store",
    }


async def test_a_round_spreads_its_own_placements(replica: Replica) -> None:
    for host in ("h1", "h2", "h3"):
        await add_host(replica, host)
    uids = [await declare(replica, f"vm{i}") for i in range(6)]
    agents = Agents(scores=dict.fromkeys(("h1", "h2", "h3"), 0.1))
    running = asyncio.create_task(Scheduler(replica, replica, agents, lambda: True).run())
    state = await replica.until(lambda now: not now.pending, timeout_s=10)
    running.cancel()
    assert state is not None
    placed = [decision.host for uid in uids if (decision := state.microvms[uid].placement) is not None]
    assert sorted(placed) == ["h1", "h1", "h2", "h2", "h3", "h3"]


async def test_what_fits_nowhere_says_why_and_is_placed_when_capacity_appears(replica: Replica) -> None:
    await add_host(replica, "h1", vcpu=1)
    agents = Agents(scores={"h1": 0.1, "h2": 0.1})
    running = asyncio.create_task(Scheduler(replica, replica, agents, lambda: True).run())
    uid = await declare(replica, "a")
    state = await replica.until(lambda now: now.microvms[uid].unplaced is not None, timeout_s=10)
    assert state is not None
    unplaced = state.microvms[uid].unplaced
    assert unplaced is not None
    assert unplaced.reason == "NoHostFits"
    assert "needs 2 vcpu, 1 of 1 are free" in unplaced.message
    await add_host(replica, "h2")
    state = await replica.until(lambda now: now.microvms[uid].placement is not None, timeout_s=10)
    running.cancel()
    assert state is not None
    assert state.microvms[uid].unplaced is None


async def test_a_round_that_changes_nothing_writes_nothing(replica: Replica) -> None:
    await add_host(replica, "h1", vcpu=1)
    scheduler = Scheduler(replica, replica, Agents(scores={}), lambda: True)
    running = asyncio.create_task(scheduler.run())
    uid = await declare(replica, "a")
    assert await replica.until(lambda now: now.microvms[uid].unplaced is not None, timeout_s=10)
    revision = replica.state.revision
    # Longer than two retries of the scheduler.
    assert await replica.until(lambda now: now.revision > revision, timeout_s=2.5) is None
    running.cancel()


async def test_a_follower_places_nothing(replica: Replica) -> None:
    await add_host(replica, "h1")
    running = asyncio.create_task(Scheduler(replica, replica, Agents(scores={"h1": 0.1}), lambda: False).run())
    uid = await declare(replica, "a")
    assert await replica.until(lambda now: now.microvms[uid].placement is not None, timeout_s=1.5) is None
    running.cancel()


class NotBegun(Replica):
    """Of a log that was restored."""

    @property
    def begun(self) -> bool:
        return False


async def test_nothing_is_placed_before_the_incarnation_has_begun(replica: Replica) -> None:
    await add_host(replica, "h1")
    replica.__class__ = NotBegun
    running = asyncio.create_task(Scheduler(replica, replica, Agents(scores={"h1": 0.1}), lambda: True).run())
    uid = await declare(replica, "a")
    assert await replica.until(lambda now: now.microvms[uid].placement is not None, timeout_s=1.5) is None
    replica.__class__ = Replica
    assert await replica.until(lambda now: now.microvms[uid].placement is not None, timeout_s=5) is not None
    running.cancel()


async def test_many_that_fit_nowhere_do_not_keep_the_others_waiting(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.reconcile.scheduler.MAX_PER_ROUND", 2)
    await add_host(replica, "h1")
    hopeless = [await declare(replica, f"hopeless{i}", vcpu=64) for i in range(5)]
    agents = Agents(scores={"h1": 0.1})
    running = asyncio.create_task(Scheduler(replica, replica, agents, lambda: True).run())
    fits = await declare(replica, "fits")
    assert await replica.until(lambda now: now.microvms[fits].placement is not None, timeout_s=10) is not None
    assert (
        await replica.until(lambda now: all(now.microvms[uid].unplaced for uid in hopeless), timeout_s=10) is not None
    )
    # What was tried in vain is tried again in turn: the last of them gets its host although the others still wait.
    agents.scores["h2"], agents.takes = 0.1, {hopeless[-1]}
    await add_host(replica, "h2", vcpu=64)
    assert await replica.until(lambda now: now.microvms[hopeless[-1]].placement is not None, timeout_s=10) is not None
    running.cancel()


@dataclass
class BrokenOnce(Agents):
    broken: bool = True

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        if self.broken:
            self.broken = False
            raise RuntimeError("a mistake in the product")
        return await super().bids(host, items, timeout_s=timeout_s)


async def test_a_round_that_fails_is_tried_again_and_takes_nothing_else_down(replica: Replica) -> None:
    await add_host(replica, "h1")
    running = asyncio.create_task(Scheduler(replica, replica, BrokenOnce(scores={"h1": 0.1}), lambda: True).run())
    uid = await declare(replica, "a")
    assert await replica.until(lambda now: now.microvms[uid].placement is not None, timeout_s=5) is not None
    running.cancel()
