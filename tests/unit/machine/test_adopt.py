"""Adoption: the record is made around what runs, once it is certain that there is one copy of it, and no other."""

from __future__ import annotations

import dataclasses

import pytest
from support.builders import act_on_host, agent_connected, begin_incarnation, declare_microvm, observation, report
from support.driven import DrivenMachine

from controlplane.machine.outcome import Code
from controlplane.model.commands import Act, Action, AddDataKey, Adopt, Hold, HoldKind, HostAction, HostEvacuated
from controlplane.model.credentials import Sealed
from controlplane.model.resources import MicroVMPhase, OperationPhase, Unmanaged
from controlplane.model.secrets import SealedValue
from controlplane.model.types import replace

COPY = Unmanaged(native_id="vm-old", driver="simulated", uid="vm-old", namespace="demo", name="old", epoch=3, ours=True)
DECLARED = replace(declare_microvm("old", labels={"app": "web"}), uid="vm-old")
ADOPT = Adopt(host="h1", key=COPY.key, epoch=3, generation=4, declaration=DECLARED, repair_seq=1, restart_seq=2)


@pytest.fixture
def machine() -> DrivenMachine:
    """Two hosts; h1 has a copy of ours that nobody declares."""
    machine = DrivenMachine().with_host().with_host("h2")
    machine.active("other")
    machine.accept(report(unmanaged=[COPY]))
    return machine


def test_what_runs_is_declared_as_it_runs_and_its_host_has_nothing_to_do(machine: DrivenMachine) -> None:
    outcome = machine.accept(ADOPT)
    vm = machine.vm("old")
    assert (vm.meta.uid, vm.epoch, vm.meta.generation, vm.phase) == ("vm-old", 3, 4, MicroVMPhase.PLACED)
    assert (vm.repair_seq, vm.restart_seq, vm.meta.labels) == (1, 2, {"app": "web"})
    assert vm.placement is not None
    assert vm.placement.host == "h1"
    assert machine.host().unmanaged == []
    machine.accept(report(observation(vm, generation=4, repair_seq=1, restart_seq=2)))
    assert machine.vm("old").phase is MicroVMPhase.ACTIVE
    assert outcome.operation is not None
    assert machine.state.operations[outcome.operation].phase is OperationPhase.SUCCEEDED
    machine.accept(Act(namespace="demo", name="old", action=Action.RESTART))
    assert machine.vm("old").restart_seq == 3, "a restart is one that its host has not carried out"


def test_it_is_adopted_once(machine: DrivenMachine) -> None:
    machine.accept(ADOPT)
    machine.refuse(ADOPT, Code.STALE)
    machine.accept(report(unmanaged=[COPY]))
    refused = machine.refuse(ADOPT, Code.CONSTRAINT_VIOLATED, "/instance")
    assert "copy of microVM demo/old, which is declared" in refused.message


def test_two_copies_are_never_one_microvm(machine: DrivenMachine) -> None:
    machine.accept(report(host="h2", unmanaged=[replace(COPY, epoch=2)]))
    refused = machine.refuse(ADOPT, Code.CONSTRAINT_VIOLATED, "/instance")
    assert "host h2 has a copy as well" in refused.message
    machine.accept(report(host="h2", unmanaged=[]))
    machine.accept(report(unmanaged=[COPY, replace(COPY, native_id="pid-9")]))
    machine.refuse(ADOPT, Code.CONSTRAINT_VIOLATED, "/instance")
    machine.accept(report(unmanaged=[COPY]))
    machine.accept(ADOPT)


@pytest.mark.parametrize(
    "found",
    [replace(COPY, epoch=4), replace(COPY, uid="vm-new"), replace(COPY, native_id="x")],
    ids=["another epoch", "another uid", "another instance"],
)
def test_what_is_not_what_was_looked_at_is_refused(machine: DrivenMachine, found: Unmanaged) -> None:
    machine.accept(report(unmanaged=[found]))
    machine.refuse(ADOPT, Code.STALE)


def test_what_another_cluster_made_is_refused(machine: DrivenMachine) -> None:
    machine.accept(report(unmanaged=[replace(COPY, ours=False)]))
    refused = machine.refuse(ADOPT, Code.CONSTRAINT_VIOLATED, "/instance")
    assert "has to be made anew" in refused.message


def test_what_a_declaration_would_be_refused_for_is_refused(machine: DrivenMachine) -> None:
    def named(**changes: object) -> Adopt:
        return replace(ADOPT, declaration=replace(DECLARED, **changes))

    machine.refuse(named(name="other"), Code.ALREADY_EXISTS, "/name")
    machine.refuse(named(namespace="none"), Code.NAMESPACE_NOT_FOUND, "/namespace")
    machine.refuse(named(spec=declare_microvm(vcpu=10**6).spec), Code.CONSTRAINT_VIOLATED, "/instance")
    machine.refuse(replace(ADOPT, host="none"), Code.NOT_FOUND, "/name")


def test_a_host_that_is_not_ready_keeps_what_it_has(machine: DrivenMachine) -> None:
    machine.lose()
    machine.refuse(ADOPT, Code.CONSTRAINT_VIOLATED, "/instance")


def test_a_host_that_was_emptied_is_given_nothing(machine: DrivenMachine) -> None:
    machine.accept(report(unmanaged=[]))
    machine.accept(report(host="h2", unmanaged=[COPY]))
    there = replace(ADOPT, host="h2")
    machine.accept(act_on_host(HostAction.DRAIN, host="h2"))
    machine.accept(HostEvacuated(host="h2"))
    refused = machine.refuse(there, Code.CONSTRAINT_VIOLATED, "/instance")
    assert "open it first" in refused.message
    machine.accept(act_on_host(HostAction.UNCORDON, host="h2"))
    machine.accept(there)


def test_its_secrets_are_stored_as_those_of_a_declaration(machine: DrivenMachine) -> None:
    spec = dataclasses.replace(DECLARED.spec, sensitive_metadata={"user-data": f"hmac-sha256:{'1' * 64}"})
    value = SealedValue(key_id="k1", box="AQID")
    secret = replace(ADOPT, declaration=replace(DECLARED, spec=spec, sealed={"user-data": value}))
    machine.refuse(secret, Code.STALE)
    machine.accept(AddDataKey(id="k1", key=Sealed(key_id="ring", wrapped="AQID", box="BAUG"), replaces=None))
    machine.accept(secret)
    assert machine.vm("old").sealed == {"user-data": value}


def test_after_a_restore_every_host_is_heard_first(machine: DrivenMachine) -> None:
    machine.accept(begin_incarnation())
    machine.accept(agent_connected(session="again"))
    machine.accept(report(session="again", unmanaged=[COPY], rejoined=True))
    refused = machine.refuse(ADOPT, Code.CONSTRAINT_VIOLATED, "/instance")
    assert "nobody knows what is on host h2" in refused.message


def test_who_held_it_holds_the_microvm(machine: DrivenMachine) -> None:
    machine.accept(Hold(kind=HoldKind.FOUND, host="h1", name="vm-old", reason="whose is it?"), actor="bob")
    machine.accept(ADOPT)
    held = machine.vm("old").hold
    assert held is not None
    assert (held.actor, machine.host().holds) == ("bob", {})
