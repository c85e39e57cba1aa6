"""What a host answers when it is asked for bids: it counts what is assigned to it, as it is at that moment."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.agent_values import assignment
from support.builders import microvm_spec
from support.leases import NoLease

from controlplane.agent.answers import Answers
from controlplane.agent.assignments import Assignment, Assignments, definition
from controlplane.agent.bids import Reservations
from controlplane.agent.inventory import Meter
from controlplane.agent.journal import Journal, Record, RecordPhase
from controlplane.agent.pacing import Backoff, Pacing
from controlplane.agent.runner import Runner, RunnerLimits
from controlplane.api.gateway.bounds import WireError
from controlplane.api.gateway.found import decode_definition
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


async def test_what_a_microvm_was_told_to_be_is_told_whether_it_is_assigned_or_not(tmp_path: Path) -> None:
    driver = SimulatedDriver(tmp_path)
    await driver.start()
    drivers, clock = {"simulated": driver}, SystemClock()
    journal = Journal.open(tmp_path / "journal")
    runner = Runner(
        host="h1",
        drivers=drivers,
        default_driver="simulated",
        capacity=Amount(vcpu=VCPU, memory_in_mb=4096),
        journal=journal,
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
        reservations=Reservations(ttl_s=1),
        meter=Meter(),
        clock=clock,
    )
    vm = definition("c", assignment("a", spec=microvm_spec(vcpu=2)))
    await driver.create(vm)
    record = Record(uid="a", epoch=vm.epoch, phase=RecordPhase.ACTIVE, driver="simulated", generation=1, restart_seq=5)
    await journal.put(record)
    question = wire.Question(id="q", definition=wire.DefinitionRequest(uid="a"))
    told = decode_definition((await answers.answer(question)).definition)
    assert (told.vm, told.restart_seq) == (vm, 5)
    unknown = await answers.answer(wire.Question(id="q", definition=wire.DefinitionRequest(uid="b")))
    assert unknown.error_code == "NotFound"
    await driver.stop()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spec_json": b"{}"}, "definition.spec_json.vcpu"),
        ({"epoch": 0}, "definition.epoch: 0"),
        ({"uid": ""}, "definition.uid: missing"),
        ({"labels": {str(n): "" for n in range(65)}}, "definition.labels: 65"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    sound: dict[str, Any] = {
        "uid": "a",
        "cluster_id": "c",
        "namespace": "demo",
        "name": "a",
        "epoch": 1,
        "generation": 1,
        "spec_json": msgspec.json.encode(microvm_spec()),
    }
    assert decode_definition(wire.Definition(**sound)).vm.spec == microvm_spec()
    with pytest.raises(WireError, match=says):
        decode_definition(wire.Definition(**{**sound, **changes}))
