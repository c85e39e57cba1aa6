"""Drift: intent beside observation, classified so that three facts are never confused.

`drifted` means that a host did what was asked and something else is there now. While the control plane is still at
work it is `progressing`; while nobody can look it is `unreachable`, whatever was seen last; and a microVM that no
intent accounts for is `unmanaged`. Where a microVM runs is never drift: it may move while its placement intent holds,
so that one whose host was lost is unreachable, then progressing, and never drifted.
"""

from __future__ import annotations

from enum import StrEnum

from controlplane.machine.convergence import current_observation, differences, is_confirmed
from controlplane.machine.state import State
from controlplane.model.resources import Host, HostPhase, MicroVM, MicroVMPhase, Unmanaged
from controlplane.model.types import record

SILENT = (HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED)
"""Phases of a host whose agent is not heard: what runs there is unknown."""


class DriftClass(StrEnum):
    IN_SYNC = "in_sync"
    PROGRESSING = "progressing"
    DRIFTED = "drifted"
    UNMANAGED = "unmanaged"
    UNREACHABLE = "unreachable"


@record
class DriftField:
    pointer: str
    desired: str | int | None
    observed: str | int | None
    since_ms: int | None
    cause: str | None


@record
class Drift:
    klass: DriftClass
    fields: tuple[DriftField, ...] = ()


def classify(state: State, vm: MicroVM) -> Drift:
    """The drift of one microVM; fields only where the class is `drifted`, or the last that was seen if unreachable."""
    host = state.hosts.get(vm.placement.host) if vm.placement is not None else None
    if vm.phase is MicroVMPhase.PENDING or vm.is_tombstone:
        return Drift(klass=DriftClass.PROGRESSING)
    fields = tuple(
        DriftField(
            pointer=each.pointer,
            desired=each.desired,
            observed=each.observed,
            since_ms=vm.drifted_since,
            cause=each.cause,
        )
        for each in differences(vm)
    )
    if host is None or host.phase in SILENT:
        return Drift(klass=DriftClass.UNREACHABLE, fields=fields)
    if host.phase is HostPhase.REJOINING:
        # What may run only under a lease stands still there until the host has one again.
        return Drift(klass=DriftClass.PROGRESSING)
    if vm.is_halted:
        # It is shut down because of maintenance, and runs again afterwards.
        return Drift(klass=DriftClass.PROGRESSING)
    if vm.phase is MicroVMPhase.FAILED:
        return Drift(klass=DriftClass.DRIFTED, fields=fields)
    seen = current_observation(vm)
    if seen is None or not is_confirmed(vm):
        return Drift(klass=DriftClass.PROGRESSING)
    return Drift(klass=DriftClass.DRIFTED, fields=fields) if fields else Drift(klass=DriftClass.IN_SYNC)


def unmanaged(host: Host, found: Unmanaged) -> Drift:
    """The drift of a microVM on `host` that nobody declared."""
    field = DriftField(
        pointer="",
        desired=None,
        observed=found.power.value,
        since_ms=found.since,
        cause=f"found by driver {found.driver} on host {host.meta.name} as {found.native_id}; nobody declared it",
    )
    return Drift(klass=DriftClass.UNMANAGED, fields=(field,))
