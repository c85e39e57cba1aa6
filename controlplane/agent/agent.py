"""The agent, put together: state directory, drivers, runner, session. MicroVMs outlive it, however it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from controlplane.agent.answers import Answers
from controlplane.agent.bids import Reservations
from controlplane.agent.inventory import PROC, Capacity, Meter, boot_id, capacity_of
from controlplane.agent.lease import HostLease
from controlplane.agent.pacing import Pacing
from controlplane.agent.runner import Runner, RunnerLimits
from controlplane.agent.session import HostFacts, SessionClient
from controlplane.agent.settings import AgentSettings, AgentSettingsError
from controlplane.agent.statedir import StateDir
from controlplane.ports import Clock, DriverError, HostDriver, Ids


class DriverStartError(Exception):
    """A driver could not be opened; the message names it."""


class Agent:
    """One host's agent. `drivers` by the name that a spec's `provider` may ask for."""

    def __init__(
        self,
        settings: AgentSettings,
        drivers: Mapping[str, HostDriver],
        clock: Clock,
        ids: Ids,
        *,
        proc: Path = PROC,
        rng: random.Random | None = None,
    ) -> None:
        """`proc` is where the kernel says what the host has; `rng` spreads what many agents would do at once.

        Raises AgentSettingsError.
        """
        if not drivers:
            raise AgentSettingsError("drivers: is empty; a host needs at least one")
        self._default_driver = settings.default_driver or next(iter(drivers))
        if self._default_driver not in drivers:
            known = ", ".join(sorted(drivers))
            raise AgentSettingsError(f"default_driver: {self._default_driver!r} is not one of {known}")
        self._settings = settings
        self._drivers = dict(drivers)
        self._clock = clock
        self._ids = ids
        self._proc = proc
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._session: SessionClient | None = None

    @property
    def node(self) -> str | None:
        """The node that the agent has a session at, if any."""
        return self._session.node if self._session is not None else None

    async def run(self) -> None:
        """Until cancelled, which touches no microVM.

        Raises StateDirError, JournalError, DriverStartError or InventoryError before anything was done to the host, and
        JournalError or StateDirError later when the disk takes no more records.
        """
        state_dir = StateDir.open(self._settings.state_dir)
        try:
            await self._run(state_dir)
        except ExceptionGroup as group:
            raise _first(group) from group
        finally:
            state_dir.close()

    async def _run(self, state_dir: StateDir) -> None:
        settings = self._settings
        rng = self._rng
        boot = boot_id(self._proc)
        capacity = capacity_of(
            Capacity(
                vcpu=settings.vcpu,
                memory_in_mb=settings.memory_in_mb,
                microvms=settings.microvms,
                vcpu_per_cpu=settings.vcpu_per_cpu,
                reserved_memory_in_mb=settings.reserved_memory_in_mb,
            ),
            self._proc,
        )
        lease = HostLease(
            drivers=self._drivers,
            file=state_dir.held(boot),
            clock=self._clock,
            on_change=lambda: runner.wake(),  # noqa: PLW0108 - made below
            renew_timeout_s=settings.renew_timeout_s,
        )
        runner = Runner(
            host=settings.host,
            drivers=self._drivers,
            default_driver=self._default_driver,
            capacity=capacity,
            journal=state_dir.journal(),
            clock=self._clock,
            pacing=Pacing(settings.backoff, rng),
            limits=RunnerLimits(
                concurrency=settings.concurrency,
                resync_s=settings.resync_s,
                call_timeout_s=settings.driver_timeout_s,
                grace_s=settings.grace_s,
            ),
            lease=lease,
        )
        meter = Meter(self._proc)
        started: list[HostDriver] = []
        try:
            for name, driver in self._drivers.items():
                try:
                    await driver.start()
                except DriverError as error:
                    raise DriverStartError(f"driver {name}: {error.code}: {error.message}") from error
                started.append(driver)
            self._session = SessionClient(
                settings=settings,
                facts=HostFacts(boot_id=boot, drivers=self._drivers, capacity=capacity),
                state_dir=state_dir,
                runner=runner,
                lease=lease,
                answers=Answers(
                    host=settings.host,
                    capacity=capacity,
                    drivers=self._drivers,
                    default_driver=self._default_driver,
                    runner=runner,
                    reservations=Reservations(settings.reservation_s),
                    meter=meter,
                    clock=self._clock,
                ),
                meter=meter,
                clock=self._clock,
                ids=self._ids,
                rng=rng,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(lease.run())
                group.create_task(runner.run())
                group.create_task(self._session.run())
        finally:
            self._session = None
            for driver in started:
                await driver.stop()


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The error inside nested groups that came first: one loop's failure cancels the others."""
    first = group.exceptions[0]
    return _first(cast("ExceptionGroup[Exception]", first)) if isinstance(first, ExceptionGroup) else first
