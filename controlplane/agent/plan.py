"""What the host should do next: assignments, journal and a complete listing in, steps out. Pure.

Level-based: a plan looks only at how things are, never at how they came to be so, which is why planning again after any
interruption is right. At most one step per microVM comes out; whoever executes it plans again afterwards. The one rule
above the others: only a tombstone destroys. What nobody accounts for is reported, whatever cluster it claims to be of.

A guest that is to be halted (its host is in maintenance) is shut down in good order, and let run by no step while that
lasts; what it was before, it becomes again afterwards, whatever its policy about drift.

Without a live lease under its driver, no step lets run what needs one (`on_detach` other than `keep`); stopping and
destroying go on. What the lease's end halted or ended is no drift: it is let run again as soon as there is a lease,
whatever its policy.

Nothing is started or grows that has no room beside what runs here beyond what is assigned (`room`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from controlplane.agent.assignments import Assignment, Assignments, definition
from controlplane.agent.journal import Record, RecordPhase
from controlplane.agent.room import amount_of, no_room, room_on
from controlplane.agent.steps import Acknowledge, Create, Destroy, Forget, Restart, SetPower, ShutDown, Step, Update
from controlplane.model.resources import Amount, Failure, ObservedPower
from controlplane.model.spec import DriftPolicy, MicroVMSpec, OnDetach, PowerState, detach_action
from controlplane.ports import LEASE_ENDED, MAINTENANCE, Instance, Remains, VMDefinition


@dataclass(frozen=True, slots=True)
class Found:
    """An instance, and the driver that sees it."""

    driver: str
    instance: Instance


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything on the host. A driver that could not list is `blind`: absence under it means nothing."""

    found: Sequence[Found]
    blind: Mapping[str, str] = field(default_factory=dict[str, str])
    """Driver to the reason."""
    leftovers: Sequence[Remains] | None = None
    """What is there of microVMs that are gone; None when a driver could not tell."""


@dataclass(frozen=True, slots=True)
class Plan:
    steps: Mapping[str, Step]
    """At most one per uid."""
    held: Mapping[str, str]
    """uid to why nothing is done although something differs or cannot be known."""
    refused: Mapping[str, Failure]
    """What this host cannot do at all."""
    confirmed: Mapping[str, int]
    """uid to epoch of the tombstones of which nothing is left here."""
    leaseless: Mapping[str, str]
    """Of `held`, those that only want a lease: uid to the driver that has none."""
    unmanaged: Sequence[Found]
    taken: Amount
    """What is in use here beyond what is assigned."""


@dataclass(frozen=True, slots=True)
class _Held:
    reason: str


@dataclass(frozen=True, slots=True)
class _Confirmed:
    pass


_Decision = Step | _Held | Failure | _Confirmed | None


def plan(
    assignments: Assignments,
    records: Mapping[str, Record],
    listing: Listing,
    *,
    drivers: Iterable[str],
    default_driver: str,
    capacity: Amount,
    may_run: Callable[[str], bool],
    shut_down: Callable[[str], bool] = lambda _: False,
    acting: Mapping[str, Step] = MappingProxyType({}),
) -> Plan:
    """The next step for every microVM.

    may_run: under this driver there is a live lease. shut_down: it is about to end. acting: what is being done, or was
    since `listing` began.
    """
    known = frozenset(drivers)
    copies = copies_of(assignments.cluster_id, listing)
    current = _current(assignments, records, copies, default_driver)
    unmanaged = _unmanaged(assignments, records, listing, default_driver)
    ours = (found.instance for each in copies.values() for found in each)
    room = room_on(capacity, assignments.by_uid, ours, _starting(acting))
    steps: dict[str, Step] = {}
    held: dict[str, str] = {}
    refused: dict[str, Failure] = {}
    confirmed: dict[str, int] = {}
    leaseless: dict[str, str] = {}
    for uid, assignment in assignments.by_uid.items():
        record, mine = records.get(uid), copies.get(uid, ())
        if assignment.spec is None:
            decision = _toward_nothing(assignment, record, mine, listing, known)
        else:
            driver = driver_for(assignment, record, default_driver)
            cluster_id = assignments.cluster_id
            instance = current.get(uid)
            decision = _toward(cluster_id, assignment, assignment.spec, record, mine, listing, driver, known)
            decision = _halted(decision, assignment, record, instance) if assignment.halt else decision
            leased = detach_action(assignment.spec)
            ending = shut_down(driver) and leased is OnDetach.SHUTDOWN
            if ending and (step := _shut_down(assignment, record, instance)) is not None:
                decision = step
            elif (ending or not may_run(driver)) and leased is not OnDetach.KEEP and _lets_run(decision, instance):
                decision = _Held("waits for a lease")
                leaseless[uid] = driver
            decision = no_room(room.taken) if uid in room.waits and _lets_run(decision, instance) else decision
        match decision:
            case None:
                pass
            case _Held(reason):
                held[uid] = reason
            case Failure():
                refused[uid] = decision
            case _Confirmed():
                confirmed[uid] = assignment.epoch
            case step:
                steps[uid] = step
    for uid in records:
        if uid not in assignments.by_uid and uid not in copies and not listing.blind:
            steps[uid] = Forget(uid=uid, reason="neither assigned nor on this host")
    return Plan(
        steps=steps,
        held=held,
        refused=refused,
        confirmed=confirmed,
        leaseless=leaseless,
        unmanaged=unmanaged,
        taken=room.taken,
    )


