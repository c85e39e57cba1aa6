"""What the agent of a host would do if it came back as it was last known: its own plan, made here from the state.

The inputs are guesses where nobody can look: what may run only under a lease was ended when the lease ended, and what
is kept runs on. The plan that is made from them is the agent's (`agent.plan`); nothing decides twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane.agent.assignments import Assignment, Assignments
from controlplane.agent.forecast import forecast
from controlplane.agent.journal import Record, RecordPhase
from controlplane.agent.plan import Found, Listing
from controlplane.machine.state import State
from controlplane.model.resources import Host, MicroVM, Observation, ObservedPower, Unmanaged
from controlplane.model.spec import OnDetach
from controlplane.ports import LEASE_ENDED, Instance, PlanItem


def forecast_of(state: State, host: Host) -> Sequence[PlanItem]:
    """In the order of `agent.forecast`; nothing of a host whose agent has never connected."""
    if host.inventory is None or not host.inventory.drivers:
        return ()
    drivers = [each.name for each in host.inventory.drivers]
    placed = list(state.microvms_on(host.meta.name))
    seen = [vm.observed for vm in placed if vm.observed is not None]
    assignments = [_assignment(vm) for vm in placed]
    assignments += [_order(uid, epoch) for uid, epoch in host.stale.items()]
    return forecast(
        Assignments(state.cluster_id, state.revision, {each.uid: each for each in assignments}),
        {each.uid: _record(each, drivers[0]) for each in seen if each.generation is not None},
        Listing(found=list(_found(state, host, placed, drivers[0]))),
        drivers=drivers,
        default_driver=drivers[0],
        capacity=host.inventory.capacity,
    )


def _assignment(vm: MicroVM) -> Assignment:
    return Assignment(
        uid=vm.meta.uid,
        namespace=vm.meta.namespace or "",
        name=vm.meta.name,
        epoch=vm.epoch,
        generation=vm.meta.generation,
        repair_seq=vm.repair_seq,
        restart_seq=vm.restart_seq,
        spec=None if vm.is_tombstone else vm.spec,
        labels=vm.meta.labels,
        halt=vm.is_halted,
    )


def _order(uid: str, epoch: int) -> Assignment:
    return Assignment(uid=uid, namespace="", name="", epoch=epoch, generation=0, repair_seq=0, restart_seq=0, spec=None)


def _record(seen: Observation, default_driver: str) -> Record:
    return Record(
        uid=seen.uid,
        epoch=seen.epoch,
        phase=RecordPhase.ACTIVE,
        driver=seen.driver or default_driver,
        generation=seen.generation or 0,
        repair_seq=seen.repair_seq,
        restart_seq=seen.restart_seq,
    )


def _found(state: State, host: Host, placed: Sequence[MicroVM], default_driver: str) -> Iterator[Found]:
    for vm in placed:
        seen = vm.observed
        if seen is not None and seen.power is not ObservedPower.ABSENT:
            ended = vm.detach is not OnDetach.KEEP and seen.power is not ObservedPower.STOPPED
            power = ObservedPower.STOPPED if ended else seen.power
            cause = LEASE_ENDED if ended else seen.cause
            copy = _instance(
                vm.meta.uid,
                state.cluster_id,
                vm.epoch,
                power=power,
                cause=cause,
                generation=seen.generation,
                vcpu=seen.vcpu,
                memory_in_mb=seen.memory_in_mb,
            )
            yield Found(seen.driver or default_driver, copy)
    for uid, epoch in host.stale.items():
        yield Found(default_driver, _instance(uid, state.cluster_id, epoch))
    for stranger in host.unmanaged:
        yield Found(stranger.driver, _stranger(stranger, state.cluster_id if stranger.ours else None))


def _instance(
    uid: str,
    cluster_id: str,
    epoch: int,
    *,
    power: ObservedPower = ObservedPower.STOPPED,
    cause: str | None = None,
    generation: int | None = None,
    vcpu: int | None = None,
    memory_in_mb: int | None = None,
) -> Instance:
    return Instance(
        uid=uid,
        native_id=uid,
        cluster_id=cluster_id,
        namespace=None,
        name=None,
        epoch=epoch,
        generation=generation,
        power=power,
        ready=False,
        vcpu=vcpu,
        memory_in_mb=memory_in_mb,
        cause=cause,
        details={},
        interfaces={},
    )


def _stranger(found: Unmanaged, cluster_id: str | None) -> Instance:
    return Instance(
        uid=found.uid,
        native_id=found.native_id,
        cluster_id=cluster_id,
        namespace=found.namespace,
        name=found.name,
        epoch=found.epoch,
        generation=None,
        power=found.power,
        ready=False,
        vcpu=None,
        memory_in_mb=None,
        cause=None,
        details={},
        interfaces={},
    )
