"""A simulated host: its guests, and the watchdog that ends their right to run.

What runs here, and since when, is the truth that the checker looks at; no agent, node or log has a say in it. The
watchdog is a process of its own, as in `drivers.qemu`, and decides what that one decides, by the same functions: which
lease counts, and what is halted or killed when it ends. It looks at the clock as often, and starts what needs a lease
only while there is one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from simulation.cluster.loop import Machine, Process, VirtualLoop

from controlplane.drivers.qemu.watchdog import TICK_S, Right, verdict
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import OnDetach, detach_action
from controlplane.ports import LEASE_ENDED, Lease, VMDefinition


@dataclass(eq=False)
class Guest:
    native_id: str
    vm: VMDefinition | None
    """None of one that somebody started by hand."""
    power: ObservedPower = ObservedPower.STOPPED
    cause: str | None = None
    generation: int = 0
    """Of the definition that the present run was started from."""
    vcpu: int = 1
    memory_in_mb: int = 128

    @property
    def action(self) -> OnDetach:
        return detach_action(self.vm.spec) if self.vm is not None else OnDetach.KEEP


class Watchdog:
    """One life of it."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self.process = Process(host.loop, host.machine, f"{host.name}/watchdog")
        self._since_s = host.machine.boottime_s()
        self._armed = 0
        self.process.post(self._look)

    def take(self, lease: Lease, reply: Callable[[bool], None]) -> None:
        """A renewal counts from here on, and what the last lease's end paused goes on."""
        host = self._host
        told = {"ends": lease.ends_s, "grace": lease.grace_s, "ttl": lease.ttl_s}
        host.held = Right.renewed(host.held, told, host.machine.boottime_s())
        if self._is_live():
            for guest in list(host.guests.values()):
                if guest.power is ObservedPower.PAUSED and guest.cause == LEASE_ENDED:
                    host.change(guest, ObservedPower.RUNNING, None)
        self._look()
        reply(True)

    def guard(self, reply: Callable[[bool], None]) -> None:
        """What is guarded may be another by now."""
        self._look()
        reply(True)

    def go(self, guest: Guest, reply: Callable[[bool], None]) -> None:
        """Start or resume what may run only under a lease; False when there is none."""
        live = self._is_live()
        if live:
            self._host.change(guest, ObservedPower.RUNNING, None)
            self._look()
        reply(live)

    def _is_live(self) -> bool:
        held = self._host.held
        return held is not None and self._host.machine.boottime_s() < held.ends

    def _look(self) -> None:
        host = self._host
        now_s = host.machine.boottime_s()
        due_s = math.inf
        for guest in list(host.guests.values()):
            if guest.action is OnDetach.KEEP or guest.power is ObservedPower.STOPPED:
                continue
            action = "pause" if guest.action is OnDetach.PAUSE else "stop"
            what, until_s = verdict(host.held, action, self._since_s, now_s)
            due_s = min(due_s, until_s)
            if what == "kill":
                host.change(guest, ObservedPower.STOPPED, LEASE_ENDED)
            elif what == "halt" and guest.power is ObservedPower.RUNNING:
                host.change(guest, ObservedPower.PAUSED, LEASE_ENDED)
        self._armed += 1
        if due_s < math.inf:
            late_s = host.machine.chance.uniform(0.0, TICK_S)
            self.process.post_after((due_s - now_s + late_s) / host.machine.rate, self._alarm, self._armed)

    def _alarm(self, armed: int) -> None:
        if armed == self._armed:
            self._look()


@dataclass(eq=False)
class SimulatedHost:
    name: str
    loop: VirtualLoop
    machine: Machine
    directory: Path
    seen: Counter[str]
    told: Callable[[SimulatedHost, Guest], None]
    """Called whenever the power of a guest changed."""
    vcpu: int = 8
    memory_in_mb: int = 4096
    on: bool = True
    failing: float = 0.0
    """The share of the driver's orders that fail, done or not done."""
    guests: dict[str, Guest] = field(default_factory=dict[str, Guest])
    """By native id."""
    held: Right | None = None
    """What the watchdog has written down, of this boot."""
    watchdog: Watchdog | None = None
    wakers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def __post_init__(self) -> None:
        self.proc = self.directory / "proc"
        total, available = self.memory_in_mb * 1024, self.memory_in_mb * 512
        self.kernel_says = {
            f"{self.proc}/stat": b"cpu 100 0 100 10000 0 0 0 0 0 0\n",
            f"{self.proc}/meminfo": b"MemTotal: %d kB\nMemAvailable: %d kB\n" % (total, available),
        }
        """The files of /proc that an agent reads, by path."""
        self._give_boot_id()

    def _give_boot_id(self) -> None:
        boot_id = f"{self.name}-boot-{self.machine.boots}\n"
        self.kernel_says[f"{self.proc}/sys/kernel/random/boot_id"] = boot_id.encode()

    def running(self) -> Iterator[Guest]:
        for guest in self.guests.values():
            if guest.power is ObservedPower.RUNNING:
                yield guest

    def change(self, guest: Guest, power: ObservedPower, cause: str | None) -> None:
        if guest.power is power and guest.cause == cause:
            return
        guest.power, guest.cause = power, cause
        if cause == LEASE_ENDED:
            self.seen["guest halted at the end of a lease" if power is ObservedPower.PAUSED else "guest killed"] += 1
        self.told(self, guest)
        self.wake()

    def wake(self) -> None:
        for waker in self.wakers:
            waker()

    def start_watchdog(self) -> None:
        if self.watchdog is not None:
            self.watchdog.process.kill()
        self.watchdog = Watchdog(self)

    def crash_guest(self, guest: Guest) -> None:
        self.change(guest, ObservedPower.STOPPED, "process exited (signal 9)")

    def lose_power(self) -> None:
        """Everything that runs is gone; what was defined is on the disk."""
        self.on = False
        if self.watchdog is not None:
            self.watchdog.process.kill()
            self.watchdog = None
        for guest in self.guests.values():
            if guest.power is not ObservedPower.STOPPED:
                cause = "the host was restarted" if guest.action is OnDetach.KEEP else LEASE_ENDED
                self.change(guest, ObservedPower.STOPPED, cause)
        self.held = None

    def boot(self) -> None:
        self.on = True
        self.machine.boot()
        self._give_boot_id()
