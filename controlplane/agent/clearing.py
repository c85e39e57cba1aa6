"""Deletes what microVMs that are gone left on the host, as the cluster orders it.

Level-based: an order is given for as long as the host tells of its thing, so whatever was interrupted is done again,
and what a driver says of its own success counts for nothing: the next complete look does. An order names a thing, never
a microVM, and is left alone while the thing is of one that is to be here, or that is here (`due`). The driver looks
once more, under its lock, and refuses what does not carry its mark.

One thing is deleted at a time, beside the steps of microVMs, which need not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from controlplane.agent.assignments import Assignments, Clearing
from controlplane.agent.journal import Record
from controlplane.agent.plan import Listing
from controlplane.model.gc import LeftoverKind
from controlplane.ports import Clock, DriverError, HostDriver, Remains

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

RETRY_S = 30.0
"""Pause after something could not be deleted."""


def due(assignments: Assignments, records: Mapping[str, Record], listing: Listing) -> list[Clearing]:
    """The orders that may be carried out now: their thing is still left over, and of nothing that lives here. Pure."""
    there = {(left.driver, left.name): left for left in listing.leftovers or ()}
    running = {found.instance.uid for found in listing.found}

    def is_free(left: Remains) -> bool:
        if left.uid is None:
            return True
        assigned = assignments.by_uid.get(left.uid)
        if left.kind is LeftoverKind.VOLUMES:
            # Put aside at the end of a placement: only that one, or a newer one, could still mean them.
            return assigned is None or left.epoch is None or left.epoch < assigned.epoch
        return assigned is None and left.uid not in records and left.uid not in running

    return [
        order
        for order in assignments.clearings
        if (left := there.get((order.driver, order.name))) is not None and is_free(left)
    ]


class Clearer:
    def __init__(
        self, drivers: Mapping[str, HostDriver], clock: Clock, *, timeout_s: float, wake: Callable[[], None]
    ) -> None:
        """wake: the host is to be looked at again."""
        self._drivers = drivers
        self._clock = clock
        self._timeout_s = timeout_s
        self._wake = wake
        self._task: asyncio.Task[None] | None = None
        self._not_before_s = 0.0
        self._kept_until_told = False

    def start(self, group: asyncio.TaskGroup, assignments: Assignments, orders: Sequence[Clearing]) -> None:
        """Begin, unless it is at it already: what is left then comes with the next round."""
        idle = self._task is None or self._task.done()
        untold = assignments.governs_leftovers and not self._kept_until_told
        if idle and (orders or untold) and self._clock.monotonic_s() >= self._not_before_s:
            self._task = group.create_task(self._run(orders, keep=untold))

    async def _run(self, orders: Sequence[Clearing], *, keep: bool) -> None:
        done = [await self._keep()] if keep else []
        for order in orders:
            done.append(await self._clear(order))
        if not all(done):
            self._not_before_s = self._clock.monotonic_s() + RETRY_S
        if orders and any(done):
            self._wake()

    async def _keep(self) -> bool:
        told = [await self._call(name, "keep", driver.keep_until_told) for name, driver in self._drivers.items()]
        self._kept_until_told = all(told)
        return self._kept_until_told

    async def _clear(self, order: Clearing) -> bool:
        driver = self._drivers.get(order.driver)
        if driver is None:
            log.warning("leftover.kept", driver=order.driver, name=order.name, error="there is no such driver")
            return False
        cleared = await self._call(order.driver, order.name, lambda: driver.clear(order.name))
        if cleared:
            log.warning("leftover.cleared", driver=order.driver, name=order.name, reason=order.reason)
        return cleared

    async def _call(self, driver: str, what: str, call: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Whether it succeeded. A driver's bug must not stop the agent."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await call()
        except TimeoutError:
            log.warning("leftover.kept", driver=driver, name=what, error=f"no answer within {self._timeout_s:g} s")
        except DriverError as error:
            log.warning("leftover.kept", driver=driver, name=what, code=error.code, error=error.message)
        except Exception:
            log.exception("leftover.kept", driver=driver, name=what)
        else:
            return True
        return False
