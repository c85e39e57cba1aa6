"""What operators are told of commands, and that nothing is told twice or of what changes all the time."""

from __future__ import annotations

import pytest
from support.audited import AuditedMachine
from support.builders import (
    act_on_host,
    agent_connected,
    confirm_off,
    declare_group,
    declare_host,
    declare_microvm,
    declare_namespace,
    destroyed,
    detached,
    evict,
    failure,
    fenced,
    heard,
    observation,
    place,
    report,
    resurrect,
    suspected,
)
from support.invariants import check_snapshot

from controlplane.machine.entry import apply_entry
from controlplane.machine.outcome import Applied
from controlplane.machine.state import State
from controlplane.model.commands import (
    Act,
    Action,
    Batch,
    Command,
    Delete,
    Hold,
    HoldKind,
    HostAction,
    MarkUnplaced,
    NewMember,
    Release,
    Report,
    Stall,
    StepGroup,
    seal,
)
from controlplane.model.resources import MicroVM, ObservedPower, Unmanaged
from controlplane.model.spec import HostFailure, OnDetach, Recovery
from controlplane.model.types import Kind

RESTARTS = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE, on_detach=OnDetach.STOP)


class Told:
    """A machine, and what the last command told."""

    def __init__(self) -> None:
        self.machine = AuditedMachine()

    @property
    def state(self) -> State:
        return self.machine.state

    @property
    def vm(self) -> MicroVM:
        found = self.state.microvm("demo", "web")
        assert found is not None
        return found

    def do(self, command: Command, *, actor: str = "alice") -> list[str]:
        """`Kind/name Reason` of each."""
        revision = self.state.revision
        outcome = self.machine.do(command, actor=actor)
        assert isinstance(outcome, Applied), outcome
        recent = self.state.recent
        new = [recent.at(position) for position in recent.after((revision, 2**31))]
        assert [each.number for each in new] == list(range(len(new)))
        assert {(each.revision, each.at, each.actor) for each in new} <= {(self.state.revision, self.machine.at, actor)}
        return [f"{each.kind.value}/{each.name} {each.reason.value}" for each in new]

    def message(self) -> str:
        recent = self.state.recent
        return recent.at(recent.tail - 1).message


@pytest.fixture
def told() -> Told:
    """With a microVM that runs on `h1`."""
    told = Told()
    assert told.do(declare_namespace()) == ["Namespace/demo Declared"]
    assert told.do(declare_host("h1")) == ["Host/h1 Declared", "Host/h1 Expected"]
    assert told.do(agent_connected("h1")) == ["Host/h1 Ready"]
    assert told.do(declare_microvm(recovery=RESTARTS)) == ["MicroVM/web Declared"]
    assert told.do(place(told.vm), actor="scheduler") == ["MicroVM/web Placed"]
    assert told.do(report(observation(told.vm, ready=False))) == ["MicroVM/web Running"]
    return told


def test_a_microvm_from_its_declaration_to_its_end(told: Told) -> None:
    assert told.do(report(observation(told.vm, ready=True))) == ["MicroVM/web Ready"]
    assert told.do(report(observation(told.vm, ready=True, at=5))) == []
    assert told.do(declare_microvm(recovery=RESTARTS, labels={"tier": "front"})) == ["MicroVM/web Changed"]
    hold = Hold(kind=HoldKind.MICROVM, namespace="demo", name="web", reason="evidence")
    assert told.do(hold) == ["MicroVM/web Held"]
    assert told.message() == "held by alice: evidence"
    assert told.do(Release(kind=HoldKind.MICROVM, namespace="demo", name="web")) == ["MicroVM/web Released"]
    assert told.do(Act(namespace="demo", name="web", action=Action.RESTART)) == ["MicroVM/web RestartRequested"]
    delete = Delete(kind=Kind.MICROVM, namespace="demo", name="web", reason="not needed")
    assert told.do(delete) == ["MicroVM/web DeletionRequested"]
    assert told.do(destroyed(told.vm)) == ["MicroVM/web Deleted"]
    assert told.message() == "not needed"
    last = told.state.recent.at(told.state.recent.tail - 1)
    assert (last.host, last.namespace) == ("h1", "demo")
    check_snapshot(told.state)


def test_drift_and_its_end(told: Told) -> None:
    stopped = report(observation(told.vm, ready=False, power=ObservedPower.STOPPED, cause="the guest shut down"))
    assert told.do(stopped) == ["MicroVM/web Stopped", "MicroVM/web Drifted"]
    assert told.message() == "not as declared: /spec/power_state"
    assert told.do(Act(namespace="demo", name="web", action=Action.REPAIR)) == ["MicroVM/web RepairRequested"]
    repaired = report(observation(told.vm, ready=True))
    assert told.do(repaired) == ["MicroVM/web Running", "MicroVM/web Ready", "MicroVM/web InSync"]


