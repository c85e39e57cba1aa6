"""The runner that empties hosts: real machine, real deciders; agents that answer as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import pytest
from support.builders import act_on_host, declare_microvm, declare_namespace, destroyed, observation, place, report
from unit.reconcile.world import World, session

from controlplane.model.commands import Evict, HostAction, Report
from controlplane.model.resources import Bid, MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.spec import Placement
from controlplane.ports import BidRequestItem, HostUnreachableError, PlanItem, Presence
from controlplane.reconcile import evacuation
from controlplane.reconcile.evacuation import EvacuationRunner


class Agents:
    """Every host offers, but for the silent ones."""

    def __init__(self) -> None:
        self.silent: set[str] = set()

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        if host in self.silent:
            raise HostUnreachableError("no session")
        return {item.uid: Bid(host=host, score=0.5) for item in items}

    async def plan(self, host: str, *, timeout_s: float) -> Sequence[PlanItem]:
        raise NotImplementedError

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        raise NotImplementedError

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        raise NotImplementedError


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Two hosts; on the first one, two microVMs that may move and one that may not."""
    monkeypatch.setattr(evacuation, "GATHER_S", 0.0)
    world = World()
    for name in ("h1", "h2"):
        world.add_host(name)
    world.accept(declare_namespace())
    for name, placement in (("a", Placement()), ("b", Placement()), ("pinned", Placement(host="h1"))):
        world.accept(declare_microvm(name, placement=placement))
        world.accept(place(vm(world, name)))
        world.accept(report(observation(vm(world, name)), session=session("h1")))
    return world


def vm(world: World, name: str) -> MicroVM:
    found = world.state.microvm("demo", name)
    assert found is not None
    return found


def is_done(world: World) -> bool:
    evacuating = world.host().evacuating
    return evacuating is not None and evacuating.done_at is not None


async def run(
    world: World, agents: Agents, *, until: Callable[[], bool] = lambda: False, leads: Callable[[], bool] = lambda: True
) -> None:
    """Many rounds, or until something is so."""
    running = asyncio.create_task(EvacuationRunner(world, world, agents, leads).run())
    for _ in range(300):
        if until():
            break
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def arrive(world: World, name: str) -> None:
    """What is told to end on h1 ends, and is started on h2."""
    gone = destroyed(vm(world, name))
    world.accept(Report(host="h1", session=session("h1"), destroyed=gone.destroyed))
    world.accept(place(vm(world, name), "h2"))
    world.accept(report(observation(vm(world, name)), host="h2", session=session("h2")))


async def test_a_host_is_emptied_by_whoever_leads_from_wherever_it_stands(world: World) -> None:
    agents = Agents()
    world.accept(act_on_host(HostAction.DRAIN))
    await run(world, agents, until=lambda: vm(world, "a").phase is MicroVMPhase.MOVING)
    await run(world, agents)
    assert [each.uid for each in world.commands if isinstance(each, Evict)] == ["vm-a"], "one at a time, once"
    arrive(world, "a")
    await run(world, agents, until=lambda: vm(world, "b").phase is MicroVMPhase.MOVING)
    arrive(world, "b")
    await run(world, agents)
    assert not is_done(world), "one stays"
    world.accept(act_on_host(HostAction.MAINTENANCE))
    await run(world, agents, until=lambda: vm(world, "pinned").is_halted)
    world.accept(
        report(observation(vm(world, "pinned"), power=ObservedPower.STOPPED, halted=True), session=session("h1"))
    )
    await run(world, agents, until=lambda: is_done(world))
    assert is_done(world)


async def test_who_does_not_lead_moves_nothing(world: World) -> None:
    world.accept(act_on_host(HostAction.DRAIN))
    await run(world, Agents(), leads=lambda: False)
    assert not any(isinstance(each, Evict) for each in world.commands)


async def test_without_an_answer_nothing_is_shut_down(world: World) -> None:
    agents = Agents()
    agents.silent = {"h2"}
    world.accept(act_on_host(HostAction.DRAIN))
    await run(world, agents)
    assert not any(isinstance(each, Evict) for each in world.commands)
    assert vm(world, "a").stay is None
    agents.silent = set()
    await run(world, agents, until=lambda: vm(world, "a").phase is MicroVMPhase.MOVING)


async def test_a_lost_outcome_moves_nothing_twice(world: World) -> None:
    world.accept(act_on_host(HostAction.DRAIN))
    world.lose = True
    await run(world, Agents())
    assert [each.uid for each in world.commands if isinstance(each, Evict)] == ["vm-a"]
    assert vm(world, "a").epoch == 1
