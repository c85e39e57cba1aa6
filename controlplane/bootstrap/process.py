"""What the processes have in common: how one runs, ends, and refuses."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog

from controlplane import logs
from controlplane.liveness import beat
from controlplane.settings import NodeSettings, SettingsError, load_node
from controlplane.supervisor import EX_CONFIG, parent_is_gone

WAIT_S = 15.0
"""Longer than a child takes to end."""
RETRY_S = 0.5
EX_IOERR = 74
"""sysexits.h: what a child answers when its disk failed or is full; it is started again, later and later."""

Work = Coroutine[Any, Any, None]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


COLLECTOR_THRESHOLDS = (10_000, 4, 500)
"""The state is made of values without cycles, which reference counting frees; a full pass would visit all of it again
and again while it grows (0.5 s each at 10,000 microVMs, which is an election timeout). So a full pass comes only after
some twenty million more allocations than releases. The first number is above what some dozens of requests in flight
hold: a pass over those visits what is about to be freed anyway. The first two together are how much a pass over what is
young visits, for some milliseconds."""


class StartError(Exception):
    """A part cannot start with the settings that it was given; the message names the setting."""


_log = structlog.get_logger(__name__)


def run_child(
    name: str,
    work: Callable[[NodeSettings], Work],
    refusals: tuple[type[Exception], ...],
    failures: tuple[type[Exception], ...] = (),
    new_loop: LoopFactory | None = None,
) -> int:
    """The main of a node's child: `python -m controlplane.bootstrap.NAME CONFIG`. Gives the exit code."""
    try:
        settings = load_node(Path(sys.argv[1]))
    except SettingsError as error:
        logs.configure("info", process=name)
        _log.error("process.refused", reason=str(error))
        return EX_CONFIG
    logs.configure(settings.log_level, process=name, node=settings.node)
    return run(_beating(work(settings)), parent_is_gone(), refusals, failures, new_loop)


def run(
    work: Work,
    stop: Work,
    refusals: tuple[type[Exception], ...],
    failures: tuple[type[Exception], ...] = (),
    new_loop: LoopFactory | None = None,
) -> int:
    """Run `work` until it ends or `stop` returns, in a loop that `new_loop` makes (None: asyncio's own).

    Gives the exit code, with the reason logged: EX_CONFIG for one of `refusals`, which starting again would not mend;
    EX_IOERR for one of `failures`, which it may. What is both is a failure.
    """
    reasons: list[str] = []
    failed: list[str] = []
    calm_collector()
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_until(work, stop))
    except* failures as group:
        failed = [str(error) for error in _leaves(group)]
    except* refusals as group:
        reasons = [str(error) for error in _leaves(group)]
    for reason in reasons:
        _log.error("process.refused", reason=reason)
    for reason in failed:
        _log.error("process.failed", reason=reason)
    if reasons:
        return EX_CONFIG
    return EX_IOERR if failed else 0


def calm_collector() -> None:
    """Keep the garbage collector from visiting what stays: modules now, and the state as it grows."""
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def settle_collector() -> None:
    """What is there now stays: let no later pass visit it. Costs a pass over what is young.

    Called whenever a state was loaded or a snapshot of it taken, which comes far more often than twenty million
    allocations, so that no full pass ever visits a large state.
    """
    gc.collect(1)
    gc.freeze()


async def patiently(
    start: Callable[[], Awaitable[None]], error_type: type[Exception], *, wait_s: float = WAIT_S
) -> None:
    """Call `start` again while it raises an `error_type`, for `wait_s`, then let the error out.

    For locks and ports that the children of a killed parent still hold: they end within seconds, and a node that is
    started again meanwhile must not take that for a refusal.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + wait_s
    while True:
        try:
            return await start()
        except error_type as error:
            if loop.time() > give_up:
                raise
            _log.info("process.waiting", reason=str(error))
            await asyncio.sleep(RETRY_S)


async def _beating(work: Work) -> None:
    """`work`, with a heartbeat for the parent meanwhile."""
    pulse = asyncio.create_task(beat())
    try:
        await work
    finally:
        pulse.cancel()


async def _until(work: Work, stop: Work) -> None:
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop)
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (working, stopping):
        task.cancel()
    await asyncio.wait([working, stopping])
    if not working.cancelled():
        working.result()


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
