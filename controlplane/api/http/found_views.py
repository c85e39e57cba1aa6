"""What was found on a host and no intent accounts for, and who said that it is to stay or to go, as documents. Pure."""

from __future__ import annotations

from controlplane.api.http import host_shapes, shape
from controlplane.api.http.times import iso
from controlplane.machine.holding import found_hold
from controlplane.model.gc import Deletion, Held, Leftover
from controlplane.model.resources import Host, Unmanaged


def unmanaged(host: Host) -> list[host_shapes.UnmanagedShape]:
    return [_unmanaged(host, found) for found in host.unmanaged]


def left_behind(host: Host) -> list[host_shapes.LeftoverShape] | None:
    """None while its present agent has not told."""
    return [_left(host, each) for each in host.left_behind] if host.has_looked else None


def hold(held: Held | None) -> shape.HoldShape | None:
    return shape.HoldShape(actor=held.actor, at=iso(held.at), reason=held.reason) if held is not None else None


def deletion(order: Deletion | None) -> shape.DeletionShape | None:
    if order is None:
        return None
    return shape.DeletionShape(actor=order.actor, at=iso(order.at), reason=order.reason, trigger=order.trigger)


def _unmanaged(host: Host, found: Unmanaged) -> host_shapes.UnmanagedShape:
    return host_shapes.UnmanagedShape(
        native_id=found.native_id,
        driver=found.driver,
        uid=found.uid,
        namespace=found.namespace,
        name=found.name,
        epoch=found.epoch,
        ours=found.ours,
        power_state=found.power,
        since=iso(found.since),
        hold=_found_hold(host, found.key),
    )


def _left(host: Host, left: Leftover) -> host_shapes.LeftoverShape:
    return host_shapes.LeftoverShape(
        driver=left.driver,
        kind=left.kind,
        name=left.name,
        microvm=left.microvm,
        uid=left.uid,
        epoch=left.epoch,
        bytes=left.bytes,
        ours=left.ours,
        since=iso(left.since),
        hold=_found_hold(host, left.key),
        deletion=deletion(host.clearing.get(left.key)),
    )


def _found_hold(host: Host, key: str) -> shape.HoldShape | None:
    holding = found_hold(host, key)
    return hold(holding.held) if holding is not None else None