def copies_of(cluster_id: str, listing: Listing) -> dict[str, tuple[Found, ...]]:
    """What claims to be of our cluster, by uid."""
    copies: dict[str, tuple[Found, ...]] = {}
    for found in listing.found:
        uid = found.instance.uid
        if uid is not None and found.instance.cluster_id == cluster_id:
            copies[uid] = (*copies.get(uid, ()), found)
    return copies


def driver_for(assignment: Assignment, record: Record | None, default_driver: str) -> str:
    """Where the microVM is, else where it is to be."""
    if record is not None and record.epoch == assignment.epoch:
        return record.driver
    provider = assignment.spec.provider if assignment.spec is not None else None
    return provider or default_driver


def current_copy(assignment: Assignment, copies: Iterable[Found], driver: str) -> Instance | None:
    """The one instance that stands for this assignment: same epoch, under the driver that it belongs to."""
    for found in copies:
        instance = found.instance
        if found.driver == driver and instance.epoch == assignment.epoch and instance.power is not ObservedPower.ABSENT:
            return instance
    return None


def _current(
    assignments: Assignments,
    records: Mapping[str, Record],
    copies: Mapping[str, Sequence[Found]],
    default_driver: str,
) -> dict[str, Instance]:
    current: dict[str, Instance] = {}
    for uid, assignment in assignments.by_uid.items():
        driver = driver_for(assignment, records.get(uid), default_driver)
        if (instance := current_copy(assignment, copies.get(uid, ()), driver)) is not None:
            current[uid] = instance
    return current


def differences(spec: MicroVMSpec, instance: Instance | None) -> tuple[str, ...]:
    """Fields of the spec that the host shows otherwise; what the driver cannot know does not differ."""
    if instance is None:
        return ("power_state",)
    fields: list[str] = []
    if instance.power.value != spec.power_state.value:
        fields.append("power_state")
    if instance.vcpu is not None and instance.vcpu != spec.vcpu:
        fields.append("vcpu")
    if instance.memory_in_mb is not None and instance.memory_in_mb != spec.memory_in_mb:
        fields.append("memory_in_mb")
    return tuple(fields)


