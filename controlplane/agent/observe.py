"""What the agent tells the control plane: observations, strangers, confirmations. Pure.

A view is the whole of it. The session sends a view completely after every (re)connect and from time to time, and in
between only what differs from what it sent last, in parts of bounded size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.agent.assignments import Assignment
from controlplane.agent.journal import Record, RecordPhase
from controlplane.agent.plan import Found
from controlplane.model.commands import Destroyed
from controlplane.model.gc import Leftover
from controlplane.model.resources import Failure, InterfaceFacts, Observation, ObservedPower, Unmanaged
from controlplane.model.types import replace
from controlplane.ports import LEASE_ENDED, MAINTENANCE, DriverError, DriverInfo, Instance, Remains

MAX_TEXT = 1024
"""Characters of a message or cause that travel; what a hypervisor prints can be long."""
MAX_DETAILS = 32
MAX_LEFTOVERS = 500
MAX_UNMANAGED = 1000
"""Strangers that are named; a host with more of them needs a person, not a longer list."""


@dataclass(frozen=True, slots=True)
class HostView:
    """Everything the agent knows, at the revision of the assignments that it knew."""

    revision: int
    observed: Mapping[str, Observation] = field(default_factory=dict[str, Observation])
    unmanaged: Sequence[Unmanaged] = ()
    destroyed: Mapping[str, int] = field(default_factory=dict[str, int])
    """uid to epoch of the tombstones of which nothing is left."""
    left_behind: Sequence[Leftover] | None = None
    """What is there of microVMs that are gone; None while that is not known."""


@dataclass(frozen=True, slots=True)
class ReportPart:
    complete: bool
    """The first part of a complete report: it replaces what was known, and alone names the strangers."""
    revision: int
    observed: Sequence[Observation] = ()
    unmanaged: Sequence[Unmanaged] = ()
    destroyed: Sequence[Destroyed] = ()
    left_behind: Sequence[Leftover] | None = None


def observe(
    host: str,
    assignment: Assignment,
    record: Record | None,
    instance: Instance | None,
    failure: Failure | None,
    info: DriverInfo | None,
    *,
    at_ms: int,
) -> Observation | None:
    """What is seen of one assignment; None while there is nothing to tell."""
    mine = record if record is not None and record.epoch == assignment.epoch else None
    if failure is None and (assignment.is_tombstone or (mine is None and not assignment.halt)):
        return None
    active = mine is not None and mine.phase is RecordPhase.ACTIVE
    seen = Observation(
        uid=assignment.uid,
        host=host,
        epoch=assignment.epoch,
        at=at_ms,
        power=ObservedPower.ABSENT,
        generation=mine.generation if mine is not None and active else None,
        repair_seq=mine.repair_seq if mine is not None and active else 0,
        restart_seq=mine.restart_seq if mine is not None and active else 0,
        driver=info.name if info is not None else None,
        simulated=info.simulated if info is not None else False,
        failure=failure,
        halted=assignment.halt,
    )
    if instance is None:
        return seen
    # What we asked it to do, it did for our reason.
    shut_down = mine is not None and mine.shut_down and instance.power is ObservedPower.STOPPED
    ours = MAINTENANCE if assignment.halt else LEASE_ENDED
    return replace(
        seen,
        power=instance.power,
        ready=instance.ready,
        vcpu=instance.vcpu,
        memory_in_mb=instance.memory_in_mb,
        cause=ours if shut_down else clip(instance.cause),
        details={key[:64]: value[:MAX_TEXT] for key, value in sorted(instance.details.items())[:MAX_DETAILS]},
        interfaces={
            device: InterfaceFacts(host_device=status.host_device, mac_address=status.mac_address)
            for device, status in instance.interfaces.items()
        },
    )


def stranger(found: Found, cluster_id: str) -> Unmanaged:
    instance = found.instance
    return Unmanaged(
        native_id=instance.native_id,
        driver=found.driver,
        uid=instance.uid,
        namespace=instance.namespace,
        name=instance.name,
        epoch=instance.epoch,
        power=instance.power,
        ours=instance.cluster_id == cluster_id,
    )


def leftover(remains: Remains, cluster_id: str) -> Leftover:
    return Leftover(
        driver=remains.driver,
        kind=remains.kind,
        name=remains.name,
        uid=remains.uid,
        microvm=remains.microvm,
        epoch=remains.epoch,
        bytes=remains.bytes,
        ours=remains.marked and remains.cluster_id in (None, cluster_id),
    )


def failure_of(error: DriverError) -> Failure:
    return Failure(
        code=error.code,
        message=clip(error.message) or "",
        pointer=error.pointer,
        permanent=not error.retryable,
    )


def clip(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def says_the_same(one: Observation | None, other: Observation | None) -> bool:
    """Equal but for when it was seen."""
    if one is None or other is None:
        return one is other
    return replace(one, at=other.at) == other


def report_parts(view: HostView, sent: HostView | None, *, max_items: int = 500) -> list[ReportPart]:
    """The reports that bring a node from knowing `sent` to knowing `view`; everything when `sent` is None."""
    base = sent if sent is not None else HostView(revision=0)
    known, confirmed = base.observed, base.destroyed
    observed = [
        seen
        for uid, seen in sorted(view.observed.items())
        # A failure is about the assignments that the agent had: with newer ones it says something else.
        if not says_the_same(known.get(uid), seen) or (seen.failure is not None and base.revision != view.revision)
    ]
    destroyed = [
        Destroyed(uid=uid, epoch=epoch) for uid, epoch in sorted(view.destroyed.items()) if confirmed.get(uid) != epoch
    ]
    complete = sent is None or list(sent.unmanaged) != list(view.unmanaged) or sent.left_behind != view.left_behind
    if complete:  # strangers and leftovers travel in complete reports only, so those hold everything
        observed = [seen for _, seen in sorted(view.observed.items())]
        destroyed = [Destroyed(uid=uid, epoch=epoch) for uid, epoch in sorted(view.destroyed.items())]
    if not complete and not observed and not destroyed:
        return []
    first = ReportPart(
        complete=complete,
        revision=view.revision,
        observed=observed[:max_items],
        unmanaged=list(view.unmanaged)[:MAX_UNMANAGED] if complete else (),
        left_behind=list(view.left_behind)[:MAX_LEFTOVERS] if complete and view.left_behind is not None else None,
        destroyed=destroyed[:max_items],
    )
    rest = [
        ReportPart(
            complete=False,
            revision=view.revision,
            observed=observed[start : start + max_items],
            destroyed=destroyed[start : start + max_items],
        )
        for start in range(max_items, max(len(observed), len(destroyed)), max_items)
    ]
    return [first, *rest]
