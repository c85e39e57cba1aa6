"""Garbage collection: what is collected now, what is not yet, and why, one line for each. Pure.

A plan is a function of the state, a time and the policy in force, so whoever reckons it from the same gets the same.
What it collects are commands that name what they were decided from, the declared policy among it; the machine verifies
each again, by the same rules (machine.collection_rules). So a preview is the run, unless something it is about has
changed, and then its digest is another one. What has no turn yet stays in the plan: nothing is remembered between two
plans, so nothing is forgotten.

The oldest goes first, whatever it is; only what is due and has nothing in its way counts for the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b

import msgspec

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
from controlplane.machine.state import State
from controlplane.model.commands import Collect
from controlplane.model.gc import Leftover, LeftoverKind, Subject, SubjectKind, Trigger
from controlplane.model.resources import Host, HostPhase, MicroVMPhase, Unmanaged
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import record

PER_ROUND = 100
"""How much is collected at a time, unless told otherwise."""
_EVERY = frozenset(Trigger)
_MS = 1000
_encoder = msgspec.msgpack.Encoder(order="deterministic")


@record
class PolicyInForce:
    """How long things are kept, and who says so."""

    spec: GCPolicySpec
    name: str | None = None
    """Of the declared policy; None: the settings of the node that answers."""
    revision: int | None = None
    """Of its intent."""


@record
class Collection:
    """What is collected now."""

    due_at: int
    policy: str
    """The field of the policy, with its value."""
    command: Collect


@record
class Waiting:
    """What is not collected yet."""

    trigger: Trigger
    subject: Subject
    since: int
    reason: str
    waits_for: WaitsFor
    message: str
    due_at: int | None
    """When its time is over; None where the policy keeps such things."""


@record
class GCPlan:
    at: int
    """The time that it was reckoned for."""
    revision: int
    policy: PolicyInForce
    collect: tuple[Collection, ...]
    """In the order in which it is done."""
    waiting: tuple[Waiting, ...]

    @property
    def digest(self) -> str:
        """Equal for two plans that collect the same of the same, in the same order."""
        data = _encoder.encode([each.command for each in self.collect])
        return blake2b(data, digest_size=16).hexdigest()


@record
class _Candidate:
    trigger: Trigger
    subject: Subject
    since: int
    reason: str
    """Why it may go once its time is over."""
    obstacle: Obstacle | None
    epoch: int = 0


def in_force(state: State, settings: GCPolicySpec) -> PolicyInForce:
    """The declared policy as a whole, else what the settings say; never a mixture of both."""
    policy = declared_policy(state)
    if policy is None:
        return PolicyInForce(spec=settings)
    return PolicyInForce(spec=policy.spec, name=policy.meta.name, revision=policy.meta.intent_revision)


def plan(
    state: State, settings: GCPolicySpec, *, now_ms: int, limit: int = PER_ROUND, only: frozenset[Trigger] = _EVERY
) -> GCPlan:
    """What to collect at `now_ms`, `limit` of it at most, and what waits; of the triggers `only`.

    `settings` are the node's, which hold where no policy is declared.
    """
    policy = in_force(state, settings)
    due: list[Collection] = []
    waiting: list[Waiting] = []
    for trigger, find in _FINDERS.items():
        after_s = after_of(policy.spec, trigger)
        for each in find(state) if trigger in only else ():
            due_at = each.since + after_s * _MS if after_s is not None else None
            if due_at is None or due_at > now_ms or each.obstacle is not None:
                waiting.append(_waiting(each, due_at, now_ms))
                continue
            command = _command(each, policy, each.reason)
            due.append(Collection(due_at=due_at, policy=f"{field_of(each.trigger)} = {after_s}", command=command))
    going = {each.command.subject.name for each in due if each.command.trigger is Trigger.LOST_HOST}
    waiting += [_with_its_host(each) for each in due if _goes_with(each, going)]
    due = sorted((each for each in due if not _goes_with(each, going)), key=lambda each: each.due_at)
    waiting += [_throttled(each, limit) for each in due[limit:]]
    return GCPlan(
        at=now_ms,
        revision=state.revision,
        policy=policy,
        collect=tuple(due[:limit]),
        waiting=tuple(waiting),
    )


def purge(state: State, settings: GCPolicySpec, host: str, name: str, reason: str) -> Collect | Obstacle | None:
    """What ends at once, because somebody says so, what is left behind on `host` as `name`; or what is in the way.

    None: there is no such thing.
    """
    policy = in_force(state, settings)
    for find in (_leftovers(Trigger.LEFTOVER), _leftovers(Trigger.QUARANTINED_VOLUMES)):
        for each in find(state):
            if (each.subject.host, each.subject.name) == (host, name):
                return each.obstacle or _command(each, policy, f"{reason} ({each.reason})")
    return None


def _command(candidate: _Candidate, policy: PolicyInForce, reason: str) -> Collect:
    return Collect(
        trigger=candidate.trigger,
        subject=candidate.subject,
        since=candidate.since,
        epoch=candidate.epoch,
        reason=reason,
        policy=policy.name,
        policy_revision=policy.revision,
    )


def field_of(trigger: Trigger) -> str:
    """The field of the policy that says how long such things are kept."""
    return f"{trigger.value}_after_s"


def after_of(policy: GCPolicySpec, trigger: Trigger) -> int | None:
    match trigger:
        case Trigger.FAILED_MICROVM:
            return policy.failed_microvm_after_s
        case Trigger.UNMANAGED_MICROVM:
            return policy.unmanaged_microvm_after_s
        case Trigger.LOST_HOST:
            return policy.lost_host_after_s
        case Trigger.LOST_TOMBSTONE:
            return policy.lost_tombstone_after_s
        case Trigger.LEFTOVER:
            return policy.leftover_after_s
        case Trigger.QUARANTINED_VOLUMES:
            return policy.quarantined_volumes_after_s
        case Trigger.FINISHED_OPERATION:
            return policy.finished_operation_after_s
        case Trigger.AUDIT_RECORDS:
            return policy.audit_records_after_s


def _waiting(candidate: _Candidate, due_at: int | None, now_ms: int) -> Waiting:
    obstacle = candidate.obstacle
    if obstacle is None and due_at is None:
        message = f"the policy keeps it: {field_of(candidate.trigger)} is not set"
        obstacle = Obstacle(waits_for=WaitsFor.POLICY, message=message)
    if obstacle is None and due_at is not None:
        left_s = max(-(-(due_at - now_ms) // _MS), 0)
        obstacle = Obstacle(waits_for=WaitsFor.GRACE, message=f"it is kept for {left_s} s more")
    assert obstacle is not None
    return Waiting(
        trigger=candidate.trigger,
        subject=candidate.subject,
        since=candidate.since,
        reason=candidate.reason,
        waits_for=obstacle.waits_for,
        message=obstacle.message,
        due_at=due_at,
    )


def _goes_with(each: Collection, hosts: set[str]) -> bool:
    """A host takes its tombstones with it."""
    return each.command.trigger is Trigger.LOST_TOMBSTONE and each.command.subject.host in hosts


def _with_its_host(each: Collection) -> Waiting:
    return _put_off(each, WaitsFor.HOST, f"it goes with host {each.command.subject.host}, which is collected")


def _throttled(each: Collection, limit: int) -> Waiting:
    return _put_off(each, WaitsFor.THROTTLE, f"its turn comes: {limit} are collected at a time, the oldest first")


def _put_off(each: Collection, waits_for: WaitsFor, message: str) -> Waiting:
    command = each.command
    return Waiting(
        trigger=command.trigger,
        subject=command.subject,
        since=command.since,
        reason=command.reason,
        waits_for=waits_for,
        message=message,
        due_at=each.due_at,
    )


# -- what there is, trigger by trigger ---------------------------------------------------------------------------------


def _failed_microvms(state: State) -> Iterator[_Candidate]:
    for uid in sorted(state.failed):
        vm = state.microvms[uid]
        failure = vm.observed.failure if vm.observed is not None else None
        host = vm.placement.host if vm.placement is not None else None
        yield _Candidate(
            trigger=Trigger.FAILED_MICROVM,
            subject=Subject(
                kind=SubjectKind.MICROVM, namespace=vm.meta.namespace, name=vm.meta.name, uid=uid, host=host
            ),
            since=vm.since,
            epoch=vm.epoch,
            reason="it failed" + (f": {failure.code}: {failure.message}" if failure is not None else ""),
            obstacle=failed_obstacle(state, vm),
        )


def _unmanaged_microvms(state: State) -> Iterator[_Candidate]:
    for name, host in sorted(state.hosts.items()):
        copies: dict[str, list[Unmanaged]] = {}
        for found in host.unmanaged:
            copies.setdefault(found.uid or found.key, []).append(found)
        for same in copies.values():
            yield _unmanaged(state, name, host, same)


def _unmanaged(state: State, name: str, host: Host, copies: list[Unmanaged]) -> _Candidate:
    """Copies of one microVM on one host: an order ends all of them, so what is in the way of one is in all's."""
    last = max(copies, key=lambda each: (each.since, each.key))
    obstacles = [unmanaged_obstacle(state, host, each) for each in copies]
    known = f"microVM {last.namespace}/{last.name}, epoch {last.epoch}" if last.ours else "no microVM of this cluster"
    return _Candidate(
        trigger=Trigger.UNMANAGED_MICROVM,
        subject=Subject(
            kind=SubjectKind.UNMANAGED,
            namespace=last.namespace,
            name=last.native_id,
            uid=last.uid,
            host=name,
            driver=last.driver,
        ),
        since=last.since,
        epoch=max(each.epoch or 0 for each in copies),
        reason=f"nobody declares it ({known})",
        obstacle=next((each for each in obstacles if each is not None), None),
    )


