"""The runner of failover: what it proposes, and what it says of what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.builders import (
    confirm_fenced,
    declare_microvm,
    declare_namespace,
    detached,
    fenced,
    observation,
    place,
    report,
)
from unit.reconcile.world import World, session

from controlplane.decide.breaker import FailoverLimits
from controlplane.model.commands import Resurrect
from controlplane.model.resources import MicroVM, MicroVMPhase
from controlplane.model.spec import HostFailure, Recovery
from controlplane.reconcile import failover
from controlplane.reconcile.failover import FailoverRunner

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Four hosts, and three microVMs on the first, one of which stays with its host."""
    monkeypatch.setattr(failover, "GATHER_S", 0.0)
    world = World()
    for number in (1, 2, 3, 4):
        world.add_host(f"h{number}")
    world.accept(declare_namespace())
    for name, recovery in (("a", MOVES), ("b", MOVES), ("c", Recovery())):
        world.accept(declare_microvm(name, recovery=recovery))
        world.accept(place(vm(world, name)))
        world.accept(report(observation(vm(world, name)), session=session("h1")))
    return world


def vm(world: World, name: str) -> MicroVM:
    found = world.state.microvm("demo", name)
    assert found is not None
    return found


def lose(world: World, name: str) -> None:
    world.accept(detached(name, session=session(name)))
    world.accept(fenced(name))


def resurrected(world: World) -> list[str]:
    return [each.uid for each in world.commands if isinstance(each, Resurrect)]


async def run(world: World, *, per_round: int = 100, until: Callable[[], bool] = lambda: False) -> list[Any]:
    """Many rounds, or until something is so; gives what was logged."""
    limits = FailoverLimits(per_round=per_round)
    with capture_logs() as logs:
        running = asyncio.create_task(
            FailoverRunner(world, world, world, leading_term=lambda: world.term, limits=limits).run()
        )
        for _ in range(200):
            if until():
                break
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return logs


def said(logs: list[Any], event: str) -> list[Any]:
    return [each for each in logs if each["event"] == f"failover.{event}"]


async def test_what_moves_is_given_up_once_and_what_does_not_is_named_once(world: World) -> None:
    lose(world, "h1")
    logs = await run(world)
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]
    assert vm(world, "a").phase is MicroVMPhase.PENDING
    (held,) = said(logs, "held")
    assert (held["microvms"], held["some"]) == (1, ["vm-c"])


async def test_nothing_is_given_up_before_the_incarnation_has_begun(world: World) -> None:
    lose(world, "h1")
    world.incarnation = 2
    await run(world)
    assert resurrected(world) == []


async def test_a_silent_host_that_is_not_fenced_keeps_all(world: World) -> None:
    world.accept(detached("h1", session=session("h1")))
    await run(world)
    assert resurrected(world) == []


async def test_many_are_given_up_round_by_round(world: World) -> None:
    lose(world, "h1")
    await run(world, per_round=1)
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]


async def test_a_node_that_does_not_lead_gives_nothing_up(world: World) -> None:
    lose(world, "h1")
    world.term = None
    await run(world)
    assert resurrected(world) == []


async def test_what_a_deposed_leader_decides_is_refused(world: World) -> None:
    lose(world, "h1")
    world.leads_in = 2
    logs = await run(world, until=lambda: bool(resurrected(world)))
    assert vm(world, "a").phase is MicroVMPhase.ACTIVE
    assert len(said(logs, "conflict")) == 2


async def test_a_proposal_that_is_lost_is_made_again(world: World) -> None:
    lose(world, "h1")
    world.refuse = True
    logs = await run(world)
    assert said(logs, "not_committed")
    world.refuse = False
    await run(world)
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]


async def test_an_outcome_that_is_lost_gives_nothing_up_twice(world: World) -> None:
    lose(world, "h1")
    world.lose = True
    await run(world)
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]


async def test_the_breaker_is_told_when_it_opens_and_when_it_closes(world: World) -> None:
    for name in ("h1", "h2", "h3"):
        lose(world, name)
    runner = FailoverRunner(world, world, world, leading_term=lambda: world.term, limits=FailoverLimits())
    with capture_logs() as logs:
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.01)
        assert resurrected(world) == []
        for name in ("h2", "h3"):
            world.connect(name, number=2)
        await asyncio.sleep(0.01)
        assert resurrected(world) == [], "h1 may be on its way too"
        world.time_s += failover.CALM_S
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
    opened, closed = [each for each in logs if "breaker" in each["event"]]
    assert (opened["event"], opened["log_level"], opened["lost"], opened["of"]) == (
        "failover.breaker_opened",
        "critical",
        3,
        4,
    )
    assert (closed["event"], closed["lost"]) == ("failover.breaker_closed", 1)
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]


async def test_an_operators_word_waits_for_no_breaker(world: World) -> None:
    for name in ("h1", "h2", "h3"):
        lose(world, name)
    world.accept(confirm_fenced("h1"))
    await run(world)
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]


async def test_a_round_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(world, "h1")
    decide, calls = failover.failover, 0

    def broken_once(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a mistake in the product")
        return decide(*arguments, **options)

    monkeypatch.setattr(failover, "failover", broken_once)
    logs = await run(world)
    assert said(logs, "round_broke")
    assert sorted(resurrected(world)) == ["vm-a", "vm-b"]
