"""Groups: the next few changes that bring a group's members to what it declares (docs/adr/0184).

A member is *current* when all that differs from the template takes effect in place: it is renewed there. The others
are *outdated*, and are replaced: as many as `max_surge` allows are added first, and a ready one is given up only while
at least `replicas - max_unavailable` stay ready. What is not ready is given up at once, for nothing is lost with it.

What is ended counts as existing until its host has confirmed that nothing is left, unless that host is silent. The
choice is always the same one: those that are not ready first, then the newest, then by uid.

While a current member has not become ready within the deadline, no ready member is given up for the template, and none
is added beyond `replicas`. Nothing is remembered between two rounds but what the state says, so whoever leads goes on,
and declaring the old template again is all of a rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

from controlplane.decide.conditions import is_ready
from controlplane.machine.apply import apply
from controlplane.machine.holding import microvm_hold
from controlplane.machine.outcome import Applied
from controlplane.machine.state import State
from controlplane.model.commands import NewMember, Stall, StepGroup, seal
from controlplane.model.groups import MicroVMGroup, member_labels, member_spec
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase
from controlplane.model.spec import MICROVM_FIELD_EFFECTS, Effect, MicroVMSpec

SUFFIX = 5
"""Characters of a member's uid that its name ends with."""
PER_STEP = 32
"""So many members at most are ended, renewed and added by one step: a step is one entry of the log."""
STALLED = "ReadyDeadlineExceeded"


@dataclass(frozen=True, slots=True)
class Members:
    """A group's members, each kind in the order in which its members are given up."""

    current: list[MicroVM]
    outdated: list[MicroVM]
    ending: list[MicroVM]
    ready: frozenset[str]
    """Uids, of those that are not being ended."""

    @property
    def staying(self) -> int:
        return len(self.current) + len(self.outdated)


def members_of(state: State, group: MicroVMGroup) -> Members:
    wanted = member_spec(group)
    every = list(state.members_of(group.meta.uid))
    ending = [vm for vm in every if vm.phase is MicroVMPhase.DELETING]
    staying = [vm for vm in every if vm.phase is not MicroVMPhase.DELETING]
    ready = frozenset(vm.meta.uid for vm in staying if is_ready(state, vm))
    staying.sort(key=lambda vm: (vm.meta.uid in ready, -vm.meta.created_at, vm.meta.uid))
    return Members(
        current=[vm for vm in staying if _is_current(vm.spec, wanted)],
        outdated=[vm for vm in staying if not _is_current(vm.spec, wanted)],
        ending=ending,
        ready=ready,
    )


def next_steps(state: State, now_ms: int, new_uid: Callable[[], str]) -> list[StepGroup]:
    """For every group that needs one, in order of namespace and name."""
    found: list[StepGroup] = []
    for _, group in sorted(state.microvm_groups.items()):
        decided = step(state, group, now_ms, new_uid)
        if decided is not None and (group.stopped is None or _changes_anything(state, decided, now_ms)):
            found.append(decided)
    return found


def _changes_anything(state: State, decided: StepGroup, now_ms: int) -> bool:
    """What was refused once, for a quota for example, is proposed again only when more would come of it."""
    after, outcome, _ = apply(state, seal(decided, id="", at=now_ms, actor="rehearsal"), index=0, term=0)
    return isinstance(outcome, Applied) and after is not state


def step(state: State, group: MicroVMGroup, now_ms: int, new_uid: Callable[[], str]) -> StepGroup | None:
    """What to do next, or None when there is nothing."""
    members = members_of(state, group)
    if group.deletion is not None:
        return _towards_the_end(group, members)
    stall = _stall(group, members, now_ms)
    ending = _to_end(group, members, stalled=stall is not None)
    uids = {vm.meta.uid for vm in ending}
    renewing = [vm for vm in _to_renew(group, members) if vm.meta.uid not in uids]
    adding = _to_add(state, group, members, ending, stalled=stall is not None)
    if not (ending or renewing or adding) and _is_told(group, stall):
        return None
    return _step(
        group,
        end=[vm.meta.uid for vm in ending[:PER_STEP]],
        renew=[vm.meta.uid for vm in renewing[:PER_STEP]],
        add=[_new_member(group, new_uid()) for _ in range(min(adding, PER_STEP))],
        stall=stall,
    )


