"""The host's lease: until when it may run what may be started elsewhere (docs/adr/0100).

`Book` is the arithmetic. A grant answers a heartbeat, and the lease ends `ttl` after that heartbeat was SENT, which the
agent notes before it writes it, on CLOCK_BOOTTIME: whatever the network and the nodes took is lost to the host, never
to the leader's reckoning. What is held is never shortened, and what answers no heartbeat of the present session that is
still remembered is no grant.

`HostLease` is the edge. A grant is written down first (see `held`), then every driver is told, and for each the lease
counts once it has taken it. For a driver that fails or hangs, what was counted before goes on to its own end, and the
next grant tries again. So nothing is started under a lease that nobody would end, and one driver's failure is not the
others'. Once nothing counts for such a driver it has a `problem`, until it has taken leases for TRUST_S: the nodes are
told that it ends nothing by itself now.

What the host still holds from earlier lives of the agent is known best by the drivers, since they are what would end it
(`held_ttl_s`). The agent's own file speaks for them only where none of them can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from controlplane.agent.held import LONGEST_S, Held, HeldFile
from controlplane.ports import Clock, DriverError, HostDriver, Lease

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

TRUST_S = 30.0
"""How long a driver that took no leases has to take them again before it is said to fence."""
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


@dataclass(slots=True)
class _Taking:
    """How one driver takes leases."""

    counting: Granted | None = None
    since_ms: int = 0
    """Wall clock: from when on it is without a lease."""
    failing: bool = False
    """In the last attempt."""
    failure: str = ""
    """The last one."""
    bad_s: float | None = None
    """CLOCK_BOOTTIME at which it was last seen failing and without a lease."""


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
        self._sent: dict[int, float] = {}
        """By sequence, in the order in which they were sent."""
        self.held = held
        """Of this and of earlier lives of the agent; the leader has to reckon with it."""
        self.best: Granted | None = None

    def begin(self, session: str) -> None:
        self._session = session
        self._sent.clear()

    def sent(self, session: str, sequence: int, at_s: float) -> None:
        """Of one that is said twice, the first time counts."""
        if session == self._session:
            self._sent.setdefault(sequence, at_s)
            if len(self._sent) > REMEMBERED:
                del self._sent[next(iter(self._sent))]

    def granted(self, session: str, sequence: int, *, ttl_s: float, grace_s: float) -> bool:
        """Take a grant; False when it is none of ours."""
        if session != self._session or not 0 < ttl_s <= LONGEST_S or not 0 <= grace_s <= LONGEST_S:
            return False
        at_s = self._sent.get(sequence)
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
        self._takings = {name: _Taking(since_ms=clock.now_ms()) for name in drivers}
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

    def standing(self, driver: str) -> Standing:
        """For what runs under `driver`; no lease for one that is not there."""
        taking = self._takings.get(driver)
        return standing(taking.counting, self._clock.boottime_s()) if taking is not None else NO_LEASE

    def without_since_ms(self, driver: str) -> int:
        """Wall clock, milliseconds: from when on there is no lease for what runs under `driver`."""
        return self._takings[driver].since_ms

    def problems(self) -> dict[str, str]:
        """Of drivers that fence: why one cannot be relied on to end what runs there without a lease."""
        now_s = self._clock.boottime_s()
        found: dict[str, str] = {}
        for name, taking in self._takings.items():
            if not self._drivers[name].info.fences:
                continue
            if taking.failing and not standing(taking.counting, now_s).may_run:
                taking.bad_s = now_s
            if taking.bad_s is not None and now_s - taking.bad_s < TRUST_S:
                found[name] = taking.failure
        return found

    async def held_ttl_s(self) -> float:
        """The time to live of the longest lease that may still be in effect here, whoever of us took it."""
        now_s = self._clock.boottime_s()
        fencing = [(name, driver) for name, driver in self._drivers.items() if driver.info.fences]
        told = await asyncio.gather(*(self._held_by(name, driver) for name, driver in fencing))
        best = self._book.best
        found = [best.ttl_s] if best is not None and now_s < best.ends_s else []
        found += [lease.ttl_s for lease in told if isinstance(lease, Lease) and now_s < lease.ends_s]
        if not fencing or any(isinstance(lease, str) or (lease is not None and not lease.ttl_s) for lease in told):
            found.append(self._book.held_ttl_s(now_s))
        return max(found, default=0.0)

    async def _held_by(self, name: str, driver: HostDriver) -> Lease | str | None:
        """What the driver holds, or why it cannot tell; then it cannot be relied on either."""
        try:
            async with asyncio.timeout(self._renew_timeout_s):
                return await driver.held()
        except TimeoutError:
            failure = f"no answer within {self._renew_timeout_s:g} s"
        except DriverError as error:
            failure = f"{error.code}: {error.message}"
        except Exception as error:
            log.exception("a driver failed to tell the lease that it holds", driver=name)
            failure = f"{type(error).__name__}: {error}"
        self._note_failure(name, failure)
        return failure

    # -- putting it into effect

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            granted = self._book.best
            if granted is not None:
                await self._put_in_effect(granted)

    async def _put_in_effect(self, granted: Granted) -> None:
        try:
            await asyncio.to_thread(self._file.write, self._book.held)
        except OSError as error:
            for name in self._drivers:
                self._note_failure(name, f"state_dir: {error}")
            return
        await asyncio.gather(*(self._renew(name, driver, granted) for name, driver in self._drivers.items()))

    async def _renew(self, name: str, driver: HostDriver, granted: Granted) -> None:
        if granted == self._takings[name].counting:
            return
        try:
            async with asyncio.timeout(self._renew_timeout_s):
                await driver.renew(Lease(ends_s=granted.ends_s, grace_s=granted.grace_s, ttl_s=granted.ttl_s))
        except TimeoutError:
            self._note_failure(name, f"no answer within {self._renew_timeout_s:g} s")
        except DriverError as error:
            self._note_failure(name, f"{error.code}: {error.message}")
        except Exception as error:
            log.exception("a driver failed to take the lease", driver=name)
            self._note_failure(name, f"{type(error).__name__}: {error}")
        else:
            self._note_taken(name, granted)

    def _note_taken(self, name: str, granted: Granted) -> None:
        taking, before = self._takings[name], self.standing(name)
        taking.counting, taking.failing = granted, False
        taking.since_ms = self._clock.now_ms() + round((granted.ends_s - self._clock.boottime_s()) * 1000)
        if (before.may_run, before.shut_down) != (True, False):
            self._on_change()

    def _note_failure(self, name: str, failure: str) -> None:
        log.error("a driver takes no lease: what needs one is not let run there", driver=name, reason=failure)
        taking = self._takings[name]
        taking.failing, taking.failure = True, failure
