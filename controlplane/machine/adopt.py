"""The command by which an operator declares what already runs on a host: the record is made around the copy.

It is for what a restore forgot (docs/adr/0125). The microVM keeps its uid, its epoch and its generation, so its host
finds itself as it is wanted and does nothing. Two copies must not come of it: it is refused while another host may have
one, and the one that is adopted is the only one that was told of.
"""

from __future__ import annotations

from controlplane.machine.convergence import amount_of
from controlplane.machine.draft import Draft
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.lifecycle import MicroVMEvent
from controlplane.machine.operations import begin, describe
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.placement_rules import capacity_refusal, unheard_of
from controlplane.machine.policy_rules import reference_refusal
from controlplane.machine.recovery_rules import fencing_refusal, is_off, recovery_refusal
from controlplane.machine.refusals import amount_refusal, declaration_refusal, missing, quota_refusal
from controlplane.machine.secrets import sealed_values
from controlplane.machine.state import State
from controlplane.machine.steps import Result, move, stale
from controlplane.model.commands import Adopt, DeclareMicroVM
from controlplane.model.resources import (
    Availability,
    Bid,
    Host,
    HostPhase,
    Meta,
    MicroVM,
    MicroVMPhase,
    OperationKind,
    PlacementDecision,
    Unmanaged,
)
from controlplane.model.types import Kind, replace


def adopt(draft: Draft, command: Adopt) -> Result:
    declared = command.declaration
    host = draft.state.hosts.get(command.host)
    if host is None or not host.declared:
        return missing(Kind.HOST, command.host)
    found = next((each for each in host.unmanaged if each.key == command.key), None)
    if found is None or (found.uid, found.epoch) != (declared.uid, command.epoch):
        return stale(f"{command.key} on host {command.host} is not what was looked at any more")
    if (reason := _obstacle(draft.state, host, found)) is not None:
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=reason, pointer="/instance", uid=host.meta.uid)
    if (refused := _refusal(draft, declared, host)) is not None:
        return refused
    if isinstance(sealed := sealed_values(draft.state, declared, None), Rejected):
        return sealed
    vm = replace(_made(draft, command, host), sealed=sealed)
    holds = {key: held for key, held in host.holds.items() if key != command.key}
    others = [each for each in host.unmanaged if each.key != command.key]
    draft.put_host(replace(draft.state.hosts[command.host], unmanaged=others, holds=holds))
    draft.put_microvm(replace(vm, hold=host.holds.get(command.key)))
    return Applied(
        revision=draft.revision, change=Change.CREATED, kind=Kind.MICROVM, uid=vm.meta.uid, operation=vm.operation
    )


def _obstacle(state: State, host: Host, found: Unmanaged) -> str | None:
    """Why this copy cannot be the microVM, in words for an operator."""
    name = host.meta.name
    if host.phase is not HostPhase.READY:
        return f"host {name} is {host.phase.value}"
    if (use := availability(host)) in (Availability.DRAINED, Availability.IN_MAINTENANCE):
        return f"host {name} was emptied ({use.value}): open it first (`flintctl host uncordon {name}`)"
    if not found.ours or found.uid is None:
        return "it does not say that it is of this cluster: what others made has to be made anew"
    if (vm := state.microvms.get(found.uid)) is not None:
        return f"it is a copy of microVM {vm.meta.namespace}/{vm.meta.name}, which is declared"
    if (reason := unheard_of(state)) is not None:
        return reason
    for other, each in sorted(state.hosts.items()):
        if found.uid in each.stale:
            return f"the end of what host {other} has of it is ordered"
        if is_off(each):
            continue
        copies = [copy.key for copy in each.unmanaged if copy.uid == found.uid and copy is not found]
        if copies:
            return f"host {other} has a copy as well ({copies[0]}): end one of them there"
    return None


def _refusal(draft: Draft, declared: DeclareMicroVM, host: Host) -> Rejected | None:
    """What a declaration of the same, and a placement of it there, would be refused for."""
    namespace = draft.state.namespaces.get(declared.namespace)
    if namespace is None:
        message = f"namespace {declared.namespace} does not exist"
        return Rejected(code=Code.NAMESPACE_NOT_FOUND, message=message, pointer="/namespace")
    if (old := draft.state.microvm(declared.namespace, declared.name)) is not None:
        message = f"microVM {declared.namespace}/{declared.name} exists"
        return Rejected(code=Code.ALREADY_EXISTS, message=message, pointer="/name", uid=old.meta.uid)
    amount = amount_of(declared.spec)
    refused = (
        declaration_refusal(declared, None)
        or amount_refusal(declared.spec)
        or recovery_refusal(declared.spec)
        or reference_refusal(draft.state, declared.spec)
        or quota_refusal(draft, namespace, amount)
    )
    if refused is not None:
        return refused
    if (reason := fencing_refusal(declared.spec, host) or capacity_refusal(host, amount)) is not None:
        message = f"host {host.meta.name}: {reason}"
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=message, pointer="/instance", uid=host.meta.uid)
    return None


def _made(draft: Draft, command: Adopt, host: Host) -> MicroVM:
    declared, name = command.declaration, host.meta.name
    meta = Meta(
        kind=Kind.MICROVM,
        namespace=declared.namespace,
        name=declared.name,
        uid=declared.uid,
        labels=declared.labels,
        generation=command.generation,
        intent_revision=draft.revision,
        created_at=draft.at,
        updated_at=draft.at,
    )
    bids = [Bid(host=name, score=0.0)]
    vm = MicroVM(
        meta=meta,
        spec=declared.spec,
        phase=MicroVMPhase.PENDING,
        since=draft.at,
        epoch=command.epoch,
        held=amount_of(declared.spec),
        placement=PlacementDecision(host=name, epoch=command.epoch, at=draft.at, score=0.0, bids=bids),
        repair_seq=command.repair_seq,
        restart_seq=command.restart_seq,
    )
    vm = move(draft, begin(draft, vm, OperationKind.CREATE), MicroVMEvent.PLACED)
    describe(draft, vm.operation, f"adopted on {name}, where it is")
    return vm
