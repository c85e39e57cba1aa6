"""What a lost host would do if it came back: the same as it does, when it is as it was last known."""

from __future__ import annotations

from support.builders import declare_host, destroyed, report, resurrect
from support.driven import DrivenMachine

from controlplane.bootstrap.forecast import forecast_of
from controlplane.model.commands import Delete
from controlplane.model.resources import ObservedPower, Unmanaged
from controlplane.model.spec import HostFailure, Recovery
from controlplane.model.types import Kind
from controlplane.ports import PlanVerb

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)


def verbs(machine: DrivenMachine) -> dict[str, PlanVerb]:
    """By name, or uid where no name is known any more."""
    items = forecast_of(machine.state, machine.host())
    return {str(item.name or item.uid or item.native_id): item.verb for item in items}


def test_a_lost_host_keeps_resumes_destroys_and_reports() -> None:
    machine = DrivenMachine().with_host().with_host("h2")
    machine.active("kept")
    machine.active("moves", recovery=MOVES)
    given_up = machine.active("gone", recovery=MOVES)
    machine.placed("never")
    machine.active("doomed")
    strangers = [Unmanaged(native_id="9", driver="simulated", power=ObservedPower.RUNNING)]
    machine.accept(report(unmanaged=strangers))
    machine.lose()
    machine.accept(resurrect(given_up))
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="doomed"))
    assert verbs(machine) == {
        "kept": PlanVerb.KEEP,
        "moves": PlanVerb.RESUME,
        "vm-gone": PlanVerb.DESTROY,
        "never": PlanVerb.CREATE,
        "doomed": PlanVerb.DESTROY,
        "9": PlanVerb.REPORT,
    }


def test_a_host_that_never_connected_has_no_plan() -> None:
    machine = DrivenMachine()
    machine.accept(declare_host())
    assert verbs(machine) == {}


def test_what_is_gone_is_not_in_it() -> None:
    machine = DrivenMachine().with_host()
    vm = machine.active()
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    machine.accept(destroyed(vm))
    assert verbs(machine) == {}
