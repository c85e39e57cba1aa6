"""What agents tell against what the state says: only news is proposed, and proposing it ends in agreement."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import agent_connected, declare_microvm, failure, observation, resurrect, session_of, tap
from support.driven import DrivenMachine

from controlplane.agent.observe import HostView, report_parts
from controlplane.agent.translate import encode_observation, encode_report
from controlplane.api.gateway.intake import MAX_PER_COMMAND, Intake
from controlplane.api.gateway.translate import WireError, decode_observation
from controlplane.model.commands import Delete, Report
from controlplane.model.resources import (
    Failure,
    HostPhase,
    InterfaceFacts,
    MicroVMPhase,
    Observation,
    ObservedPower,
    Unmanaged,
)
from controlplane.model.spec import HostFailure, Recovery
from controlplane.model.types import Kind, replace
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine().with_host(vcpu=100_000, memory_in_mb=10_000_000)


def intake() -> Intake:
    return Intake("h1", session_of("h1"))


def told(view: HostView) -> list[wire.Report]:
    return [encode_report(part) for part in report_parts(view, None)]


def seen(  # at revision 1000: after every intent here
    *observed: Observation, destroyed: dict[str, int] | None = None, strangers: list[Unmanaged] | None = None
) -> HostView:
    return HostView(
        revision=1000,
        observed={each.uid: each for each in observed},
        unmanaged=strangers or [],
        destroyed=destroyed or {},
    )


def settle(machine: DrivenMachine, desk: Intake) -> list[Report]:
    """Propose what is due until nothing is."""
    proposed: list[Report] = []
    while (report := desk.due(machine.state)) is not None:
        machine.accept(report)
        proposed.append(report)
        assert len(proposed) < 20, "it must end"
    return proposed


def test_news_is_proposed_once(machine: DrivenMachine) -> None:
    vm = machine.placed()
    desk = intake()
    for report in told(seen(observation(vm))):
        desk.take(report)
    (proposed,) = settle(machine, desk)
    assert proposed.observed == [observation(vm)]
    desk.take(encode_report(report_parts(seen(replace(observation(vm), at=999_999)), None)[0]))
    assert desk.due(machine.state) is None, "the same at another time is no news"


def test_what_is_of_another_epoch_or_of_another_host_is_not_proposed(machine: DrivenMachine) -> None:
    machine.with_host("h2")
    mine, theirs = machine.placed("mine"), machine.placed("theirs", host="h2")
    desk = intake()
    for report in told(
        seen(observation(mine, epoch=7), observation(theirs, host="h1"), destroyed={"unknown": 1, mine.meta.uid: 1})
    ):
        desk.take(report)
    assert desk.due(machine.state) is None


def test_a_confirmation_is_proposed_while_the_tombstone_stands(machine: DrivenMachine) -> None:
    vm = machine.active()
    desk = intake()
    for report in told(seen(destroyed={vm.meta.uid: vm.epoch})):
        desk.take(report)
    assert desk.due(machine.state) is None, "no tombstone yet"
    for report in told(seen(destroyed={vm.meta.uid: vm.epoch})):
        desk.take(report)
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    (proposed,) = settle(machine, desk)
    assert [gone.uid for gone in proposed.destroyed] == [vm.meta.uid]
    assert machine.state.microvm("demo", "web") is None


def test_strangers_are_proposed_when_they_change(machine: DrivenMachine) -> None:
    desk = intake()
    found = [Unmanaged(native_id="n2", driver="qemu"), Unmanaged(native_id="n1", driver="qemu", name="x")]
    for report in told(seen(strangers=found)):
        desk.take(report)
    assert len(settle(machine, desk)) == 1
    for report in told(seen(strangers=found[::-1])):
        desk.take(report)
    assert desk.due(machine.state) is None, "order is no news"
    for report in told(seen()):
        desk.take(report)
    assert len(settle(machine, desk)) == 1
    assert machine.host().unmanaged == []


def test_a_report_that_was_committed_and_not_acknowledged_is_not_repeated(machine: DrivenMachine) -> None:
    vm = machine.placed()
    desk = intake()
    for report in told(seen(observation(vm))):
        desk.take(report)
    lost = desk.due(machine.state)
    assert lost is not None
    assert desk.due(machine.state) == lost, "not committed: due again"
    machine.accept(lost)
    assert desk.due(machine.state) is None


def test_the_same_failure_of_another_intent_is_news_once_the_agent_knew_of_it(machine: DrivenMachine) -> None:
    vm = machine.placed()
    failed = observation(vm, generation=None, power=ObservedPower.ABSENT, failure=failure())
    desk = intake()
    desk.take(encode_report(report_parts(dataclasses.replace(seen(failed), revision=machine.state.revision), None)[0]))
    assert len(settle(machine, desk)) == 1
    assert machine.vm().phase is MicroVMPhase.FAILED
    machine.accept(declare_microvm(vcpu=2))
    assert machine.vm().phase is MicroVMPhase.PLACED
    assert desk.due(machine.state) is None, "what was told was about the intent before"
    desk.take(encode_report(report_parts(dataclasses.replace(seen(failed), revision=machine.state.revision), None)[0]))
    assert len(settle(machine, desk)) == 1
    assert machine.vm().phase is MicroVMPhase.FAILED
    assert machine.operation().message == failure().message


def test_a_passing_failure_is_told_of_every_operation(machine: DrivenMachine) -> None:
    vm = machine.placed()
    failed = observation(vm, generation=None, power=ObservedPower.ABSENT, failure=failure(permanent=False))
    desk = intake()
    for vcpu in (2, 3):
        machine.accept(declare_microvm(vcpu=vcpu))
        desk.take(
            encode_report(report_parts(dataclasses.replace(seen(failed), revision=machine.state.revision), None)[0])
        )
        assert len(settle(machine, desk)) == 1
        assert machine.operation().message.startswith(failure().message)


def test_many_travel_in_few_commands(machine: DrivenMachine) -> None:
    vms = [machine.placed(f"vm-{number:04}") for number in range(MAX_PER_COMMAND + 10)]
    desk = intake()
    for report in told(seen(*(observation(vm) for vm in vms))):
        desk.take(report)
    assert [len(report.observed) for report in settle(machine, desk)] == [MAX_PER_COMMAND, 10]


# -- hosts that come back ----------------------------------------------------------------------------------------------


@pytest.fixture
def returned(machine: DrivenMachine) -> DrivenMachine:
    """A host that was lost, that one microVM was resurrected from, and that is back."""
    machine.with_host("h2")
    machine.active("moved", recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE))
    machine.active("left")
    machine.lose("h1")
    machine.accept(resurrect(machine.vm("moved"), term=machine.term))
    machine.accept(agent_connected("h1", vcpu=100_000, memory_in_mb=10_000_000))
    assert machine.host("h1").phase is HostPhase.REJOINING
    assert machine.host("h1").stale == {"vm-moved": 1}
    return machine


def test_a_rejoining_host_is_ready_once_it_confirmed_what_was_given_up(returned: DrivenMachine) -> None:
    desk = intake()
    left = observation(returned.vm("left"))
    for report in told(seen(left)):
        desk.take(report)
    assert desk.due(returned.state) is None, "it has something to destroy first"
    for report in report_parts(seen(left, destroyed={"vm-moved": 1}), seen(left)):
        desk.take(encode_report(report))
    confirmed, rejoined = settle(returned, desk)
    assert [(gone.uid, gone.epoch) for gone in confirmed.destroyed] == [("vm-moved", 1)]
    assert (confirmed.rejoined, rejoined.rejoined) == (False, True)
    assert returned.host("h1").phase is HostPhase.READY
    assert returned.host("h1").stale == {}


def test_it_is_not_before_it_has_told_all(returned: DrivenMachine) -> None:
    desk = intake()
    desk.take(wire.Report(destroyed=[wire.Confirmed(uid="vm-moved", epoch=1)]))
    assert len(settle(returned, desk)) == 1
    assert returned.host("h1").stale == {}
    assert returned.host("h1").phase is HostPhase.REJOINING
    desk.take(wire.Report(complete=True))
    assert [report.rejoined for report in settle(returned, desk)] == [True]


def test_a_confirmation_of_another_epoch_confirms_nothing(returned: DrivenMachine) -> None:
    desk = intake()
    for report in told(seen(destroyed={"vm-moved": 2})):
        desk.take(report)
    assert settle(returned, desk) == []
    assert returned.host("h1").phase is HostPhase.REJOINING


@pytest.mark.parametrize(("epoch", "confirmed"), [(2, True), (1, False), (None, False)])
def test_a_newer_copy_than_an_order_is_about_shows_that_the_order_was_carried_out(
    returned: DrivenMachine, epoch: int | None, confirmed: bool
) -> None:
    """As after a restore of an older state: the host would otherwise never be let back."""
    desk = intake()
    found = Unmanaged(native_id="m9", driver="simulated", uid="vm-moved", namespace="demo", name="moved", epoch=epoch)
    for report in told(seen(strangers=[found])):
        desk.take(report)
    settle(returned, desk)
    assert returned.host("h1").stale == ({} if confirmed else {"vm-moved": 1})
    assert returned.host("h1").phase is (HostPhase.READY if confirmed else HostPhase.REJOINING)
    assert [each.epoch for each in returned.host("h1").unmanaged] == [epoch], "and the copy itself is still reported"


texts = st.text(max_size=20)
numbers = st.integers(1, 2**40 - 1)
optional_texts = st.none() | st.text(min_size=1, max_size=20)
observations = st.builds(
    Observation,
    uid=st.text(min_size=1, max_size=26),
    host=st.just("h1"),
    epoch=numbers,
    at=numbers,
    power=st.sampled_from(ObservedPower),
    generation=st.none() | numbers,
    repair_seq=st.integers(0, 9),
    restart_seq=st.integers(0, 9),
    ready=st.booleans(),
    vcpu=st.none() | st.integers(1, 64),
    memory_in_mb=st.none() | st.integers(1, 10_000),
    driver=optional_texts,
    simulated=st.booleans(),
    cause=optional_texts,
    failure=st.none()
    | st.builds(
        Failure, code=st.text(min_size=1, max_size=20), message=texts, pointer=optional_texts, permanent=st.booleans()
    ),
    details=st.dictionaries(texts, texts, max_size=3),
    interfaces=st.dictionaries(texts, st.builds(InterfaceFacts, host_device=texts, mac_address=texts), max_size=2),
)


@given(observations)
def test_an_observation_survives_the_wire(one: Observation) -> None:

    sent = wire.Observed.FromString(encode_observation(one).SerializeToString())
    assert decode_observation("h1", sent) == one


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (wire.Report(observed=[wire.Observed(epoch=1, power="running")]), "observed.uid: missing"),
        (wire.Report(observed=[wire.Observed(uid="a", power="running")]), r"observed.a.epoch: 0 is not between 1"),
        (wire.Report(observed=[wire.Observed(uid="a", epoch=1)]), r"observed.a.power: '' is not one of running"),
        (
            wire.Report(observed=[wire.Observed(uid="a", epoch=1, power="running", vcpu=-1)]),
            r"observed.a.vcpu: -1 is not between",
        ),
        (
            wire.Report(observed=[wire.Observed(uid="a", epoch=1, power="running", cause="x" * 5000)]),
            r"observed.a.cause: 5000 characters; at most 4096",
        ),
        (
            wire.Report(
                observed=[wire.Observed(uid="a", epoch=1, power="running", details={str(n): "" for n in range(65)})]
            ),
            "observed.a: more than 64 details",
        ),
        (
            wire.Report(observed=[wire.Observed(uid="a", epoch=1, power="running", failure=wire.Failure())]),
            "observed.a.failure.code: missing",
        ),
        (wire.Report(destroyed=[wire.Confirmed(uid="a")]), "destroyed.epoch: 0 is not between 1"),
        (wire.Report(complete=True, unmanaged=[wire.Unmanaged(driver="d")]), "unmanaged.native_id: missing"),
        (
            wire.Report(
                complete=True,
                unmanaged=[wire.Unmanaged(native_id=str(n), driver="d", power="running") for n in range(1001)],
            ),
            "unmanaged: 1001; at most 1000",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_and_not_taken(
    machine: DrivenMachine, report: wire.Report, says: str
) -> None:
    vm = machine.placed()
    desk = intake()
    for good in told(seen(observation(vm))):
        desk.take(good)
    with pytest.raises(WireError, match=says):
        desk.take(report)
    due = desk.due(machine.state)
    assert due is not None
    assert due.observed == [observation(vm)]


def test_what_an_agent_finds_left_behind_is_proposed_once_and_of_an_older_agent_nothing(machine: DrivenMachine) -> None:
    desk = intake()
    for report in told(dataclasses.replace(seen(), left_behind=[tap()])):
        desk.take(report)
    (proposed,) = settle(machine, desk)
    assert proposed.left_behind == [tap()]
    (known,) = machine.host().left_behind
    assert replace(known, since=0) == tap()
    for report in told(dataclasses.replace(seen(), left_behind=[replace(tap(), bytes=99)])):
        desk.take(report)
    assert settle(machine, desk) == [], "that it grows alone is no entry of the log"
    for report in told(dataclasses.replace(seen(), left_behind=[])):
        desk.take(report)
    settle(machine, desk)
    assert (machine.host().left_behind, machine.host().has_looked) == ([], True)
    silent = intake()
    for report in told(seen()):
        silent.take(report)
    machine.accept(agent_connected())
    settle(machine, silent)
    assert not machine.host().has_looked


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (
            [wire.Leftover(driver="qemu", kind="tap", name=f"tap/{n}") for n in range(501)],
            "left_behind: 501; at most 500",
        ),
        ([wire.Leftover(driver="qemu", kind="disk", name="x")], "left_behind.kind: 'disk' is not one of"),
        ([wire.Leftover(driver="qemu", kind="tap")], "left_behind.name: missing"),
        ([wire.Leftover(driver="qemu", kind="tap", name="x", bytes=-1)], "left_behind.bytes: -1"),
        ([wire.Leftover(driver="qemu", kind="tap", name="x")] * 2, "two of a driver have one name"),
    ],
)
def test_leftovers_that_make_no_sense_are_refused_by_name(items: list[wire.Leftover], says: str) -> None:
    with pytest.raises(WireError, match=says):
        intake().take(wire.Report(complete=True, left_behind=wire.LeftBehind(items=items)))