def _lost_hosts(state: State) -> Iterator[_Candidate]:
    for name, host in sorted(state.hosts.items()):
        if host.declared and host.phase in (HostPhase.DETACHED, HostPhase.FENCED):
            owed = len(state.on_host.get(name, ())) + len(host.stale)
            said = f"{host.confirmed_by} confirmed that it is off" if host.confirmed_by is not None else host.reason
            yield _Candidate(
                trigger=Trigger.LOST_HOST,
                subject=Subject(kind=SubjectKind.HOST, name=name, uid=host.meta.uid, host=name),
                since=host.since,
                reason=f"{said}; {owed} tombstones and orders wait for it and go with it" if owed else said,
                obstacle=lost_host_obstacle(state, host),
            )


def _lost_tombstones(state: State) -> Iterator[_Candidate]:
    """Of hosts that are lost: on others they end by themselves."""
    for name, host in sorted(state.hosts.items()):
        if host.phase not in (HostPhase.DETACHED, HostPhase.FENCED):
            continue
        for vm in state.microvms_on(name):
            if vm.phase is MicroVMPhase.DELETING:
                why = vm.deletion.reason if vm.deletion is not None else "on request"
                yield _Candidate(
                    trigger=Trigger.LOST_TOMBSTONE,
                    subject=Subject(
                        kind=SubjectKind.MICROVM,
                        namespace=vm.meta.namespace,
                        name=vm.meta.name,
                        uid=vm.meta.uid,
                        host=name,
                    ),
                    since=lost_since(vm, host),
                    epoch=vm.epoch,
                    reason=f"it was deleted ({why}), and host {name} is {host.phase.value}",
                    obstacle=lost_tombstone_obstacle(state, vm),
                )