def test_what_fails_again_and_again_is_told_once(told: Told) -> None:
    trying = failure(permanent=False, message="no space left")
    assert told.do(report(observation(told.vm, ready=False, failure=trying))) == ["MicroVM/web Retrying"]
    again = failure(permanent=False, message="no space left, 12 KB missing")
    assert told.do(report(observation(told.vm, ready=False, failure=again))) == []
    assert told.do(report(observation(told.vm, ready=False, failure=failure()))) == ["MicroVM/web Failed"]
    assert told.message() == "there is no image demo/kernel:6.1"


def test_what_no_host_takes_is_told_when_the_reason_is_another(told: Told) -> None:
    told.do(declare_microvm("db"))
    vm = told.state.microvm("demo", "db")
    assert vm is not None

    def refused(reason: str, message: str) -> MarkUnplaced:
        return MarkUnplaced(uid=vm.meta.uid, generation=1, reason=reason, message=message)

    assert told.do(refused("NoHostFits", "no host takes it: 1 vcpu is free")) == ["MicroVM/db Unplaced"]
    assert told.do(refused("NoHostFits", "no host takes it: 2 vcpu are free")) == []
    assert told.do(refused("NoHosts", "there are no hosts")) == ["MicroVM/db Unplaced"]


def test_a_host_that_is_lost_and_what_ran_there(told: Told) -> None:
    assert told.do(suspected()) == ["Host/h1 Suspect"]
    assert told.do(heard()) == ["Host/h1 Ready"]
    told.do(suspected())
    assert told.do(detached()) == ["Host/h1 Detached"]
    assert told.do(fenced()) == ["Host/h1 Fenced"]
    assert told.do(resurrect(told.vm)) == ["MicroVM/web Resurrected"]
    assert told.message().startswith("host h1 is lost (")
    assert told.do(confirm_off()) == ["Host/h1 ConfirmedOff"]
    assert told.do(agent_connected("h1", session="h1-again")) == ["Host/h1 Rejoining"]


def test_a_host_that_is_emptied(told: Told) -> None:
    assert told.do(act_on_host(HostAction.DRAIN)) == ["Host/h1 Changed"]
    assert told.do(evict(told.vm)) == ["MicroVM/web Evicted"]
    assert told.do(destroyed(told.vm)) == ["MicroVM/web Moved"]
    assert told.message() == "host h1 has ended it: it is placed anew"


def test_what_nobody_declared_is_told_once(told: Told) -> None:
    stranger = Unmanaged(native_id="x1", driver="qemu")
    known = told.state.hosts["h1"].session
    assert known is not None
    seen = Report(host="h1", session=known, unmanaged=[stranger])
    assert told.do(seen) == ["Host/h1 UnmanagedFound"]
    assert told.message() == "it runs what nobody declared: qemu/x1"
    assert told.do(seen) == []


def test_a_group_that_gets_stuck_and_goes_on(told: Told) -> None:
    def step(**changes: object) -> StepGroup:
        found = told.state.microvm_group("demo", "web")
        assert found is not None
        return StepGroup(
            namespace="demo",
            name="web",
            uid=found.meta.uid,
            generation=found.meta.generation,
            **changes,  # pyright: ignore[reportArgumentType]
        )

    assert told.do(declare_group(replicas=1)) == ["MicroVMGroup/web Declared"]
    added = step(add=[NewMember(name="web-1", uid="member-1")])
    assert told.do(added, actor="groups") == ["MicroVM/web-1 Declared"]
    stall = Stall(reason="ReadyDeadlineExceeded", message="1 member not ready")
    assert told.do(step(stall=stall)) == ["MicroVMGroup/web Paused"]
    assert told.message() == "ReadyDeadlineExceeded: 1 member not ready"
    assert told.state.recent.at(told.state.recent.tail - 1).is_warning
    assert told.do(step()) == ["MicroVMGroup/web Resumed"]


def test_a_batch_tells_of_each_object_once(told: Told) -> None:
    commands = [declare_namespace("other"), declare_microvm("a", namespace="other")]
    parts = [seal(each, id=f"p{number}", at=1, actor="alice") for number, each in enumerate(commands)]
    assert told.do(Batch(commands=parts)) == ["Namespace/other Declared", "MicroVM/a Declared"]


def test_every_node_tells_the_same_whether_it_replays_the_log_or_loads_a_snapshot(told: Told) -> None:
    state = State(cluster_id="test")
    for index, entry in enumerate(told.machine.entries, start=1):
        state, _, _ = apply_entry(state, entry, index=index, term=1)
    assert state.recent == told.state.recent
    check_snapshot(state)