def _toward(
    cluster_id: str,
    assignment: Assignment,
    spec: MicroVMSpec,
    record: Record | None,
    copies: Sequence[Found],
    listing: Listing,
    driver: str,
    known: frozenset[str],
) -> _Decision:
    if (newer := _newer_than(assignment, record, copies)) is not None:
        return newer
    if driver not in known:
        return _no_driver(driver, known)
    if driver in listing.blind:
        return _Held(f"driver {driver} cannot list: {listing.blind[driver]}")
    instance = current_copy(assignment, copies, driver)
    done = Record(
        uid=assignment.uid,
        epoch=assignment.epoch,
        phase=RecordPhase.ACTIVE,
        driver=driver,
        generation=assignment.generation,
        repair_seq=assignment.repair_seq,
        restart_seq=assignment.restart_seq,
    )
    mine = record if record is not None and record.epoch == assignment.epoch else None
    vm = definition(cluster_id, assignment)

    def create(reason: str, *, then_update: bool = False) -> Create:
        begun = _with(done, phase=RecordPhase.CREATING)
        return Create(assignment.uid, driver, reason, vm, before=begun, after=done, then_update=then_update)

    if mine is None:
        if instance is None:
            return create(f"not seen at epoch {assignment.epoch}")
        # The journal was lost. A repair is harmless to repeat, a restart is not: it counts as carried out.
        adopted = _with(done, generation=instance.generation or 0, repair_seq=0)
        return Acknowledge(assignment.uid, driver, "found without a record", after=adopted)
    if mine.phase is not RecordPhase.ACTIVE:
        other_generation = instance is not None and mine.generation != assignment.generation
        return create("an attempt was not finished", then_update=other_generation)
    if mine.generation != assignment.generation:
        reason = f"generation {mine.generation} is in effect, {assignment.generation} is wanted"
        if instance is None:
            return create(f"{reason}, and it is gone")
        return Update(assignment.uid, driver, reason, vm, after=_with(mine, generation=assignment.generation))
    if mine.restart_seq < assignment.restart_seq:
        restarted = _with(mine, restart_seq=assignment.restart_seq)
        if instance is None:
            return create("a restart was asked for, and it is gone")
        if spec.power_state is PowerState.STOPPED:
            return Acknowledge(assignment.uid, driver, "a stopped guest needs no restart", after=restarted)
        return Restart(assignment.uid, driver, "a restart was asked for", spec.power_state, after=restarted)
    return _mend(assignment, spec, mine, instance, create("it is gone"), vm)


def _shut_down(assignment: Assignment, record: Record | None, instance: Instance | None) -> ShutDown | None:
    if instance is None or instance.power is not ObservedPower.RUNNING:
        return None
    if record is None or record.epoch != assignment.epoch or record.phase is not RecordPhase.ACTIVE:
        return None
    asked = _with(record, shut_down=True)
    return ShutDown(assignment.uid, record.driver, "the lease is about to end", before=asked)


def _halted(decision: _Decision, assignment: Assignment, record: Record | None, instance: Instance | None) -> _Decision:
    """What becomes of `decision` while the guest is to stay shut down."""
    if isinstance(decision, _Held | Failure):
        return decision
    runs = instance is not None and instance.power is not ObservedPower.STOPPED
    if runs and record is not None and record.epoch == assignment.epoch:
        asked = _with(record, shut_down=True)
        return ShutDown(assignment.uid, record.driver, MAINTENANCE, before=asked)
    return _Held(MAINTENANCE) if _lets_run(decision, instance) else decision


def _starting(acting: Mapping[str, Step]) -> dict[str, Amount]:
    """What a step may start, as `room_on` wants to know it."""
    starting: dict[str, Amount] = {}
    for uid, step in acting.items():
        match step:
            case Create(vm=vm) | Update(vm=vm):
                starting[uid] = amount_of(vm.spec)
            case SetPower() | Restart():
                starting[uid] = Amount()
            case _:
                pass
    return starting


def _lets_run(decision: _Decision, instance: Instance | None) -> bool:
    """Whether it starts or resumes the guest. One that is to be paused is started, too."""
    match decision:
        case Create(vm=vm) | Update(vm=vm):
            return vm.spec.power_state is not PowerState.STOPPED
        case SetPower(power=PowerState.PAUSED):
            return instance is None or instance.power is not ObservedPower.RUNNING
        case SetPower(power=power):
            return power is PowerState.RUNNING
        case Restart():
            return True
        case _:
            return False


def _mend(
    assignment: Assignment,
    spec: MicroVMSpec,
    mine: Record,
    instance: Instance | None,
    recreate: Create,
    vm: VMDefinition,
) -> _Decision:
    """Drift: it had converged, and something differs now."""
    fields = differences(spec, instance)
    asked = mine.repair_seq < assignment.repair_seq
    repaired = _with(mine, repair_seq=assignment.repair_seq)
    if not fields:
        noted = asked or mine.shut_down
        return Acknowledge(assignment.uid, mine.driver, "nothing to repair", after=repaired) if noted else None
    ours = instance is not None and (instance.cause == LEASE_ENDED or mine.shut_down)
    if ours and "power_state" in fields:
        reason = "its lease had ended, or a maintenance"
        return SetPower(assignment.uid, mine.driver, reason, spec.power_state, after=_with(mine))
    what = ", ".join(fields)
    if not asked and spec.drift_policy is not DriftPolicy.REPAIR:
        return _Held(f"{what} drifted; drift_policy is {spec.drift_policy.value}")
    drift = f"{what} ({instance.cause})" if instance is not None and instance.cause else what
    if instance is None:
        return replace(recreate, drift="vanished")
    if fields == ("power_state",):
        power = spec.power_state
        return SetPower(assignment.uid, mine.driver, "power_state drifted", power, after=repaired, drift=drift)
    return Update(assignment.uid, mine.driver, f"{what} drifted", vm, after=repaired, drift=drift)


