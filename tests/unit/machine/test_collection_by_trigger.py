"""What every trigger of the garbage collector owes, one by one: it is shown before it is done and done as shown, waits
for its time and its turn, can be held, and says why in its tally, in the metrics and in the audit chain.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.audited import AuditedMachine
from support.builders import (
    agent_connected,
    confirm_off,
    declare_host,
    declare_microvm,
    declare_namespace,
    detached,
    failure,
    fenced,
    kept_volumes,
    observation,
    place,
    report,
    suspected,
    tap,
)

from controlplane.api.http.metrics import exposition
from controlplane.decide.gc import GCPlan, field_of, plan
from controlplane.machine.collection_rules import WaitsFor
from controlplane.machine.outcome import Applied, Code, Rejected
from controlplane.model.audit import AuditOutcome, followed
from controlplane.model.commands import Delete, DropAudit, ExportedAudit, Hold, HoldKind
from controlplane.model.gc import Trigger
from controlplane.model.resources import MicroVM, ObservedPower, Unmanaged
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import Kind

KEPT_S = 60
COPY = Unmanaged(native_id="9", driver="simulated", uid="vm-old", namespace="demo", name="old", epoch=3, ours=True)


def _vm(machine: AuditedMachine, name: str = "web") -> MicroVM:
    found = machine.state.microvm("demo", name)
    assert found is not None
    return found


def _placed(machine: AuditedMachine) -> MicroVM:
    machine.do(declare_microvm("web"))
    machine.do(place(_vm(machine)))
    return _vm(machine)


def _failed(machine: AuditedMachine) -> None:
    vm = _placed(machine)
    machine.do(report(observation(vm, power=ObservedPower.ABSENT, generation=None, failure=failure())))


def _unmanaged(machine: AuditedMachine) -> None:
    machine.do(report(unmanaged=[COPY]))


def _lost_host(machine: AuditedMachine) -> None:
    session = machine.state.hosts["h1"].session
    machine.do(suspected(session=session))
    machine.do(detached(session=session, term=1))
    machine.do(fenced(term=1))
    machine.do(confirm_off())


def _lost_tombstone(machine: AuditedMachine) -> None:
    machine.do(report(observation(_placed(machine))))
    machine.do(Delete(kind=Kind.MICROVM, namespace="demo", name="web", reason="not needed"))
    _lost_host(machine)


def _finished_operation(machine: AuditedMachine) -> None:
    machine.do(report(observation(_placed(machine))))


COMES: dict[Trigger, Callable[[AuditedMachine], None]] = {
    Trigger.FAILED_MICROVM: _failed,
    Trigger.UNMANAGED_MICROVM: _unmanaged,
    Trigger.LOST_HOST: _lost_host,
    Trigger.LOST_TOMBSTONE: _lost_tombstone,
    Trigger.LEFTOVER: lambda machine: machine.do(report(left_behind=[tap()])) and None,
    Trigger.QUARANTINED_VOLUMES: lambda machine: machine.do(report(left_behind=[kept_volumes()])) and None,
    Trigger.FINISHED_OPERATION: _finished_operation,
    Trigger.AUDIT_RECORDS: lambda machine: machine.do(declare_namespace("other")) and None,
}
"""How there comes to be one thing of each."""

HELD: dict[Trigger, Hold | None] = {
    Trigger.FAILED_MICROVM: Hold(kind=HoldKind.MICROVM, namespace="demo", name="web", reason="look"),
    Trigger.UNMANAGED_MICROVM: Hold(kind=HoldKind.FOUND, host="h1", name=COPY.native_id, reason="look"),
    Trigger.LOST_HOST: Hold(kind=HoldKind.HOST, name="h1", reason="look"),
    Trigger.LOST_TOMBSTONE: Hold(kind=HoldKind.HOST, name="h1", reason="look"),
    Trigger.LEFTOVER: Hold(kind=HoldKind.FOUND, host="h1", name=tap().name, reason="look"),
    Trigger.QUARANTINED_VOLUMES: Hold(kind=HoldKind.FOUND, host="h1", name=kept_volumes().name, reason="look"),
    # What only tells of the past is kept by the policy, all of it.
    Trigger.FINISHED_OPERATION: None,
    Trigger.AUDIT_RECORDS: None,
}

each_trigger = pytest.mark.parametrize("trigger", Trigger)


def _machine(trigger: Trigger) -> AuditedMachine:
    machine = AuditedMachine()
    machine.do(declare_namespace())
    machine.do(declare_host())
    machine.do(agent_connected())
    COMES[trigger](machine)
    return machine


def _policy(trigger: Trigger | None) -> GCPolicySpec:
    """Keeps all but `trigger`."""
    return GCPolicySpec(**{field_of(each): KEPT_S if each is trigger else None for each in Trigger})


def _later(machine: AuditedMachine, trigger: Trigger | None, *, limit: int = 100, after_s: float = KEPT_S) -> GCPlan:
    return plan(machine.state, _policy(trigger), now_ms=machine.at + round(after_s * 1000), limit=limit)


def _waits(made: GCPlan, trigger: Trigger) -> list[WaitsFor]:
    return [each.waits_for for each in made.waiting if each.trigger is trigger]


def test_the_tables_have_every_trigger() -> None:
    assert set(COMES) == set(HELD) == set(Trigger)


@each_trigger
def test_a_run_does_what_its_preview_shows(trigger: Trigger) -> None:
    machine = _machine(trigger)
    preview = _later(machine, trigger)
    (collection,) = preview.collect
    assert collection.command.trigger is trigger
    assert plan(machine.state, _policy(trigger), now_ms=preview.at).digest == preview.digest
    assert isinstance(machine.do(collection.command, actor="gc"), Applied)
    assert collection.command.subject not in [each.command.subject for each in _later(machine, trigger).collect]
    assert isinstance(machine.do(collection.command, actor="gc"), Rejected), "it is done once"


@each_trigger
def test_it_is_kept_for_its_time_and_for_ever_without_one(trigger: Trigger) -> None:
    machine = _machine(trigger)
    since = _later(machine, trigger).collect[0].command.since
    early = plan(machine.state, _policy(trigger), now_ms=since + KEPT_S * 1000 - 1)
    assert (early.collect, _waits(early, trigger)) == ((), [WaitsFor.GRACE])
    kept = _later(machine, None)
    assert (kept.collect, _waits(kept, trigger)) == ((), [WaitsFor.POLICY])


@each_trigger
def test_what_has_no_turn_is_in_the_next_plan(trigger: Trigger) -> None:
    machine = _machine(trigger)
    throttled = _later(machine, trigger, limit=0)
    assert (throttled.collect, _waits(throttled, trigger)) == ((), [WaitsFor.THROTTLE])
    assert _later(machine, trigger, limit=1).collect == _later(machine, trigger).collect != ()


@pytest.mark.parametrize(("trigger", "hold"), [(each, hold) for each, hold in HELD.items() if hold is not None])
def test_what_is_held_waits_for_its_release(trigger: Trigger, hold: Hold) -> None:
    machine = _machine(trigger)
    (decided,) = _later(machine, trigger).collect
    assert isinstance(machine.do(hold, actor="bob"), Applied)
    assert _waits(_later(machine, trigger), trigger) == [WaitsFor.HOLD]
    refused = machine.do(decided.command, actor="gc")
    assert isinstance(refused, Rejected)
    assert refused.code is Code.HELD


@each_trigger
def test_why_it_went_is_in_the_tally_the_metrics_and_the_audit_chain(trigger: Trigger) -> None:
    machine = _machine(trigger)
    command = _later(machine, trigger).collect[0].command
    before = machine.last
    machine.do(command, actor="gc")
    tally = machine.state.tallies[trigger.value]
    assert (tally.collected, tally.reason, tally.subject) == (1, command.reason, str(command.subject))
    assert command.reason
    metrics = exposition(machine.state, _later(machine, trigger), {}, age_s=0.0).decode()
    assert f'flintlock_gc_collected_total{{trigger="{trigger.value}"}} 1.0' in metrics
    told = machine.last
    assert (told.actor, told.action, told.reason) == ("gc", "collect", command.reason)
    assert (told.kind, told.name) == (command.subject.kind.value, command.subject.name)
    assert told.outcome in (AuditOutcome.DELETED, AuditOutcome.CHANGED)
    assert list(followed([told], before)) == [told]


# -- the chain over a cut ----------------------------------------------------------------------------------------------


def _days(machine: AuditedMachine, count: int) -> None:
    """So many days go by, two changes in each."""
    for day in range(count):
        machine.at = (day + 1) * 86_400_000
        machine.do(declare_namespace(f"a-{day}"))
        machine.do(declare_namespace(f"b-{day}"))


def test_the_chain_goes_a_day_at_a_time_and_follows_what_was_exported() -> None:
    machine = AuditedMachine()
    _days(machine, 3)
    exported = machine.chain
    dropped: list[str] = []
    while made := _later(machine, Trigger.AUDIT_RECORDS, after_s=0).collect:
        dropped.append(made[0].command.subject.name)
        machine.do(made[0].command, actor="gc")
    assert dropped == ["1-1", "2-3", "4-5"], "the last day is not over for long enough"
    at = machine.state.audit_first - 1
    assert list(followed(machine.chain, exported[at - 1])) == machine.chain
    assert f"goes on after {exported[4].hash}" in (machine.last.reason or "")


def test_a_day_stays_until_every_node_that_exports_has_it() -> None:
    machine = AuditedMachine()
    _days(machine, 2)
    machine.do(ExportedAudit(node="n1", through=4))
    machine.do(ExportedAudit(node="n2", through=0))
    made = _later(machine, Trigger.AUDIT_RECORDS)
    assert (made.collect, _waits(made, Trigger.AUDIT_RECORDS)) == ((), [WaitsFor.CONFIRMATION])
    (waiting,) = [each for each in made.waiting if each.trigger is Trigger.AUDIT_RECORDS]
    assert waiting.message == "node n2 has written the audit chain up to record 0 only"
    machine.do(ExportedAudit(node="n2", through=4))
    assert [each.command.subject.name for each in _later(machine, Trigger.AUDIT_RECORDS).collect] == ["1-1"]


def test_records_that_were_dropped_for_their_number_are_no_day_any_more() -> None:
    machine = AuditedMachine()
    _days(machine, 2)
    (decided,) = _later(machine, Trigger.AUDIT_RECORDS).collect
    assert isinstance(machine.do(DropAudit(through=2), actor="audit"), Applied)
    assert isinstance(machine.do(decided.command, actor="gc"), Rejected)
    assert [each.command.subject.name for each in _later(machine, Trigger.AUDIT_RECORDS).collect] == ["3-3"]
