"""The collector's runner: what it proposes, and what it says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.builders import declare_microvm, declare_namespace, failure, observation, place, report
from unit.reconcile.world import World, session

from controlplane.model.commands import Collect, Hold, HoldKind
from controlplane.model.gc import Trigger
from controlplane.model.resources import MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.spec import GCPolicySpec
from controlplane.reconcile.gc import GCRunner
from controlplane.settings import GCSettings

NAMES = ("a", "b", "c")


@pytest.fixture
def world() -> World:
    """Three microVMs that failed."""
    world = World()
    world.add_host("h1")
    world.accept(declare_namespace())
    for name in NAMES:
        world.accept(declare_microvm(name))
        world.accept(place(vm(world, name)))
        failed = observation(vm(world, name), power=ObservedPower.ABSENT, generation=None, failure=failure())
        world.accept(report(failed, session=session("h1")))
    return world


def vm(world: World, name: str) -> MicroVM:
    found = world.state.microvm("demo", name)
    assert found is not None
    return found


def phases(world: World) -> list[MicroVMPhase]:
    return [vm(world, name).phase for name in NAMES]


async def run(
    world: World,
    *,
    rounds: int = 5,
    per_round: int = 100,
    after_s: int | None = 0,
    refused: Counter[Trigger] | None = None,
) -> list[Any]:
    """So many rounds; gives what was logged."""
    refused = refused if refused is not None else Counter()
    policy = GCPolicySpec(failed_microvm_after_s=after_s)
    settings = GCSettings(policy=policy, every_s=0.1, per_round=per_round).model_copy(update={"every_s": 0})
    runner = GCRunner(world, world, world, is_leader=lambda: world.term is not None, settings=settings, refused=refused)
    with capture_logs() as logs:
        running = asyncio.create_task(runner.run())
        for _ in range(3 * rounds):
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return logs


def collected(world: World) -> list[str]:
    return [each.subject.name for each in world.commands if isinstance(each, Collect)]


async def test_what_is_due_is_collected_once_and_told_with_its_reason(world: World) -> None:
    logs = await run(world)
    assert phases(world) == [MicroVMPhase.DELETING] * 3
    told = [each for each in logs if each["event"] == "gc.collected"]
    assert [each["trigger"] for each in told] == ["failed_microvm"] * 3
    assert all(each["reason"].startswith("it failed: ImageNotFound") and each["actor"] == "gc" for each in told)


async def test_what_has_no_turn_is_collected_in_a_later_round(world: World) -> None:
    logs = await run(world, rounds=20, per_round=1)
    assert collected(world) == list(NAMES)
    rounds = [each["waiting"] for each in logs if each["event"] == "gc.round"]
    assert [each.get("failed_microvm:throttle") for each in rounds][:2] == [2, 1]


async def test_what_is_held_is_left_alone(world: World) -> None:
    world.accept(Hold(kind=HoldKind.MICROVM, namespace="demo", name="b", reason="somebody looks at it"))
    await run(world)
    assert phases(world) == [MicroVMPhase.DELETING, MicroVMPhase.FAILED, MicroVMPhase.DELETING]


async def test_what_becomes_impossible_meanwhile_is_refused_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose_each, refused = world.propose_each, Counter[Trigger]()

    async def late(commands: Sequence[Collect], **stamps: Any) -> Any:
        world.accept(Hold(kind=HoldKind.MICROVM, namespace="demo", name="b", reason="somebody looks at it"))
        return await propose_each(commands, **stamps)

    monkeypatch.setattr(world, "propose_each", late)
    logs = await run(world, rounds=1, refused=refused)
    assert phases(world) == [MicroVMPhase.DELETING, MicroVMPhase.FAILED, MicroVMPhase.DELETING]
    assert refused == {Trigger.FAILED_MICROVM: 1}
    assert [each["subject"] for each in logs if each["event"] == "gc.conflict"] == ["MicroVM demo/b on h1"]


async def test_nothing_is_collected_that_the_policy_keeps(world: World) -> None:
    await run(world, after_s=None)
    assert collected(world) == []


async def test_a_node_that_does_not_lead_collects_nothing(world: World) -> None:
    world.term = None
    await run(world)
    assert collected(world) == []


async def test_nothing_is_collected_before_the_incarnation_has_begun(world: World) -> None:
    world.incarnation = 2
    await run(world)
    assert collected(world) == []


async def test_a_log_that_takes_nothing_is_asked_again(world: World) -> None:
    world.refuse = True
    await run(world)
    assert phases(world) == [MicroVMPhase.FAILED] * 3
    world.refuse = False
    await run(world)
    assert phases(world) == [MicroVMPhase.DELETING] * 3
