"""The command by which a user asks for the end of a declared resource.

A microVM that may exist on a host becomes a tombstone: the record itself, in phase `deleting`, until the host confirms
(docs/adr/0005). Everything else ends at once, or is refused because something still needs it, or somebody holds it. A
lost host confirms nothing: its tombstones wait for it, or for an operator to say that it is off and to delete it
(docs/adr/0100). Whatever ends, the order says who gave it and why (docs/adr/0108).
"""

from __future__ import annotations

from controlplane.machine.access_rules import role_in_use
from controlplane.machine.certificates import revoke_all
from controlplane.machine.draft import Draft
from controlplane.machine.holding import MAX_REASON, held_refusal, host_hold, microvm_hold
from controlplane.machine.lifecycle import HOST, MICROVM, HostEvent, MicroVMEvent, OperationEvent
from controlplane.machine.operations import begin, finish
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.recovery_rules import is_off
from controlplane.machine.refusals import conflict, missing
from controlplane.machine.state import State
from controlplane.machine.steps import order_end
from controlplane.model.commands import Delete
from controlplane.model.credentials import MemberKind
from controlplane.model.gc import Deletion
from controlplane.model.groups import MicroVMGroup
from controlplane.model.policies import POLICIES
from controlplane.model.resources import Amount, Host, HostPhase, Meta, MicroVM, MicroVMPhase, OperationKind
from controlplane.model.spec import HostSpec
from controlplane.model.types import Kind, replace

Result = Applied | Rejected
ON_REQUEST = "on request"
"""The reason of whoever gives none."""
_NAMED = 3
"""So many of the microVMs that are in the way are named; the rest is a number."""


def delete(draft: Draft, command: Delete) -> Result:
    if len(command.reason) > MAX_REASON:
        message = f"a reason has at most {MAX_REASON} characters"
        return Rejected(code=Code.INVALID, message=message, pointer="/query/reason")
    match command.kind:
        case Kind.NAMESPACE:
            return _delete_namespace(draft, command)
        case Kind.PLACEMENT_POLICY | Kind.FAILOVER_POLICY | Kind.GC_POLICY | Kind.ROLE | Kind.ROLE_BINDING:
            return _delete_policy(draft, command)
        case Kind.HOST:
            return _delete_host(draft, command)
        case Kind.MICROVM:
            return _delete_microvm(draft, command)
        case Kind.MICROVM_GROUP:
            return _delete_group(draft, command)
        case Kind.OPERATION:
            return Rejected(code=Code.INVALID, message="operations end by themselves", pointer="/kind")


def _delete_namespace(draft: Draft, command: Delete) -> Result:
    namespace = draft.state.namespaces.get(command.name)
    if namespace is None:
        return missing(Kind.NAMESPACE, command.name)
    if command.revision is not None and command.revision != namespace.meta.intent_revision:
        return conflict(namespace.meta, command.revision)
    used = draft.state.usage.get(command.name, Amount())
    if used.microvms:
        return Rejected(
            code=Code.NAMESPACE_NOT_EMPTY,
            message=f"namespace {command.name} still has {_microvms(used.microvms)}",
            pointer="/name",
            uid=namespace.meta.uid,
        )
    groups = [each.meta.name for each in draft.state.microvm_groups.values() if each.meta.namespace == command.name]
    if groups:
        return Rejected(
            code=Code.NAMESPACE_NOT_EMPTY,
            message=f"namespace {command.name} still has the group {min(groups)}",
            pointer="/name",
            uid=namespace.meta.uid,
        )
    draft.drop_namespace(namespace, _asked(draft, command))
    return _deleted(draft, Kind.NAMESPACE, namespace.meta)


def _delete_policy(draft: Draft, command: Delete) -> Result:
    policy = draft.state.policies_of(command.kind).get(command.name)
    if policy is None:
        return missing(command.kind, command.name)
    if command.revision is not None and command.revision != policy.meta.intent_revision:
        return conflict(policy.meta, command.revision)
    if command.kind is Kind.ROLE and (refused := role_in_use(draft.state, policy.meta)) is not None:
        return refused
    users = draft.state.policy_users.get((command.kind, command.name), 0)
    if users:
        return Rejected(
            code=Code.POLICY_IN_USE,
            message=f"{POLICIES[command.kind].noun} {command.name} is named by {_microvms(users)}",
            pointer="/name",
            uid=policy.meta.uid,
        )
    draft.drop_policy(policy, _asked(draft, command))
    return _deleted(draft, command.kind, policy.meta)


