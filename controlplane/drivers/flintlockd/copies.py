"""Which of the microVMs on a Flintlock host is the one that is meant. Pure.

A create whose answer was lost may have happened, or may happen later, so one uid can have several copies on the host.
Labels say whose a copy is, of which epoch, and from which generation it was made; the journal knows when a later
generation took effect without a new copy. All copies but one are surplus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.drivers.common import restarts
from controlplane.drivers.flintlockd.journal import Phase, Record
from controlplane.drivers.flintlockd.translate import Identity, carries, identity
from controlplane.model.resources import ObservedPower
from controlplane.ports import Instance, InterfaceStatus, VMDefinition
from controlplane.wire.flintlock.types import microvm_pb2 as types

State = types.MicroVMStatus

_STATE_NAMES = {number: name for name, number in State.MicroVMState.items()}
_CAUSES = {
    State.PENDING: "Flintlock is still creating it",
    State.FAILED: "Flintlock gave up creating it (FAILED)",
    State.DELETING: "Flintlock is deleting it",
}


@dataclass(frozen=True, slots=True)
class Copy:
    """A microVM on the host that carries our labels."""

    native_id: str
    identity: Identity
    wire: types.MicroVM

    @property
    def alive(self) -> bool:
        """It runs, or will without anybody doing anything."""
        return self.wire.status.state in {State.PENDING, State.CREATED}

    def generation(self, record: Record | None) -> int:
        """The generation in effect."""
        if record is not None and record.phase is Phase.CREATED and record.native_id == self.native_id:
            return record.definition.generation
        return self.identity.generation


def copies_of(microvms: Iterable[types.MicroVM], uid: str, cluster_id: str | None = None) -> list[Copy]:
    """The copies of `uid` of this cluster (None: of any), oldest first: Flintlock's ids are ULIDs."""
    found: list[Copy] = []
    for microvm in microvms:
        who = identity(microvm.spec)
        if who is not None and who.uid == uid and cluster_id in {None, who.cluster_id}:
            found.append(Copy(native_id=microvm.spec.uid, identity=who, wire=microvm))
    return sorted(found, key=lambda copy: copy.native_id)


def choose(copies: Sequence[Copy], vm: VMDefinition, record: Record | None) -> tuple[Copy | None, list[Copy]]:
    """The copy that already is what `vm` asks for, if any, and all the others."""
    fitting = [copy for copy in copies if copy.alive and _fits(copy, vm, record)]
    journaled = [copy for copy in fitting if record is not None and copy.native_id == record.native_id]
    kept = next(iter([*journaled, *fitting]), None)
    return kept, [copy for copy in copies if copy is not kept]


def _fits(copy: Copy, vm: VMDefinition, record: Record | None) -> bool:
    if copy.identity.epoch != vm.epoch:
        return False
    if copy.generation(record) == vm.generation:
        return True
    if record is not None and record.phase is Phase.CREATED and record.native_id == copy.native_id:
        return not restarts(record.definition.spec, vm.spec)
    return carries(copy.wire.spec, vm.spec)


def highest_epoch(copies: Iterable[Copy], record: Record | None) -> int:
    """The newest placement of which something is, or may be, on the host; 0 when there is nothing."""
    journaled = record.definition.epoch if record is not None and record.phase is not Phase.DESTROYED else 0
    return max([journaled, *(copy.identity.epoch for copy in copies)])


def surplus_of(copies: Sequence[Copy], record: Record) -> list[Copy]:
    """What may be deleted at once, going by what the journal knows for certain."""
    match record.phase:
        case Phase.DESTROYED:
            return list(copies)
        case Phase.CREATED if any(copy.native_id == record.native_id and copy.alive for copy in copies):
            newest = record.definition.epoch
            return [copy for copy in copies if copy.native_id != record.native_id and copy.identity.epoch <= newest]
        case _:
            return []


def instances(microvms: Sequence[types.MicroVM], records: Mapping[str, Record]) -> list[Instance]:
    """Everything on the host, as `HostDriver.list` reports it.

    Of several copies of one placement one stands for it; the others are reported as belonging to nobody, so that they
    are visible without being taken for it.
    """
    groups: dict[tuple[str, str, int], list[Copy]] = {}
    found: list[Instance] = []
    for microvm in microvms:
        who = identity(microvm.spec)
        if who is None:
            found.append(_instance(microvm, None, None))
            continue
        copy = Copy(native_id=microvm.spec.uid, identity=who, wire=microvm)
        groups.setdefault((who.cluster_id, who.uid, who.epoch), []).append(copy)
    for group in groups.values():
        record = records.get(group[0].identity.uid)
        first, *others = sorted(group, key=lambda copy: _rank(copy, record))
        found.append(_instance(first.wire, first.identity, first.generation(record)))
        found += [_instance(copy.wire, None, None, surplus_of_uid=copy.identity.uid) for copy in others]
    return found


def _rank(copy: Copy, record: Record | None) -> tuple[bool, bool, int, str]:
    """Lowest stands for the placement: the journal's, alive, newest generation, oldest copy."""
    journaled = record is not None and copy.native_id == record.native_id
    return (not copy.alive, not journaled, -copy.identity.generation, copy.native_id)


def _instance(
    microvm: types.MicroVM, who: Identity | None, generation: int | None, *, surplus_of_uid: str | None = None
) -> Instance:
    spec, status = microvm.spec, microvm.status
    running = status.state == State.CREATED
    details = {"flintlock_uid": spec.uid, "flintlock_state": _STATE_NAMES.get(status.state, str(status.state))}
    if status.retry:
        details["flintlock_retries"] = str(status.retry)
    if spec.provider:
        details["flintlock_provider"] = spec.provider
    if surplus_of_uid is not None:
        details["surplus_copy_of"] = surplus_of_uid
    return Instance(
        uid=who.uid if who else None,
        native_id=spec.uid,
        cluster_id=who.cluster_id if who else None,
        namespace=spec.namespace,
        name=spec.id,
        epoch=who.epoch if who else None,
        generation=generation,
        power=ObservedPower.RUNNING if running else ObservedPower.STOPPED,
        # The API does not tell what the guest says of itself.
        ready=running,
        vcpu=spec.vcpu,
        memory_in_mb=spec.memory_in_mb,
        cause=None if running else _CAUSES.get(status.state, f"Flintlock says {details['flintlock_state']}"),
        details=details,
        interfaces={
            key: InterfaceStatus(host_device=interface.host_device_name, mac_address=interface.mac_address)
            for key, interface in status.network_interfaces.items()
        },
    )
