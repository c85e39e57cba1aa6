"""What nobody asked for any more: collected, held from collection, released or adopted."""

from __future__ import annotations

from typing import Any

from simulation.random_commands.choices import Choices
from simulation.random_commands.users import declare_microvm

from controlplane.decide.gc import plan
from controlplane.machine.state import State
from controlplane.model.commands import Adopt, Collect, Command, Hold, HoldKind, Release
from controlplane.model.gc import Subject, SubjectKind, Trigger
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import replace

KEEPS_NOTHING = GCPolicySpec(
    failed_microvm_after_s=0,
    unmanaged_microvm_after_s=0,
    lost_host_after_s=0,
    lost_tombstone_after_s=0,
    leftover_after_s=0,
    quarantined_volumes_after_s=0,
    finished_operation_after_s=0,
    audit_records_after_s=0,
)


def hold(choices: Choices, state: State) -> Command:
    return Hold(**_held(choices, state), reason=choices.pick(("look", "look", "")))


def release(choices: Choices, state: State) -> Command:
    return Release(**_held(choices, state))


def adopt(choices: Choices, state: State) -> Command:
    """Of what a host told of, mostly; else something like it."""
    told = [(name, each) for name, host in sorted(state.hosts.items()) for each in host.unmanaged]
    host, found = choices.pick(told) if told else (choices.name(), None)
    declaration = declare_microvm(choices, state)
    known = found if found is not None and not choices.nonsense() else None
    return Adopt(
        host=host,
        key=known.key if known is not None else "qemu/x",
        epoch=(known.epoch if known is not None else None) or choices.integer(1),
        generation=choices.integer(1),
        declaration=replace(declaration, uid=(known.uid if known is not None else None) or choices.uid()),
    )


def collect(choices: Choices, state: State) -> Command:
    """Of a plan of now, mostly; else something like it."""
    due = plan(state, KEEPS_NOTHING, now_ms=2**50).collect
    if due and not choices.nonsense():
        return choices.pick(due).command
    subject = Subject(kind=SubjectKind.HOST, name=choices.name(), uid=choices.uid(), host=choices.name(), driver="qemu")
    return Collect(
        trigger=choices.pick(tuple(Trigger)),
        subject=subject,
        since=choices.integer(0),
        epoch=choices.integer(1),
        reason="x",
    )


def _held(choices: Choices, state: State) -> dict[str, Any]:
    vm, host = choices.vm(state), choices.name()
    found = state.hosts[host].unmanaged if host in state.hosts else []
    return choices.pick(
        (
            {"kind": HoldKind.HOST, "name": host},
            {"kind": HoldKind.FOUND, "host": host, "name": found[0].native_id if found else "1"},
            {
                "kind": HoldKind.MICROVM,
                "namespace": vm.meta.namespace if vm is not None else None,
                "name": vm.meta.name if vm is not None else choices.name(),
            },
        )
    )