def _leftovers(trigger: Trigger) -> Callable[[State], Iterator[_Candidate]]:
    def find(state: State) -> Iterator[_Candidate]:
        for name, host in sorted(state.hosts.items()):
            for left in host.left_behind:
                if trigger_of(left) is trigger:
                    yield _Candidate(
                        trigger=trigger,
                        subject=Subject(
                            kind=SubjectKind.LEFTOVER, name=left.name, uid=left.uid, host=name, driver=left.driver
                        ),
                        since=left.since,
                        epoch=left.epoch or 0,
                        reason=_what_it_is(left),
                        obstacle=leftover_obstacle(state, host, left),
                    )

    return find


def _what_it_is(left: Leftover) -> str:
    whose = f" of microVM {left.microvm or left.uid}" if left.microvm or left.uid else ""
    epoch = f", epoch {left.epoch}" if left.epoch is not None else ""
    if left.kind is LeftoverKind.VOLUMES:
        return f"local volumes{whose}{epoch}, which was destroyed there ({left.bytes} bytes)"
    return f"{left.kind.value}{whose}{epoch}, and nothing there needs it"


def _finished_operations(state: State) -> Iterator[_Candidate]:
    """In the order in which they ended, in which they are forgotten."""
    since = 0
    for id_ in state.finished:
        operation = state.operations[id_]
        # The nodes stamp ends by their own clocks: none is older than one that ended before.
        since = max(since, operation.finished_at or 0)
        yield _Candidate(
            trigger=Trigger.FINISHED_OPERATION,
            subject=Subject(kind=SubjectKind.OPERATION, name=id_),
            since=since,
            reason=f"it ended: {operation.kind.value} of {operation.target.name} {operation.phase.value}",
            obstacle=None,
        )


def _audit_records(state: State) -> Iterator[_Candidate]:
    """A day at a time: what follows it goes after it."""
    day = oldest_audit_day(state)
    if day is not None:
        first, through = day
        yield _Candidate(
            trigger=Trigger.AUDIT_RECORDS,
            subject=Subject(kind=SubjectKind.AUDIT, name=f"{first}-{through}"),
            since=audit_since(state, through),
            reason=f"{through - first + 1} records of one day; the chain goes on after {state.audit_at(through).hash}",
            obstacle=audit_obstacle(state, through),
        )


_FINDERS: dict[Trigger, Callable[[State], Iterator[_Candidate]]] = {
    Trigger.FAILED_MICROVM: _failed_microvms,
    Trigger.UNMANAGED_MICROVM: _unmanaged_microvms,
    Trigger.LOST_HOST: _lost_hosts,
    Trigger.LOST_TOMBSTONE: _lost_tombstones,
    Trigger.LEFTOVER: _leftovers(Trigger.LEFTOVER),
    Trigger.QUARANTINED_VOLUMES: _leftovers(Trigger.QUARANTINED_VOLUMES),
    Trigger.FINISHED_OPERATION: _finished_operations,
    Trigger.AUDIT_RECORDS: _audit_records,
}