def _step(
    group: MicroVMGroup,
    *,
    end: list[str],
    renew: list[str] | None = None,
    add: list[NewMember] | None = None,
    stall: Stall | None = None,
) -> StepGroup:
    return StepGroup(
        namespace=str(group.meta.namespace),
        name=group.meta.name,
        uid=group.meta.uid,
        generation=group.meta.generation,
        end=end,
        renew=renew or [],
        add=add or [],
        reason=f"group {group.meta.name} needs it no more at generation {group.meta.generation}",
        stall=stall,
    )


def _new_member(group: MicroVMGroup, uid: str) -> NewMember:
    return NewMember(name=f"{group.meta.name}-{uid[-SUFFIX:].lower()}", uid=uid)


def _is_current(spec: MicroVMSpec, wanted: MicroVMSpec) -> bool:
    """Whether what differs takes effect in place."""
    return spec == wanted or all(
        MICROVM_FIELD_EFFECTS[each.name] is Effect.LIVE or getattr(spec, each.name) == getattr(wanted, each.name)
        for each in fields(MicroVMSpec)
    )


def _towards_the_end(group: MicroVMGroup, members: Members) -> StepGroup | None:
    """Of a group that is being deleted: its members by order, then itself."""
    there = [*members.outdated, *members.current]
    ending = [vm.meta.uid for vm in there if microvm_hold(vm) is None][:PER_STEP]
    if not ending and (there or members.ending):
        return None
    return _step(group, end=ending)


def _to_end(group: MicroVMGroup, members: Members, *, stalled: bool) -> list[MicroVM]:
    spec = group.spec
    ending = members.current[: max(0, len(members.current) - spec.replicas)]
    ending += [vm for vm in members.outdated if vm.meta.uid not in members.ready]
    ready = [vm for vm in members.outdated if vm.meta.uid in members.ready]
    given_up = sum(vm.meta.uid in members.ready for vm in ending)
    may = len(members.ready) - given_up - max(0, spec.replicas - spec.rollout.max_unavailable)
    if stalled:
        # Down to what may exist, as a smaller number of replicas needs it; for the template, none.
        may = min(may, members.staying - len(ending) - spec.replicas - spec.rollout.max_surge)
    ending += ready[: max(0, may)]
    return [vm for vm in ending if microvm_hold(vm) is None]


def is_at_template(group: MicroVMGroup, vm: MicroVM) -> bool:
    return vm.spec == member_spec(group) and vm.meta.labels == member_labels(group)


def _to_renew(group: MicroVMGroup, members: Members) -> Iterator[MicroVM]:
    return (vm for vm in members.current if not is_at_template(group, vm))


def _to_add(state: State, group: MicroVMGroup, members: Members, ending: Sequence[MicroVM], *, stalled: bool) -> int:
    spec = group.spec
    uids = {vm.meta.uid for vm in ending}
    missing = spec.replicas - sum(vm.meta.uid not in uids for vm in members.current)
    if stalled:
        missing = min(missing, spec.replicas - (members.staying - len(ending)))
    existing = members.staying + sum(_is_waited_for(state, vm) for vm in members.ending)
    return max(0, min(missing, spec.replicas + spec.rollout.max_surge - existing))


def _is_waited_for(state: State, tombstone: MicroVM) -> bool:
    """Whether its host will confirm its end before long."""
    host = state.hosts.get(tombstone.placement.host) if tombstone.placement is not None else None
    return host is not None and host.phase is HostPhase.READY


def _stall(group: MicroVMGroup, members: Members, now_ms: int) -> Stall | None:
    deadline_s = group.spec.rollout.ready_deadline_s
    late = [
        vm.meta.name
        for vm in members.current
        if vm.meta.uid not in members.ready and vm.meta.updated_at + deadline_s * 1000 <= now_ms
    ]
    if not late:
        return None
    number = "1 member" if len(late) == 1 else f"{len(late)} members"
    message = f"{number} at the present template not ready {deadline_s} s after being declared, such as {min(late)}"
    return Stall(reason=STALLED, message=message)


def _is_told(group: MicroVMGroup, stall: Stall | None) -> bool:
    was = group.stopped
    if stall is None or was is None:
        return stall is None and was is None
    return (stall.reason, stall.message) == (was.reason, was.message)
