"""The host's lease: until when it may run what may be started elsewhere (docs/adr/0100).

`Book` is the arithmetic. A grant answers a heartbeat, and the lease ends `ttl` after that heartbeat was SENT, which the
agent notes before it writes it, on CLOCK_BOOTTIME: whatever the network and the nodes took is lost to the host, never
to the leader's reckoning. What is held is never shortened, and what answers no heartbeat of the present session that is
still remembered is no grant.

`HostLease` is the edge. A grant is written down first (see `held`), then every driver is told, and only when all of
them have taken it the lease counts. A driver that fails or hangs keeps it from counting: what was counted
before goes on to its own end, the error is logged, and the next grant tries again. So nothing is started under a lease
that nobody would end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from controlplane.agent.held import LONGEST_S, Held, HeldFile
from controlplane.ports import Clock, DriverError, HostDriver, Lease

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

REMEMBERED = 256
"""Heartbeats of a session whose grant may still come; an older answer would be worth nothing by now."""


@dataclass(frozen=True, slots=True)
class Granted:
    ends_s: float
    """CLOCK_BOOTTIME."""
    ttl_s: float
    grace_s: float

    @property
    def half_s(self) -> float:
        """When half of it has passed without another grant."""
        return self.ends_s - self.ttl_s / 2


@dataclass(frozen=True, slots=True)
class Standing:
    """What the lease says now."""

    may_run: bool
    shut_down: bool
    """Half of it has passed without a grant: who wants to be asked to power off must be asked now."""
    changes_in_s: float | None
    """Until time alone makes it say something else."""


NO_LEASE = Standing(may_run=False, shut_down=False, changes_in_s=None)


def standing(granted: Granted | None, now_s: float) -> Standing:
    if granted is None or now_s >= granted.ends_s:
        return NO_LEASE
    if now_s < granted.half_s:
        return Standing(may_run=True, shut_down=False, changes_in_s=granted.half_s - now_s)
    return Standing(may_run=True, shut_down=True, changes_in_s=granted.ends_s - now_s)


class Book:
    """Heartbeats of the present session, and the best grant for any of them. Pure."""

    def __init__(self, held: Held) -> None:
        self._session = ""
        self._sent: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)
        self.held = held
        """Of this and of earlier lives of the agent; the leader has to reckon with it."""
        self.best: Granted | None = None

    def begin(self, session: str) -> None:
        self._session = session
        self._sent.clear()

    def sent(self, session: str, sequence: int, at_s: float) -> None:
        if session == self._session:
            self._sent.append((sequence, at_s))

    def granted(self, session: str, sequence: int, *, ttl_s: float, grace_s: float) -> bool:
        """Take a grant; False when it is none of ours."""
        if session != self._session or not 0 < ttl_s <= LONGEST_S or not 0 <= grace_s <= LONGEST_S:
            return False
        at_s = next((at_s for each, at_s in self._sent if each == sequence), None)
        if at_s is None:
            return False
        granted = Granted(at_s + ttl_s, ttl_s, grace_s)
        if self.best is None or granted.ends_s > self.best.ends_s:
            self.best = granted
        if granted.ends_s > self.held.ends_s:
            self.held = Held(ends_s=granted.ends_s, ttl_s=ttl_s)
        return True

    def held_ttl_s(self, now_s: float) -> float:
        return self.held.ttl_s if now_s < self.held.ends_s else 0.0


class HostLease:
    """on_change: called when a grant has made what may run another."""

    def __init__(
        self,
        *,
        drivers: Mapping[str, HostDriver],
        file: HeldFile,
        clock: Clock,
        on_change: Callable[[], None],
        renew_timeout_s: float,
    ) -> None:
        self._drivers = drivers
        self._file = file
        self._clock = clock
        self._on_change = on_change
        self._renew_timeout_s = renew_timeout_s
        self._book = Book(file.read(clock.boottime_s()))
        self._counting: Granted | None = None
        self._due = asyncio.Event()

    # -- what the session tells

    def begin(self, session: str) -> None:
        """A new session: what earlier ones are granted from now on is no longer ours."""
        self._book.begin(session)

    def sending(self, session: str, sequence: int) -> None:
        """Call it before the heartbeat is written."""
        self._book.sent(session, sequence, self._clock.boottime_s())

    def granted(self, session: str, sequence: int, *, ttl_s: float, grace_s: float) -> bool:
        """Have a grant put into effect; False when it is none of ours."""
        if not self._book.granted(session, sequence, ttl_s=ttl_s, grace_s=grace_s):
            log.info("grant ignored", session=session, sequence=sequence, ttl_s=ttl_s)
            return False
        self._due.set()
        return True

    # -- what it says

    def standing(self) -> Standing:
        return standing(self._counting, self._clock.boottime_s())

    def held_ttl_s(self) -> float:
        """Of the lease that may still be in effect here, whoever of us took it."""
        return self._book.held_ttl_s(self._clock.boottime_s())

    # -- putting it into effect

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            granted = self._book.best
            if granted is not None and granted != self._counting and await self._put_in_effect(granted):
                before = self.standing()
                self._counting = granted
                if (before.may_run, before.shut_down) != (True, False):
                    self._on_change()

    async def _put_in_effect(self, granted: Granted) -> bool:
        try:
            await asyncio.to_thread(self._file.write, self._book.held)
        except OSError as error:
            failures = [f"state_dir: {error}"]
        else:
            lease = Lease(ends_s=granted.ends_s, grace_s=granted.grace_s)
            renewals = [self._renew(name, driver, lease) for name, driver in self._drivers.items()]
            failures = [failure for failure in await asyncio.gather(*renewals) if failure is not None]
        for failure in failures:
            log.error("a grant does not count: it cannot be put into effect", reason=failure)
        return not failures

    async def _renew(self, name: str, driver: HostDriver, lease: Lease) -> str | None:
        """Why the driver did not take the lease; None when it did."""
        try:
            async with asyncio.timeout(self._renew_timeout_s):
                await driver.renew(lease)
        except TimeoutError:
            return f"driver {name}: no answer within {self._renew_timeout_s:g} s"
        except DriverError as error:
            return f"driver {name}: {error.code}: {error.message}"
        except Exception as error:
            log.exception("a driver failed to take the lease", driver=name)
            return f"driver {name}: {type(error).__name__}: {error}"
        return None
