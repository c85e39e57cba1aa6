"""One listing of the host for everybody who needs one that began after now.

Listing is the only way in which the agent learns about its host, before it plans and after it acted. Callers share:
whoever asks while a listing runs gets the next one, and listings begin some time apart, so a burst of two hundred
finished steps costs a few.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from controlplane.agent.plan import Found, Listing
from controlplane.ports import DriverError, HostDriver, Remains

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stamped:
    """`began` orders the listing among the agent's own actions (see `Lister.tick`)."""

    began: int
    listing: Listing


class Lister:
    def __init__(self, drivers: Mapping[str, HostDriver], *, timeout_s: float, gather_s: float = 0.01) -> None:
        self._drivers = drivers
        self._timeout_s = timeout_s
        self._gather_s = gather_s
        self._began_s = -math.inf
        self._ticks = itertools.count(1)
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Stamped] | None = None
        self._tasks: set[asyncio.Task[Stamped]] = set()

    def tick(self) -> int:
        """A point in the order of listings and actions: a listing with a higher `began` started later."""
        return next(self._ticks)

    async def fresh(self) -> Stamped:
        """A listing that begins after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._run())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._tasks.discard)
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> Stamped:
        async with self._lock:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(self._began_s + self._gather_s - loop.time(), 0.0))
            self._began_s = loop.time()
            self._next = None
            began = self.tick()
            results = await asyncio.gather(*(self._list(name, driver) for name, driver in self._drivers.items()))
            found = [each for part, _ in results for each in part]
            blind = {name: error for name, (_, error) in zip(self._drivers, results, strict=True) if error is not None}
            leftovers = await self._leftovers() if not blind else None
            return Stamped(began=began, listing=Listing(found=found, blind=blind, leftovers=leftovers))

    async def _leftovers(self) -> list[Remains] | None:
        answers = await asyncio.gather(*(self._ask(name, driver.leftovers) for name, driver in self._drivers.items()))
        if any(error is not None for _, error in answers):
            return None
        return sorted((each for found, _ in answers for each in found), key=lambda each: (each.driver, each.name))

    async def _list(self, name: str, driver: HostDriver) -> tuple[list[Found], str | None]:
        instances, error = await self._ask(name, driver.list)
        return [Found(driver=name, instance=instance) for instance in instances], error

    async def _ask(self, name: str, asked: Callable[[], Awaitable[Sequence[T]]]) -> tuple[Sequence[T], str | None]:
        """What the driver says, or why it does not."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asked(), None
        except TimeoutError:
            return (), f"no answer within {self._timeout_s:g} s"
        except DriverError as error:
            return (), f"{error.code}: {error.message}"
        except Exception as error:
            # A driver's bug must not stop the agent: it would leave every other microVM unattended.
            log.exception("driver failed to tell what it has", driver=name)
            return (), f"{type(error).__name__}: {error}"
