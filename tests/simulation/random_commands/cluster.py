"""What the cluster says of itself: its incarnation, its version and its audit chain."""

from __future__ import annotations

from simulation.random_commands.choices import Choices

from controlplane.machine.state import State
from controlplane.model.commands import (
    BeginAudit,
    BeginIncarnation,
    Command,
    DropAudit,
    ExportedAudit,
    RaiseMachineVersion,
    Witnessed,
    WitnessRequests,
)
from controlplane.model.commands.versions import MACHINE_VERSION


def begin_incarnation(choices: Choices, state: State) -> Command:
    number = state.incarnation
    return BeginIncarnation(incarnation=choices.integer(number, number, number, number + 1), term=choices.term())


def raise_machine_version(choices: Choices, _: State) -> Command:
    # One that this build does not know would stop it.
    return RaiseMachineVersion(version=choices.pick(range(MACHINE_VERSION + 1)))


def audit(choices: Choices, state: State) -> Command:
    node, through = choices.name(), choices.integer(state.audit_head, max(state.audit_head - 1, 0))
    match choices.pick(("begin", "witness", "export", "drop", "drop")):
        case "begin":
            return BeginAudit(node=node)
        case "witness":
            seen = Witnessed(at=choices.integer(1_000), actor=choices.pick((None, "alice")), action="GET", status=403)
            return WitnessRequests(node=node, requests=[seen] * choices.pick((0, 1, 3)))
        case "export":
            return ExportedAudit(node=node, through=through)
        case _:
            return DropAudit(through=through)