def _delete_host(draft: Draft, command: Delete) -> Result:
    host = draft.state.hosts.get(command.name)
    if host is None or not host.declared:
        return missing(Kind.HOST, command.name)
    if command.revision is not None and command.revision != host.meta.intent_revision:
        return conflict(host.meta, command.revision)
    if (held := host_hold(host)) is not None:
        return held_refusal(held, host.meta.uid)
    if (reason := still_used(draft.state, host)) is not None:
        return Rejected(code=Code.HOST_IN_USE, message=reason, pointer="/name", uid=host.meta.uid)
    return end_host(draft, host, _asked(draft, command))


def end_host(draft: Draft, host: Host, why: Deletion) -> Applied:
    """The end of a host that nothing needs any more (see `still_used`)."""
    host = _without_tombstones(draft, host, why)
    # It does not come back by what it was given; to be taken in again, it joins anew.
    revoke_all(draft, MemberKind.HOST, host.meta.name, f"the host was deleted: {why.reason}")
    phase = HOST[host.phase, HostEvent.DELETED]
    if phase is None:
        draft.drop_host(host, why)
    else:
        # Its agent is still connected: it falls back to what an undeclared agent is.
        meta = replace(host.meta, labels={}, annotations={}, intent_revision=draft.revision, updated_at=draft.at)
        draft.put_host(
            replace(
                host,
                meta=meta,
                declared=False,
                spec=HostSpec(),
                phase=phase,
                since=draft.at,
                reason="",
                evacuating=None,
                clearing={},
            )
        )
    return _deleted(draft, Kind.HOST, host.meta)


def still_used(state: State, host: Host) -> str | None:
    """Why `host` cannot go, and what to do about it. An operator's word that it is off stands for its confirmations."""
    name, off = host.meta.name, is_off(host)
    held = [vm for vm in state.microvms_on(name) if not (off and vm.phase is MicroVMPhase.DELETING)]
    if held:
        names = [f"{vm.meta.namespace}/{vm.meta.name}" for vm in held[:_NAMED]]
        more = ["..."] if len(held) > _NAMED else []
        lost = host.phase in (HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED) and host.confirmed_by is None
        hint = f"; if the host is off for good, say so first: {_confirm(name)}" if lost else ""
        return f"host {name} still holds {_microvms(len(held))}: {', '.join(names + more)}{hint}"
    if state.begun is not None and name in state.begun.awaited:
        return (
            f"host {name} has not told what is there since the cluster was restored: start its agent, or, if the host"
            f" is off for good, {_confirm(name)} and delete it then"
        )
    if host.stale and not off:
        copies = "1 copy" if len(host.stale) == 1 else f"{len(host.stale)} copies"
        return (
            f"host {name} has yet to destroy {copies} of what was given up there: start its agent again and wait, or,"
            f" if the host is off for good, {_confirm(name)} and delete it then: the orders are dropped with it"
        )
    return None


def _confirm(host: str) -> str:
    return f"`flintctl host confirm-fenced {host}`"


def _without_tombstones(draft: Draft, host: Host, why: Deletion) -> Host:
    """`host` once nothing is placed there: of a host that is off for good, nobody else confirms the tombstones."""
    for vm in list(draft.state.microvms_on(host.meta.name)):
        finish(draft, vm.operation, OperationEvent.SETTLED, f"host {host.meta.name} was confirmed off and deleted")
        draft.drop_microvm(vm, vm.deletion or why)
    return draft.state.hosts[host.meta.name]


