"""Garbage collection to documents. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from controlplane.api.http import gc_shapes as shapes
from controlplane.api.http.times import iso
from controlplane.decide.gc import Collection, GCPlan, PolicyInForce, Waiting, after_of
from controlplane.machine.collection_rules import WaitsFor
from controlplane.machine.draft import KEPT_KEYS, KEPT_OPERATIONS, KEY_LIFETIME_MS
from controlplane.machine.outcome import Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import Collect, HoldKind
from controlplane.model.gc import Held, Subject, Trigger
from controlplane.model.resources import Meta


def plan_id(made: GCPlan, limit: int) -> str:
    """All that a run needs to reckon the same plan again, and to see that it is the same."""
    return f"{made.at}.{limit}.{made.digest}"


def plan(made: GCPlan, limit: int) -> shapes.GCPlanShape:
    return shapes.GCPlanShape(
        plan=plan_id(made, limit),
        revision=made.revision,
        at=iso(made.at),
        policy=_policy(made.policy),
        collect=[_collection(each) for each in made.collect],
        waiting=[_waiting(each) for each in made.waiting],
    )


def result(each: Collection, outcome: Outcome) -> shapes.CollectedShape:
    refused = outcome.message if isinstance(outcome, Rejected) else None
    return shapes.CollectedShape(
        trigger=each.command.trigger,
        subject=_subject(each.command.subject),
        reason=each.command.reason,
        outcome="collected" if refused is None else "refused",
        message=refused or "",
    )


def purge(command: Collect, state: State, *, dry_run: bool) -> shapes.PurgeShape:
    return shapes.PurgeShape(
        trigger=command.trigger,
        subject=_subject(command.subject),
        reason=command.reason,
        since=iso(command.since),
        dry_run=dry_run,
        revision=state.revision,
    )


def status(state: State, made: GCPlan) -> shapes.GCStatusShape:
    """`made` is a plan of every trigger."""
    due = Counter(each.command.trigger for each in made.collect)
    waiting: dict[Trigger, Counter[WaitsFor]] = {trigger: Counter() for trigger in Trigger}
    for each in made.waiting:
        waiting[each.trigger][each.waits_for] += 1
    since = oldest(made)
    return shapes.GCStatusShape(
        revision=state.revision,
        policy=_policy(made.policy),
        triggers=[
            shapes.TriggerShape(
                trigger=trigger,
                after_s=after_of(made.policy.spec, trigger),
                due=due[trigger],
                waiting={reason: waiting[trigger][reason] for reason in sorted(waiting[trigger])},
                oldest_since=iso(since.get(trigger)),
                collected=tally.collected if (tally := state.tallies.get(trigger.value)) is not None else 0,
                last=shapes.LastShape(at=iso(tally.at), subject=tally.subject, reason=tally.reason)
                if tally is not None
                else None,
            )
            for trigger in Trigger
        ],
        retention=shapes.RetentionShape(
            operations=len(state.finished),
            operations_limit=KEPT_OPERATIONS,
            idempotency_keys=len(state.keys),
            idempotency_keys_limit=KEPT_KEYS,
            idempotency_key_lifetime_s=KEY_LIFETIME_MS // 1000,
        ),
    )


def oldest(made: GCPlan) -> dict[Trigger, int]:
    """Since when (ms) the oldest thing of each trigger is so, whether it is due or waits."""
    found: dict[Trigger, int] = {}
    for each in (*(collection.command for collection in made.collect), *made.waiting):
        found[each.trigger] = min(each.since, found.get(each.trigger, each.since))
    return found


def holds(state: State, seen: Callable[[Meta], bool]) -> shapes.HoldList:
    """Those on what `seen` says the caller may see."""
    return shapes.HoldList(items=list(_holds(state, seen)), revision=state.revision)


def _holds(state: State, seen: Callable[[Meta], bool]) -> Iterator[shapes.HeldShape]:
    for key in sorted(state.names):
        vm = state.microvms[state.names[key]]
        if vm.hold is not None and seen(vm.meta):
            yield _held(HoldKind.MICROVM, vm.hold, name=vm.meta.name, namespace=vm.meta.namespace)
    for name, host in sorted(state.hosts.items()):
        if not seen(host.meta):
            continue
        if host.hold is not None:
            yield _held(HoldKind.HOST, host.hold, name=name)
        for key, held in sorted(host.holds.items()):
            yield _held(HoldKind.FOUND, held, name=key.partition("/")[2], host=name)


def _held(
    kind: HoldKind, held: Held, *, name: str, namespace: str | None = None, host: str | None = None
) -> shapes.HeldShape:
    return shapes.HeldShape(
        kind=kind,
        namespace=namespace,
        name=name,
        host=host,
        actor=held.actor,
        at=iso(held.at),
        reason=held.reason,
    )


def _policy(policy: PolicyInForce) -> shapes.PolicyInForceShape:
    return shapes.PolicyInForceShape(name=policy.name, revision=policy.revision, spec=policy.spec)


def _collection(each: Collection) -> shapes.CollectionShape:
    command = each.command
    return shapes.CollectionShape(
        trigger=command.trigger,
        subject=_subject(command.subject),
        reason=command.reason,
        policy=each.policy,
        since=iso(command.since),
        due_since=iso(each.due_at),
    )


def _waiting(each: Waiting) -> shapes.WaitingShape:
    return shapes.WaitingShape(
        trigger=each.trigger,
        subject=_subject(each.subject),
        reason=each.reason,
        since=iso(each.since),
        waits_for=each.waits_for,
        message=each.message,
        due_at=iso(each.due_at),
    )


def _subject(subject: Subject) -> shapes.SubjectShape:
    return shapes.SubjectShape(
        kind=subject.kind,
        namespace=subject.namespace,
        name=subject.name,
        uid=subject.uid,
        host=subject.host,
        driver=subject.driver,
    )
