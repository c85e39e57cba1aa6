"""Who fits on the host beside what runs there beyond what is assigned to it. Pure.

What is assigned fits: the machine saw to it when it committed. But after a restore to an older state the host may run
microVMs of which that state knows nothing. They are reported and left alone, and they take room, which this counts:
nothing new is offered on their account (`answers`), and what is assigned waits with its start, or with its growth,
until there is room (`plan`). What is being ended takes room until it is gone, and what is being started takes it at
once, whatever was decided of it since. What runs already goes on. Only copies of our own cluster count; what somebody
starts beside the control plane is for the host's `capacity` to leave room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.agent.assignments import Assignment
from controlplane.model.resources import Amount, Failure, ObservedPower
from controlplane.model.spec import MicroVMSpec, PowerState
from controlplane.ports import Instance

_IN_USE = (ObservedPower.RUNNING, ObservedPower.PAUSED)
_NOTHING = Amount()


@dataclass(frozen=True, slots=True)
class Room:
    taken: Amount
    """What is in use here beyond what is assigned."""
    waits: frozenset[str]
    """Those that must not be started or grow now."""


def amount_of(spec: MicroVMSpec) -> Amount:
    return Amount(microvms=1, vcpu=spec.vcpu, memory_in_mb=spec.memory_in_mb)


def room_on(
    capacity: Amount, wanted: Mapping[str, Assignment], copies: Iterable[Instance], starting: Mapping[str, Amount]
) -> Room:
    """copies: all of our cluster, of whatever epoch. starting: by uid, what may be in use by now or soon, whatever
    `copies` show of it; no amount where it is as much as the copy's size.

    What is in use comes first, then the growth of what runs, then the others by uid, each that still fits. Where
    nothing is in use beyond what is assigned, everything fits.
    """
    declared = {uid: amount_of(each.spec) for uid, each in wanted.items() if each.spec is not None}
    used: dict[str, Amount] = {}
    for copy in copies:
        if copy.uid is not None and (copy.power in _IN_USE or copy.uid in starting):
            used[copy.uid] = used.get(copy.uid, _NOTHING) + _size(copy, declared.get(copy.uid, _NOTHING))
    for uid, amount in starting.items():
        used[uid] = used.get(uid, _NOTHING) + _beyond(amount, used.get(uid, _NOTHING))
    taken = sum((_beyond(amount, declared.get(uid, _NOTHING)) for uid, amount in used.items()), _NOTHING)
    if taken == _NOTHING:
        return Room(taken, frozenset())
    free = capacity - sum(used.values(), _NOTHING)
    waits: set[str] = set()
    for uid in sorted(declared, key=lambda uid: (uid not in used, uid)):
        if uid not in used and _stays_off(wanted[uid].spec):
            continue
        more = _beyond(declared[uid], used.get(uid, _NOTHING))
        if more.vcpu <= max(free.vcpu, 0) and more.memory_in_mb <= max(free.memory_in_mb, 0):
            free -= more
        else:
            waits.add(uid)
    return Room(taken, frozenset(waits))


def _stays_off(spec: MicroVMSpec | None) -> bool:
    return spec is not None and spec.power_state is PowerState.STOPPED


def _size(copy: Instance, declared: Amount) -> Amount:
    """What a driver cannot know is as declared, and nothing where nothing is."""
    return Amount(
        microvms=1,
        vcpu=declared.vcpu if copy.vcpu is None else copy.vcpu,
        memory_in_mb=declared.memory_in_mb if copy.memory_in_mb is None else copy.memory_in_mb,
    )


def _beyond(one: Amount, other: Amount) -> Amount:
    """What `one` is more than `other`, and nothing where it is less: what shrinks gives nothing back before it has."""
    more = one - other
    return Amount(microvms=max(more.microvms, 0), vcpu=max(more.vcpu, 0), memory_in_mb=max(more.memory_in_mb, 0))


def no_room(taken: Amount) -> Failure:
    return Failure(
        code="NoRoom",
        message=f"waits for room: microVMs of this cluster that are unmanaged or being ended run on this host and take"
        f" {taken.vcpu} vcpu and {taken.memory_in_mb} MB of memory beyond what is assigned",
    )
