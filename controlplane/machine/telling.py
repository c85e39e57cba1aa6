"""What operators are told of a command: what it brought about with each object, as a list of reasons with a sentence.

Made around `apply` from the state before a command and what it changed, so that no handler has to think of it. An
object is looked at once, as it was and as it has become, whatever was written of it in between. Most of what changes is
told to nobody: times, sessions and what else agents repeat would push out what an operator looks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from controlplane.machine.convergence import differences
from controlplane.machine.effect import Effect
from controlplane.machine.events import Declared, Event, EventType, standing
from controlplane.machine.state import State
from controlplane.model.event_records import MAX_MESSAGE, EventRecord, Reason
from controlplane.model.gc import Deletion, Held
from controlplane.model.groups import MicroVMGroup
from controlplane.model.resources import Host, HostPhase, Meta, MicroVM, MicroVMPhase, ObservedPower, Operation
from controlplane.model.types import Kind, replace

Telling = tuple[Reason, str]

_POWER: Mapping[ObservedPower, Reason] = {
    ObservedPower.RUNNING: Reason.RUNNING,
    ObservedPower.STOPPED: Reason.STOPPED,
    ObservedPower.PAUSED: Reason.PAUSED,
    ObservedPower.ABSENT: Reason.ABSENT,
}
_HOST_PHASE: Mapping[HostPhase, Telling] = {
    HostPhase.EXPECTED: (Reason.EXPECTED, "its agent has never been seen"),
    HostPhase.PENDING: (Reason.PENDING, "its agent is connected, and nobody declared it"),
    HostPhase.READY: (Reason.READY, "it may run microVMs"),
    HostPhase.SUSPECT: (Reason.SUSPECT, "it has not been heard for a moment"),
    HostPhase.DETACHED: (Reason.DETACHED, "its lease has ended"),
    HostPhase.FENCED: (Reason.FENCED, "nothing that may be resurrected can run there any more"),
    HostPhase.REJOINING: (Reason.REJOINING, "its agent is back, and has orders to carry out before it gets a lease"),
}


def told(state: State, effects: Iterable[Effect]) -> State:
    """`state`, which the commands led to one after the other, with what there is to tell of them."""
    records = [each for effect in effects if effect.events for each in _records(effect)]
    return replace(state, recent=state.recent.added(records)) if records else state


def _records(effect: Effect) -> Iterator[EventRecord]:
    number = 0
    for old, event in _changed(effect):
        new = None if event.type is EventType.DELETED else event.object
        meta = _meta(event.object)
        for reason, message in _tellings(old, new, event.deletion):
            yield EventRecord(
                revision=event.revision,
                number=number,
                at=effect.envelope.at,
                kind=meta.kind,
                namespace=meta.namespace,
                name=meta.name,
                uid=meta.uid,
                host=_host_of(new) or _host_of(old),
                reason=reason,
                message=message[:MAX_MESSAGE],
                actor=effect.envelope.actor[:MAX_MESSAGE],
            )
            number += 1


def _changed(effect: Effect) -> Iterator[tuple[Declared | None, Event]]:
    """Each object as it was before the command, with the last event about it, in the order of the first ones.

    Operations are left out: what they work for tells of itself.
    """
    last: dict[tuple[Kind, str], Event] = {}
    for event in effect.events:
        if not isinstance(event.object, Operation):
            last[event.kind, event.object.meta.uid] = event
    for event in last.values():
        meta = _meta(event.object)
        new = event.type is EventType.ADDED
        yield None if new else standing(effect.before, meta.kind, meta.namespace, meta.name, meta.uid), event


def _meta(subject: Declared) -> Meta:
    assert not isinstance(subject, Operation)
    return subject.meta


def _host_of(subject: Declared | None) -> str | None:
    match subject:
        case Host():
            return subject.meta.name
        case MicroVM():
            return subject.placement.host if subject.placement is not None else None
        case _:
            return None


def _tellings(old: Declared | None, new: Declared | None, why: Deletion | None) -> Iterable[Telling]:
    match new:
        case None:
            return ((Reason.DELETED, why.reason if why is not None and why.reason else "it is gone"),)
        case Host():
            return _of_host(cast("Host | None", old), new)
        case MicroVM() if old is None:
            return _of_new_microvm(new)
        case MicroVM():
            return _of_microvm(cast("MicroVM", old), new)
        case MicroVMGroup():
            return _of_group(cast("MicroVMGroup | None", old), new)
        case _:
            return _of_intent(_meta(old) if old is not None else None, _meta(new))


def _of_intent(old: Meta | None, new: Meta) -> tuple[Telling, ...]:
    if old is None:
        return ((Reason.DECLARED, f"declared at generation {new.generation}"),)
    if old.generation != new.generation:
        return ((Reason.CHANGED, f"declared anew, at generation {new.generation}"),)
    if (old.labels, old.annotations) != (new.labels, new.annotations):
        return ((Reason.CHANGED, "its labels or annotations were declared anew"),)
    return ()


def _of_hold(old: Held | None, new: Held | None) -> Iterator[Telling]:
    if new is not None and old != new:
        yield Reason.HELD, f"held by {new.actor}: {new.reason}"
    elif old is not None and new is None:
        yield Reason.RELEASED, f"no longer held by {old.actor}"


# -- hosts -------------------------------------------------------------------------------------------------------------


def _of_host(old: Host | None, new: Host) -> Iterator[Telling]:
    if new.declared and (old is None or not old.declared):
        yield Reason.DECLARED, f"declared at generation {new.meta.generation}"
    elif old is not None and old.declared and not new.declared:
        yield Reason.DELETED, "it is declared no more, and its agent is still connected"
    elif old is not None and new.declared:
        yield from _of_intent(old.meta, new.meta)
    if old is None or old.phase is not new.phase:
        reason, usual = _HOST_PHASE[new.phase]
        yield reason, new.reason or usual
    if new.confirmed_by is not None and (old is None or old.confirmed_by is None):
        yield Reason.CONFIRMED_OFF, f"{new.confirmed_by} said that it is certainly off"
    if new.evacuating is not None and new.evacuating.done_at is not None and not _is_emptied(old):
        yield Reason.EMPTIED, f"{new.evacuating.moved} microVMs were moved off it"
    yield from _of_hold(old.hold if old is not None else None, new.hold)
    yield from _of_strangers(old, new)


def _is_emptied(host: Host | None) -> bool:
    return host is not None and host.evacuating is not None and host.evacuating.done_at is not None


def _of_strangers(old: Host | None, new: Host) -> Iterator[Telling]:
    if old is not None and old.unmanaged is new.unmanaged:
        return
    known = {each.key for each in old.unmanaged} if old is not None else set[str]()
    found = [each.key for each in new.unmanaged if each.key not in known]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        yield Reason.UNMANAGED_FOUND, f"it runs what nobody declared: {', '.join(found[:3])}{more}"


# -- microVMs ----------------------------------------------------------------------------------------------------------


def _of_new_microvm(new: MicroVM) -> tuple[Telling, ...]:
    if new.placement is not None:
        return ((Reason.ADOPTED, f"declared as host {new.placement.host} runs it"),)
    return _of_intent(None, new.meta)


def _of_microvm(old: MicroVM, new: MicroVM) -> Iterator[Telling]:
    yield from _of_intent(old.meta, new.meta)
    yield from _of_requests(old, new)
    yield from _of_phase(old, new)
    yield from _of_placement(old, new)
    yield from _of_observation(old, new)
    yield from _of_hold(old.hold, new.hold)


def _of_requests(old: MicroVM, new: MicroVM) -> Iterator[Telling]:
    if new.repair_seq > old.repair_seq:
        yield Reason.REPAIR_REQUESTED, "its host is to bring it to the intent again"
    if new.restart_seq > old.restart_seq:
        yield Reason.RESTART_REQUESTED, "its guest is to be restarted"


def _of_phase(old: MicroVM, new: MicroVM) -> Iterator[Telling]:
    if old.phase is new.phase:
        return
    where = f"host {old.placement.host}" if old.placement is not None else "its host"
    match new.phase:
        case MicroVMPhase.DELETING:
            reason = new.deletion.reason if new.deletion is not None else ""
            yield Reason.DELETION_REQUESTED, reason or "its host is to end it"
        case MicroVMPhase.MOVING:
            yield Reason.EVICTED, f"{where} is to be emptied: it is placed anew once that has ended it"
        case MicroVMPhase.FAILED:
            failure = new.observed.failure if new.observed is not None else None
            yield Reason.FAILED, failure.message if failure is not None else f"{where} cannot run it"
        case MicroVMPhase.PENDING if new.resurrection is not None and new.resurrection != old.resurrection:
            lost = new.resurrection
            yield Reason.RESURRECTED, f"host {lost.host} is lost ({lost.reason}): it is placed anew"
        case MicroVMPhase.PENDING if new.move is not None and new.move != old.move:
            yield Reason.MOVED, f"host {new.move.host} has ended it: it is placed anew"
        case _:
            pass


def _of_placement(old: MicroVM, new: MicroVM) -> Iterator[Telling]:
    if new.placement is not None and new.epoch != old.epoch:
        chosen = new.placement
        yield Reason.PLACED, f"on host {chosen.host}, epoch {chosen.epoch}, score {chosen.score:.3f}"
    if new.unplaced is not None and (old.unplaced is None or old.unplaced.reason != new.unplaced.reason):
        yield Reason.UNPLACED, new.unplaced.message
    if new.stay is not None and (old.stay is None or old.stay.reason != new.stay.reason):
        yield Reason.STAYING, new.stay.reason


def _of_observation(old: MicroVM, new: MicroVM) -> Iterator[Telling]:
    seen = new.observed
    # What the host of an earlier placement saw is no ground to compare with.
    was = old.observed if old.observed is not None and old.epoch == new.epoch else None
    if seen is None or seen is was:
        return
    if (was is None and seen.power is not ObservedPower.ABSENT) or (was is not None and was.power is not seen.power):
        yield _POWER[seen.power], seen.cause or f"as host {seen.host} sees it"
    if seen.ready and (was is None or not was.ready):
        yield Reason.READY, "its guest said so"
    elif was is not None and was.ready and not seen.ready and seen.power is ObservedPower.RUNNING:
        yield Reason.NOT_READY, "its guest runs and has not said that it is ready"
    failure = seen.failure
    if failure is not None and not failure.permanent:
        known = was.failure.code if was is not None and was.failure is not None else None
        if failure.code != known:
            yield Reason.RETRYING, failure.message
    if new.drifted_since is not None and old.drifted_since is None:
        fields = ", ".join(each.pointer for each in differences(new))
        yield Reason.DRIFTED, f"not as declared: {fields}"
    elif old.drifted_since is not None and new.drifted_since is None and not new.is_tombstone:
        yield Reason.IN_SYNC, "as declared again"


# -- groups ------------------------------------------------------------------------------------------------------------


def _of_group(old: MicroVMGroup | None, new: MicroVMGroup) -> Iterator[Telling]:
    yield from _of_intent(old.meta if old is not None else None, new.meta)
    if new.deletion is not None and (old is None or old.deletion is None):
        yield Reason.DELETION_REQUESTED, new.deletion.reason or "its members are to end"
    was = old.stopped if old is not None else None
    if new.stopped is not None and (was is None or was.reason != new.stopped.reason):
        yield Reason.PAUSED, f"{new.stopped.reason}: {new.stopped.message}"
    elif was is not None and new.stopped is None:
        yield Reason.RESUMED, "nothing stops it any more"
