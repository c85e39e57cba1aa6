"""What becomes of the microVMs of a host, as documents: how far it is emptied, and what its agent would do next."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.api.http import host_shapes
from controlplane.api.http.times import iso
from controlplane.decide.emptying import Emptying, Left, Stand, emptying
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.state import State
from controlplane.model.resources import Host
from controlplane.ports import PlanItem


def evacuation(state: State, host: Host) -> host_shapes.EvacuationShape | None:
    return None if host.evacuating is None else _evacuation(host, emptying(state, host))


def evacuation_detail(state: State, host: Host) -> host_shapes.EvacuationDetail:
    found = emptying(state, host) if host.evacuating is not None else Emptying(left=())
    return host_shapes.EvacuationDetail(
        host=host.meta.name,
        availability=availability(host),
        evacuation=_evacuation(host, found),
        left=[_left(each) for each in found.left],
    )


def _evacuation(host: Host, found: Emptying) -> host_shapes.EvacuationShape | None:
    asked = host.evacuating
    if asked is None:
        return None
    return host_shapes.EvacuationShape(
        mode=asked.mode,
        asked_at=iso(asked.asked_at),
        asked_by=asked.asked_by,
        moved=asked.moved,
        waiting=found.count(Stand.WAITING),
        under_way=found.count(Stand.MOVING, Stand.ARRIVING),
        staying=found.count(Stand.STAYING, Stand.HALTING, Stand.HALTED),
        done_at=iso(asked.done_at),
    )


def _left(each: Left) -> host_shapes.LeftShape:
    vm = each.vm
    return host_shapes.LeftShape(
        namespace=str(vm.meta.namespace),
        name=vm.meta.name,
        uid=vm.meta.uid,
        phase=vm.phase,
        host=vm.placement.host if vm.placement is not None else None,
        stand=each.stand,
        reason=each.reason,
    )


def plan_items(items: Iterable[PlanItem]) -> list[host_shapes.PlanItemShape]:
    return [
        host_shapes.PlanItemShape(
            verb=item.verb,
            namespace=item.namespace,
            name=item.name,
            uid=item.uid,
            epoch=item.epoch,
            driver=item.driver,
            native_id=item.native_id,
            reason=item.reason,
        )
        for item in items
    ]
