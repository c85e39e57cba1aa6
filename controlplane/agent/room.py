"""Who fits on the host beside what a lost history left running there. Pure.

What is assigned fits: the machine saw to it when it committed. But after a restore to an older state the host may run
microVMs of which that state knows nothing. They are reported and left alone, and they take room, which this counts:
nothing new is offered on their account (`answers`), and what is assigned waits with its start until there is room
(`plan`). What runs already goes on. Only copies of our own cluster count; what somebody starts beside the control
plane is for the host's `capacity` to leave room for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.model.resources import Amount, Failure, ObservedPower
from controlplane.model.spec import MicroVMSpec, PowerState
from controlplane.ports import Instance

_IN_USE = (ObservedPower.RUNNING, ObservedPower.PAUSED)


def amount_of(spec: MicroVMSpec) -> Amount:
    return Amount(microvms=1, vcpu=spec.vcpu, memory_in_mb=spec.memory_in_mb)


def taken_by(assignments: Assignments, strangers: Iterable[Instance]) -> Amount:
    """What the running ones of our cluster among `strangers` use.

    Another copy of what is assigned here is counted by its assignment. A size that a driver cannot know is nothing.
    """
    taken = Amount()
    for instance in strangers:
        ours = instance.cluster_id == assignments.cluster_id and instance.uid not in assignments.by_uid
        if ours and instance.power in _IN_USE:
            taken += Amount(microvms=1, vcpu=instance.vcpu or 0, memory_in_mb=instance.memory_in_mb or 0)
    return taken


def without_room(
    capacity: Amount, taken: Amount, wanted: Mapping[str, Assignment], current: Mapping[str, Instance], acting: Set[str]
) -> frozenset[str]:
    """Those of `wanted` that must not be started now.

    current: the instance that stands for each, where there is one. acting: on these something is being done, which may
    be a start. They and what runs come first, then the others by uid, each that still fits.
    """
    if taken == Amount():
        return frozenset()
    free = capacity - taken
    waits: set[str] = set()

    def runs(uid: str) -> bool:
        return uid in acting or (uid in current and current[uid].power in _IN_USE)

    for uid in sorted(wanted, key=lambda uid: (not runs(uid), uid)):
        spec = wanted[uid].spec
        if spec is None or (spec.power_state is PowerState.STOPPED and not runs(uid)):
            continue
        amount = amount_of(spec)
        if runs(uid) or (amount.vcpu <= free.vcpu and amount.memory_in_mb <= free.memory_in_mb):
            free -= amount
        else:
            waits.add(uid)
    return frozenset(waits)


def no_room(taken: Amount) -> Failure:
    return Failure(
        code="NoRoom",
        message=f"waits for room: {taken.microvms} unmanaged microVM(s) of this cluster run on this host and take"
        f" {taken.vcpu} vcpu and {taken.memory_in_mb} MB of memory",
    )