def _delete_microvm(draft: Draft, command: Delete) -> Result:
    vm = draft.state.microvm(str(command.namespace), command.name)
    if vm is None:
        return missing(Kind.MICROVM, f"{command.namespace}/{command.name}")
    if command.revision is not None and command.revision != vm.meta.intent_revision:
        return conflict(vm.meta, command.revision)
    if vm.phase is MicroVMPhase.DELETING:
        return Applied(
            revision=draft.state.revision,
            change=Change.UNCHANGED,
            kind=Kind.MICROVM,
            uid=vm.meta.uid,
            operation=vm.operation,
        )
    if (held := microvm_hold(vm)) is not None:
        return held_refusal(held, vm.meta.uid)
    return end_microvm(draft, vm, _asked(draft, command))


def end_microvm(draft: Draft, vm: MicroVM, why: Deletion) -> Applied:
    """The tombstone of a microVM that has none, or its end at once."""
    phase = MICROVM[vm.phase, MicroVMEvent.TOMBSTONED]
    vm = begin(draft, vm, OperationKind.DELETE, reason=why.reason)
    if phase is None:
        finish(draft, vm.operation, OperationEvent.SETTLED, "it has no host" if vm.epoch else "it was never placed")
        draft.drop_microvm(vm, why)
        return _deleted(draft, Kind.MICROVM, vm.meta, operation=vm.operation)
    meta = replace(vm.meta, deletion_requested_at=draft.at, intent_revision=draft.revision, updated_at=draft.at)
    draft.put_microvm(replace(vm, meta=meta, phase=phase, since=draft.at, drifted_since=None, deletion=why))
    return Applied(
        revision=draft.revision, change=Change.CHANGED, kind=Kind.MICROVM, uid=vm.meta.uid, operation=vm.operation
    )


def _delete_group(draft: Draft, command: Delete) -> Result:
    """Its members are ended by the runner, in the order in which it ends any; with the last one goes the group."""
    group = draft.state.microvm_group(str(command.namespace), command.name)
    if group is None:
        return missing(Kind.MICROVM_GROUP, f"{command.namespace}/{command.name}")
    if command.revision is not None and command.revision != group.meta.intent_revision:
        return conflict(group.meta, command.revision)
    if group.deletion is not None:
        revision = draft.state.revision
        return Applied(revision=revision, change=Change.UNCHANGED, kind=Kind.MICROVM_GROUP, uid=group.meta.uid)
    why = _asked(draft, command)
    if group.meta.uid not in draft.state.members:
        return end_group(draft, group, why)
    meta = replace(group.meta, deletion_requested_at=draft.at, intent_revision=draft.revision, updated_at=draft.at)
    draft.put_group(replace(group, meta=meta, deletion=why, stopped=None))
    return Applied(revision=draft.revision, change=Change.CHANGED, kind=Kind.MICROVM_GROUP, uid=group.meta.uid)


def end_group(draft: Draft, group: MicroVMGroup, why: Deletion) -> Applied:
    """The end of a group that has no member any more."""
    draft.drop_group(group, why)
    return _deleted(draft, Kind.MICROVM_GROUP, group.meta)


def end_lost_tombstone(draft: Draft, vm: MicroVM, why: Deletion) -> Applied:
    """The end of a tombstone whose host is off for good. Should that come back nevertheless, it has the order still."""
    assert vm.placement is not None
    host = draft.state.hosts[vm.placement.host]
    message = f"host {host.meta.name} was confirmed off: nothing waits for it any more"
    finish(draft, vm.operation, OperationEvent.SETTLED, message)
    draft.drop_microvm(vm, vm.deletion or why)
    draft.put_host(order_end(draft.state.hosts[host.meta.name], vm.meta.uid, vm.epoch, why))
    return _deleted(draft, Kind.MICROVM, vm.meta, operation=vm.operation)


def _asked(draft: Draft, command: Delete) -> Deletion:
    return draft.because(command.reason or ON_REQUEST)


def _microvms(count: int) -> str:
    return f"{count} microVM" if count == 1 else f"{count} microVMs"


def _deleted(draft: Draft, kind: Kind, meta: Meta, operation: str | None = None) -> Applied:
    return Applied(revision=draft.revision, change=Change.DELETED, kind=kind, uid=meta.uid, operation=operation)
