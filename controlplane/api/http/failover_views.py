"""The state of failover as documents. Pure, like `views`."""

from __future__ import annotations

from typing import TypedDict

from controlplane.api.http.failover_shapes import BreakerShape, FailoverStatus, HeldMicroVM, LostMicroVM
from controlplane.api.http.views import override_shape
from controlplane.decide.breaker import Breaker, FailoverLimits
from controlplane.decide.failover import failover, policy_of, rank
from controlplane.machine.state import State
from controlplane.model.resources import MicroVM

LISTED = 500
"""MicroVMs of each list; the counts are of all."""


def failover_status(state: State, limits: FailoverLimits, *, now_ms: int) -> FailoverStatus:
    decided = failover(state, now_ms=now_ms, term=0, limits=limits)
    held = sorted((state.microvms[uid] for uid in decided.held), key=lambda vm: rank(state, vm))
    return FailoverStatus(
        revision=state.revision,
        breaker=_breaker(decided.cut, limits),
        override=override_shape(decided.cut.override),
        next=[LostMicroVM(**_lost(state, state.microvms[each.uid])) for each in decided.resurrect[:LISTED]],
        held=[HeldMicroVM(**_lost(state, vm), held=decided.held[vm.meta.uid]) for vm in held[:LISTED]],
        held_in_all=len(held),
    )


def _breaker(cut: Breaker, limits: FailoverLimits) -> BreakerShape:
    return BreakerShape(
        open=cut.open,
        stops=cut.stops,
        lost=cut.lost,
        of=cut.of,
        hosts=sorted(cut.hosts),
        max_unhealthy=limits.max_unhealthy,
        window_s=limits.window_s,
        message=cut.message,
    )


class _Lost(TypedDict):
    namespace: str
    name: str
    uid: str
    host: str
    policy: str | None
    priority: int


def _lost(state: State, vm: MicroVM) -> _Lost:
    return {
        "namespace": str(vm.meta.namespace),
        "name": vm.meta.name,
        "uid": vm.meta.uid,
        "host": vm.placement.host if vm.placement is not None else "",
        "policy": vm.spec.recovery.policy,
        "priority": policy_of(state, vm).priority,
    }
