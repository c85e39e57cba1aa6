"""Long polls: hold a GET until a microVM is as asked, or for `wait_s`.

The wait sleeps on the replica's state and is woken by what changes it. It ends early when the server shuts down, the
client goes away, or this node has had no leader for longer than an election takes, and at once when what is waited for
can no longer come. That nothing came is said of a fresh state alone, unless a stale one was asked for.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

from starlette.requests import Request

from controlplane.api.http import reads
from controlplane.api.http.partition import until_cut_off
from controlplane.api.http.services import Services
from controlplane.decide.drift import DriftClass, classify
from controlplane.machine.convergence import current_observation, is_settled
from controlplane.machine.state import State
from controlplane.model.resources import MicroVM, MicroVMPhase, ObservedPower

WAIT_HEADER = "Flintlock-Wait"


class WaitFor(StrEnum):
    RUNNING = "running"
    READY = "ready"
    STOPPED = "stopped"
    PAUSED = "paused"
    SETTLED = "settled"
    IN_SYNC = "in_sync"
    GONE = "gone"


class WaitEnd(StrEnum):
    DONE = "done"
    FAILED = "failed"
    """It will not become so without a change: the microVM failed for good, or is being deleted."""
    TIMEOUT = "timeout"


_POWER = {
    WaitFor.RUNNING: ObservedPower.RUNNING,
    WaitFor.READY: ObservedPower.RUNNING,
    WaitFor.STOPPED: ObservedPower.STOPPED,
    WaitFor.PAUSED: ObservedPower.PAUSED,
}


def verdict(state: State, uid: str, wanted: WaitFor, generation: int | None) -> WaitEnd | None:
    """How the wait ends in `state`, or None while it goes on. `generation` is the least that counts."""
    vm = state.microvms.get(uid)
    if wanted is WaitFor.GONE:
        return WaitEnd.DONE if vm is None else None
    if vm is None or vm.phase is MicroVMPhase.DELETING:
        return WaitEnd.FAILED
    if vm.meta.generation >= (generation or 0):
        if _holds(state, vm, wanted, generation):
            return WaitEnd.DONE
        if vm.phase is MicroVMPhase.FAILED:
            return WaitEnd.FAILED
    return None


def _holds(state: State, vm: MicroVM, wanted: WaitFor, generation: int | None) -> bool:
    klass = classify(state, vm).klass
    if wanted is WaitFor.IN_SYNC:
        return klass is DriftClass.IN_SYNC
    if klass is DriftClass.UNREACHABLE:
        return False  # what was seen last may be over
    if wanted is WaitFor.SETTLED:
        return is_settled(vm)
    seen = current_observation(vm)
    if seen is None or seen.failure is not None or seen.power is not _POWER[wanted]:
        return False
    if generation is not None and (seen.generation is None or seen.generation < generation):
        return False
    return seen.ready if wanted is WaitFor.READY else True


async def wait_until(
    services: Services,
    request: Request,
    state: State,
    uid: str,
    wanted: WaitFor,
    generation: int | None,
    wait_s: float,
    *,
    stale: bool,
) -> tuple[State, WaitEnd]:
    """The state in which the wait ended, and how. Starts from `state`, which may already be as asked.

    Raises NoLeaderError, unless it may be `stale`, when nobody can tell whether what is waited for came.
    """
    if (end := verdict(state, uid, wanted, generation)) is not None:
        return state, end
    found = asyncio.ensure_future(
        services.reader.until(
            lambda now: now.revision >= state.revision and verdict(now, uid, wanted, generation) is not None,
            timeout_s=wait_s,
        )
    )
    others = [asyncio.ensure_future(services.closing.wait()), asyncio.ensure_future(_gone_away(request))]
    if not stale:
        others.append(asyncio.ensure_future(until_cut_off(services.reader)))
    try:
        await asyncio.wait([found, *others], return_when=asyncio.FIRST_COMPLETED)
        reached = found.result() if found.done() else None
    finally:
        for task in (found, *others):
            task.cancel()
        await asyncio.gather(found, *others, return_exceptions=True)
    if reached is None:
        if stale or services.closing.is_set():
            return services.reader.state, WaitEnd.TIMEOUT
        reached = await reads.snapshot(services)
    return reached, verdict(reached, uid, wanted, generation) or WaitEnd.TIMEOUT


async def _gone_away(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
