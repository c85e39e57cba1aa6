"""Commands by which the scheduler puts pending microVMs on hosts, or says why it cannot."""

from __future__ import annotations

from controlplane.machine.convergence import amount_of
from controlplane.machine.draft import Draft
from controlplane.machine.lifecycle import MicroVMEvent
from controlplane.machine.operations import describe
from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.placement_rules import refusal, withheld
from controlplane.machine.recovery_rules import applied_action
from controlplane.machine.refusals import score_refusal
from controlplane.machine.state import FOUNDING, State
from controlplane.machine.steps import Result, applied, move, stale
from controlplane.model.commands import MarkUnplaced, Place
from controlplane.model.resources import MicroVMPhase, PlacementDecision, Unplaced
from controlplane.model.types import replace

EPOCHS_PER_INCARNATION = 1_000_000
"""Epochs jump by it with each incarnation, so that none of a lost history is used again: no microVM is placed so often
in one incarnation, and up to `MAX_INCARNATION` they stay below what a JSON number holds."""


def place(draft: Draft, command: Place) -> Result:
    vm = draft.state.microvms.get(command.uid)
    if vm is None or vm.phase is not MicroVMPhase.PENDING or vm.meta.generation != command.generation:
        return stale("the microVM has changed since the decision")
    if (refused := score_refusal(command.bids, command.score)) is not None:
        return refused
    host = draft.state.hosts.get(command.host)
    if host is None:
        return Rejected(code=Code.HOST_NOT_FOUND, message=f"host {command.host} does not exist", uid=command.uid)
    # Logs of before leases have placements that nobody withheld.
    everywhere = withheld(draft.state, vm) if host.lease_ttl_ms else None
    if (reason := everywhere or refusal(draft.state, vm, host)) is not None:
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=f"host {command.host}: {reason}", uid=command.uid)
    epoch = max(vm.epoch, epochs_before(draft.state)) + 1
    decision = PlacementDecision(host=command.host, epoch=epoch, at=draft.at, score=command.score, bids=command.bids)
    vm = replace(
        vm,
        epoch=epoch,
        placement=decision,
        unplaced=None,
        held=amount_of(vm.spec),
        observed=None,
        # A host can apply nothing but the specs that it gets of this epoch, and this is the first.
        detach=applied_action(vm, host),
    )
    vm = move(draft, vm, MicroVMEvent.PLACED)
    describe(draft, vm.operation, f"placed on {command.host}")
    draft.put_microvm(vm)
    return applied(draft, vm.meta.uid)


def epochs_before(state: State) -> int:
    """No placement of the present incarnation has an epoch up to this, and every one of an earlier one has."""
    return (state.incarnation - FOUNDING) * EPOCHS_PER_INCARNATION


def mark_unplaced(draft: Draft, command: MarkUnplaced) -> Result:
    vm = draft.state.microvms.get(command.uid)
    if vm is None or vm.phase is not MicroVMPhase.PENDING or vm.meta.generation != command.generation:
        return stale("the microVM has changed since the decision")
    if (refused := score_refusal(command.bids)) is not None:
        return refused
    since = vm.unplaced.since if vm.unplaced is not None else draft.at
    unplaced = Unplaced(reason=command.reason, message=command.message, since=since, bids=command.bids)
    describe(draft, vm.operation, command.message)
    draft.put_microvm(replace(vm, unplaced=unplaced))
    return applied(draft, vm.meta.uid)
