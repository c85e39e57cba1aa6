"""The command that ends one thing which the policy keeps no longer.

It was decided from an older state, so everything is looked at again: that the thing is what the plan showed, since the
same time, that nothing stands in the way by now, and that the policy is still the one that it was decided by.
"""

from __future__ import annotations

from controlplane.machine.collection_rules import (
    Obstacle,
    WaitsFor,
    audit_obstacle,
    audit_since,
    declared_policy,
    failed_obstacle,
    leftover_obstacle,
    lost_host_obstacle,
    lost_since,
    lost_tombstone_obstacle,
    oldest_audit_day,
    trigger_of,
    unmanaged_obstacle,
)
from controlplane.machine.delete import end_host, end_lost_tombstone, end_microvm
from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.steps import order_clearing, order_end, stale
from controlplane.model.commands import Collect
from controlplane.model.gc import Deletion, Tally, Trigger
from controlplane.model.resources import Host
from controlplane.model.types import Kind

Result = Applied | Rejected


def collect(draft: Draft, command: Collect) -> Result:
    if (refused := _of_another_policy(draft, command)) is not None:
        return refused
    why = draft.because(command.reason, command.trigger)
    match command.trigger:
        case Trigger.FAILED_MICROVM:
            outcome = _failed_microvm(draft, command, why)
        case Trigger.UNMANAGED_MICROVM:
            outcome = _unmanaged(draft, command, why)
        case Trigger.LOST_HOST:
            outcome = _lost_host(draft, command, why)
        case Trigger.LOST_TOMBSTONE:
            outcome = _lost_tombstone(draft, command, why)
        case Trigger.LEFTOVER | Trigger.QUARANTINED_VOLUMES:
            outcome = _leftover(draft, command, why)
        case Trigger.FINISHED_OPERATION:
            outcome = _operation(draft, command, why)
        case Trigger.AUDIT_RECORDS:
            outcome = _audit_records(draft, command)
    if isinstance(outcome, Applied):
        _tally(draft, command)
    return outcome


def _of_another_policy(draft: Draft, command: Collect) -> Rejected | None:
    policy = declared_policy(draft.state)
    now = (policy.meta.name, policy.meta.intent_revision) if policy is not None else (None, None)
    if (command.policy, command.policy_revision) == now:
        return None
    message = f"the GC policy has changed since the end of {command.subject} was decided"
    return Rejected(code=Code.POLICY_CHANGED, message=message, uid=policy.meta.uid if policy is not None else None)


def _tally(draft: Draft, command: Collect) -> None:
    known = draft.state.tallies.get(command.trigger.value)
    collected = known.collected + 1 if known is not None else 1
    tally = Tally(collected=collected, at=draft.at, subject=str(command.subject), reason=command.reason)
    draft.put_tally(command.trigger, tally)


def _failed_microvm(draft: Draft, command: Collect, why: Deletion) -> Result:
    vm = draft.state.microvms.get(command.subject.uid or "")
    if vm is None or vm.since != command.since or vm.epoch != command.epoch:
        return _changed(command)
    if (obstacle := failed_obstacle(draft.state, vm)) is not None:
        return _refusal(obstacle, vm.meta.uid)
    return end_microvm(draft, vm, why)


def _unmanaged(draft: Draft, command: Collect, why: Deletion) -> Result:
    host, uid = _host(draft, command), command.subject.uid
    copies = [each for each in host.unmanaged if each.uid == uid] if host is not None and uid is not None else []
    if host is None or uid is None or not any(_is_meant(command, each.key, each.since) for each in copies):
        return _changed(command)
    # The order ends every copy of it there, so each of them is looked at.
    for each in copies:
        if (obstacle := unmanaged_obstacle(draft.state, host, each)) is not None:
            return _refusal(obstacle, host.meta.uid)
        if each.epoch is None or each.epoch > command.epoch:
            return _changed(command)
    draft.put_host(order_end(host, uid, command.epoch, why))
    return _applied(draft, host)


def _lost_host(draft: Draft, command: Collect, why: Deletion) -> Result:
    host = draft.state.hosts.get(command.subject.name)
    if host is None or not host.declared or host.since != command.since:
        return _changed(command)
    if (obstacle := lost_host_obstacle(draft.state, host)) is not None:
        return _refusal(obstacle, host.meta.uid)
    return end_host(draft, host, why)


def _lost_tombstone(draft: Draft, command: Collect, why: Deletion) -> Result:
    vm = draft.state.microvms.get(command.subject.uid or "")
    host = _host(draft, command)
    if vm is None or host is None or vm.epoch != command.epoch or lost_since(vm, host) != command.since:
        return _changed(command)
    if (obstacle := lost_tombstone_obstacle(draft.state, vm)) is not None:
        return _refusal(obstacle, vm.meta.uid)
    return end_lost_tombstone(draft, vm, why)


def _leftover(draft: Draft, command: Collect, why: Deletion) -> Result:
    host = _host(draft, command)
    told = host.left_behind if host is not None else []
    left = next((each for each in told if _is_meant(command, each.key, each.since)), None)
    if host is None or left is None or trigger_of(left) is not command.trigger:
        return _changed(command)
    if (obstacle := leftover_obstacle(draft.state, host, left)) is not None:
        return _refusal(obstacle, host.meta.uid)
    draft.put_host(order_clearing(host, left.key, why))
    return _applied(draft, host)


def _operation(draft: Draft, command: Collect, why: Deletion) -> Result:
    finished = draft.state.finished
    if not finished or finished.first() != command.subject.name:
        return stale(f"operation {command.subject.name} is not the next to be forgotten")
    draft.drop_oldest_operation(why)
    return Applied(revision=draft.revision, change=Change.DELETED, kind=Kind.OPERATION, uid=command.subject.name)


def _audit_records(draft: Draft, command: Collect) -> Result:
    """Why is in the record of this command, which the chain goes on with."""
    state = draft.state
    day = oldest_audit_day(state)
    if day is None or command.subject.name != f"{day[0]}-{day[1]}" or audit_since(state, day[1]) != command.since:
        return _changed(command)
    if (obstacle := audit_obstacle(state, day[1])) is not None:
        return _refusal(obstacle, command.subject.name)
    draft.drop_audit(day[1])
    return Applied(revision=draft.revision, change=Change.DELETED)


def _host(draft: Draft, command: Collect) -> Host | None:
    return draft.state.hosts.get(command.subject.host or "")


def _is_meant(command: Collect, key: str, since: int) -> bool:
    return key == f"{command.subject.driver}/{command.subject.name}" and since == command.since


def _applied(draft: Draft, host: Host) -> Applied:
    return Applied(revision=draft.revision, change=Change.CHANGED, kind=Kind.HOST, uid=host.meta.uid)


def _changed(command: Collect) -> Rejected:
    return stale(f"{command.subject} has changed since the decision")


def _refusal(obstacle: Obstacle, uid: str) -> Rejected:
    code = Code.HELD if obstacle.waits_for is WaitsFor.HOLD else Code.CONSTRAINT_VIOLATED
    return Rejected(code=code, message=obstacle.message, uid=uid)