def _toward_nothing(
    assignment: Assignment,
    record: Record | None,
    copies: Sequence[Found],
    listing: Listing,
    known: frozenset[str],
) -> _Decision:
    """A tombstone covers its epoch and every one before it."""
    if (newer := _newer_than(assignment, record, copies)) is not None:
        return newer
    if copies:
        driver = copies[0].driver
    elif record is not None:
        driver = record.driver
    elif listing.blind:
        return _Held(f"cannot know that nothing is left: {_reasons(listing)}")
    else:
        return _Confirmed()
    if driver not in known:
        return _no_driver(driver, known)
    if driver in listing.blind:
        return _Held(f"driver {driver} cannot list: {listing.blind[driver]}")
    begun = Record(
        uid=assignment.uid,
        epoch=assignment.epoch,
        phase=RecordPhase.DESTROYING,
        driver=driver,
        generation=record.generation if record is not None else 0,
        repair_seq=record.repair_seq if record is not None else 0,
        restart_seq=record.restart_seq if record is not None else 0,
    )
    reason = f"tombstone: {assignment.reason}" if assignment.reason else "tombstone"
    return Destroy(assignment.uid, driver, reason, epoch=assignment.epoch, before=begun)


def _newer_than(assignment: Assignment, record: Record | None, copies: Iterable[Found]) -> _Held | None:
    epochs = [found.instance.epoch for found in copies if found.instance.epoch is not None]
    if record is not None:
        epochs.append(record.epoch)
    newest = max(epochs, default=0)
    if newest <= assignment.epoch:
        return None
    return _Held(f"the host is at epoch {newest}, the assignment is of epoch {assignment.epoch}")


def _no_driver(driver: str, known: frozenset[str]) -> Failure:
    has = ", ".join(sorted(known))
    return Failure(
        code="DriverNotFound",
        message=f"this host has no driver {driver!r}; it has {has}",
        pointer="/spec/provider",
        permanent=True,
    )


def _reasons(listing: Listing) -> str:
    return "; ".join(f"driver {driver} cannot list: {reason}" for driver, reason in sorted(listing.blind.items()))


def _unmanaged(
    assignments: Assignments, records: Mapping[str, Record], listing: Listing, default_driver: str
) -> tuple[Found, ...]:
    strangers: list[Found] = []
    for found in listing.found:
        uid = found.instance.uid
        assignment = assignments.by_uid.get(uid) if uid is not None else None
        if assignment is None or found.instance.cluster_id != assignments.cluster_id:
            strangers.append(found)
            continue
        epoch = found.instance.epoch
        if assignment.is_tombstone:
            accounted_for = epoch is None or epoch <= assignment.epoch
        else:
            driver = driver_for(assignment, records.get(assignment.uid), default_driver)
            accounted_for = found.driver == driver and epoch == assignment.epoch
        if not accounted_for:
            strangers.append(found)
    return tuple(strangers)


def _with(
    record: Record,
    *,
    phase: RecordPhase | None = None,
    generation: int | None = None,
    repair_seq: int | None = None,
    restart_seq: int | None = None,
    shut_down: bool = False,
) -> Record:
    """`shut_down` is of no later step than the one that says so."""
    return Record(
        uid=record.uid,
        epoch=record.epoch,
        phase=record.phase if phase is None else phase,
        driver=record.driver,
        generation=record.generation if generation is None else generation,
        repair_seq=record.repair_seq if repair_seq is None else repair_seq,
        restart_seq=record.restart_seq if restart_seq is None else restart_seq,
        shut_down=shut_down,
    )
