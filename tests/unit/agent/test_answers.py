"""What a host answers when it is asked for bids: it counts what is assigned to it, as it is at that moment."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
from support.agent_values import assignment
from support.builders import microvm_spec
from support.leases import NoLease

from controlplane.agent.answers import Answers
from controlplane.agent.assignments import Assignment, Assignments, definition
from controlplane.agent.bids import Reservations
from controlplane.agent.inventory import Meter
from controlplane.agent.journal import Journal
from controlplane.agent.pacing import Backoff, Pacing
from controlplane.agent.runner import Runner, RunnerLimits
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.model.resources import Amount
from controlplane.system import SystemClock
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

VCPU = 8


async def vcpu_shares(answers: Answers, *uids: str) -> dict[str, float]:
    """Share of the host's vcpu that would be in use with a microVM of 2 vcpu more, for each uid."""
    spec = msgspec.json.encode(microvm_spec(vcpu=2))
    items = [wire.BidItem(uid=uid, spec_json=spec) for uid in uids]
    answer = await answers.answer(wire.Question(id="q", bid=wire.BidRequest(items=items)))
    assert not answer.error_code, answer.error
    return {each.uid: each.parts["vcpu"] for each in answer.bid.answers}


async def test_a_bid_counts_what_is_assigned_now(tmp_path: Path) -> None:
    driver = SimulatedDriver(tmp_path)
    await driver.start()
    drivers, clock = {"simulated": driver}, SystemClock()
    runner = Runner(
        host="h1",
        drivers=drivers,
        default_driver="simulated",
        capacity=Amount(vcpu=VCPU, memory_in_mb=4096),
        journal=Journal.open(tmp_path / "journal"),
        clock=clock,
        pacing=Pacing(Backoff(), random.Random(1)),
        limits=RunnerLimits(),
        lease=NoLease(),
    )
    answers = Answers(
        host="h1",
        capacity=Amount(vcpu=VCPU, memory_in_mb=4096),
        drivers=drivers,
        default_driver="simulated",
        runner=runner,
        reservations=Reservations(ttl_s=1e-9),
        meter=Meter(),
        clock=clock,
    )

    def assign(*wanted: Assignment) -> None:
        runner.assign(Assignments(cluster_id="ours", revision=1, by_uid={each.uid: each for each in wanted}))

    try:
        assert await vcpu_shares(answers, "new") == {"new": 2 / VCPU}
        big = assignment("a", spec=microvm_spec(vcpu=4))
        assign(big, assignment("b"), assignment("gone", tombstone=True))
        assert await vcpu_shares(answers, "new") == {"new": 7 / VCPU}
        # One that is here already is asked about as if it came anew, the others stay counted.
        assert await vcpu_shares(answers, "a") == {"a": 3 / VCPU}
        assign(big)
        assert await vcpu_shares(answers, "new") == {"new": 6 / VCPU}
        # What a lost history left running takes room too.
        await driver.create(definition("ours", assignment("lost", spec=microvm_spec(vcpu=1))))
        async with asyncio.TaskGroup() as group:
            rounds = group.create_task(runner.run())
            await runner.caught_up()
            rounds.cancel()
        assert await vcpu_shares(answers, "new") == {"new": 7 / VCPU}
    finally:
        await driver.stop()
