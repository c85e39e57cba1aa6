"""Many hosts lost and regained, in virtual time: what the leader's parts take for them, and how long it all lasts.

    python -m tests.bench.bench_lost_hosts [--hosts 10000] [--lost 100] [--off-s 120]

Real are the machine with every command encoded, decoded and applied, the replica, the ledger and the keeper of leases,
the watch of hosts, failover with its breaker, and the scheduler; the log is a list in memory, commits at once and
begins with the leader elected. An agent is as light as can be: it asks for a lease once a second, as one of a batch
that its node would relay, confirms what is placed on it, and after its return what was given up there. Each host holds
one microVM that is restarted elsewhere. Some hosts fall silent in one moment and come back later. Times are virtual;
CPU seconds are those of this process, of which the agents' part is small.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import structlog
from simulation.cluster.ids import SeededIds
from simulation.cluster.loop import Machine, VirtualLoop
from support.builders import (
    agent_connected,
    declare_host,
    declare_microvm,
    declare_namespace,
    observation,
    place,
    report,
)

from controlplane.decide.breaker import FailoverLimits
from controlplane.model.commands import Destroyed
from controlplane.model.resources import Bid, Host, HostPhase, MicroVM, MicroVMPhase
from controlplane.model.spec import HostFailure, Recovery
from controlplane.ports import (
    BidRequestItem,
    Committed,
    CompactedError,
    Heartbeat,
    HostUnreachableError,
    Led,
    LogStatus,
    Position,
    Reign,
)
from controlplane.reconcile.failover import FailoverRunner
from controlplane.reconcile.hostwatch import HostWatch
from controlplane.reconcile.leases import LeaseKeeper
from controlplane.reconcile.ledger import Ledger
from controlplane.reconcile.scheduler import Scheduler
from controlplane.replica import Replica
from controlplane.settings import LeaseSettings

BATCHES = 10
"""Heartbeats come in so many groups a second."""
CALM_S = 20.0
PATIENCE_S = 900.0


class MemoryLog:
    """Implements `ports.Log`, as the leader of term 1 has it."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.size = 0
        self._grown = asyncio.Event()

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        self.entries.append(entry)
        self.size += len(entry)
        self._grown.set()
        self._grown = asyncio.Event()
        return Position(len(self.entries), 1)

    async def confirm_leadership(self, *, timeout_s: float) -> Led:
        return Led(len(self.entries), Reign(1, 1))

    async def read_index(self, *, timeout_s: float) -> int:
        return len(self.entries)

    async def follow(self, after: int) -> AsyncGenerator[Committed]:
        while True:
            while after < len(self.entries):
                after += 1
                yield Committed(after, 1, self.entries[after - 1])
            await self._grown.wait()

    async def status(self) -> LogStatus:
        index = len(self.entries)
        return LogStatus(
            node="n1",
            role="leader",
            leader="n1",
            term=1,
            last_index=index,
            commit_index=index,
            applied_index=index,
            entry_index=index,
            has_quorum=True,
            fsync="never",
            state_hash="",
            state_hash_index=index,
            snapshot_index=0,
            log_bytes=self.size,
            peers=(),
            incarnation=1,
        )


@dataclass
class Loss:
    """Seconds after a host fell silent."""

    phases: dict[str, float] = field(default_factory=dict[str, float])
    placed_s: float | None = None
    """Its microVM runs elsewhere."""


class Fleet:
    """The hosts and their agents. Also `ports.AgentLink`, as far as the scheduler uses it."""

    def __init__(self, replica: Replica, keeper: LeaseKeeper, loop: VirtualLoop, hosts: int) -> None:
        self._replica = replica
        self._keeper = keeper
        self._loop = loop
        self.names = [f"h{number:05}" for number in range(hosts)]
        self.off: set[str] = set()
        self.sessions: dict[str, str] = {}
        self.lost_at_s = 0.0
        self.losses: dict[str, Loss] = {}

    # -- AgentLink -----------------------------------------------------------------------------------------------------

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        if host in self.off:
            raise HostUnreachableError(f"{host} has no session")
        held = self._replica.state.hosts[host].allocated.vcpu
        return {item.uid: Bid(host=host, score=held / 8, parts={"load": held / 8}) for item in items}

    # -- agents --------------------------------------------------------------------------------------------------------

    async def found(self) -> None:
        replica = self._replica
        await replica.propose(declare_namespace(), actor="user")
        await replica.propose_each([declare_host(name) for name in self.names], actor="user")
        await self.connect(self.names)
        recovery = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
        await replica.propose_each(
            [declare_microvm(name, uid=f"vm-{name}", recovery=recovery) for name in self.names], actor="user"
        )
        vms = [replica.state.microvms[f"vm-{name}"] for name in self.names]
        await replica.propose_each([place(vm, name) for vm, name in zip(vms, self.names, strict=True)], actor="user")

    async def connect(self, names: Sequence[str]) -> None:
        number = int(self._loop.now_s * 1000)
        self.sessions.update({name: f"{name}-{number}" for name in names})
        await self._replica.propose_each(
            [agent_connected(name, session=self.sessions[name]) for name in names], actor="gateway"
        )

    async def beat(self) -> None:
        """Heartbeats, for ever: a tenth of the hosts every tenth of a second."""
        sequence = 0
        while True:
            for batch in range(BATCHES):
                due = [name for name in self.names[batch::BATCHES] if name not in self.off]
                asked = [Heartbeat(name, self.sessions[name], sequence) for name in due if name in self.sessions]
                await self._keeper.grant(asked, timeout_s=1.0)
                await asyncio.sleep(1 / BATCHES)
            sequence += 1

    async def obey(self) -> None:
        """Do at once what is placed, and note when things happened; for ever."""
        while True:
            try:
                async for event in self._replica.watch(None):
                    if isinstance(event.object, MicroVM):
                        await self.confirm(event.object)
                    elif isinstance(event.object, Host) and event.object.meta.name in self.losses:
                        phases = self.losses[event.object.meta.name].phases
                        phases.setdefault(event.object.phase.value, self._loop.now_s - self.lost_at_s)
            except CompactedError:
                continue

    async def confirm(self, vm: MicroVM) -> None:
        if vm.phase is not MicroVMPhase.PLACED or vm.placement is None or vm.placement.host in self.off:
            return
        host = vm.placement.host
        told = report(observation(vm), host=host, session=self.sessions[host])
        await self._replica.propose(told, actor="agent")
        loss = self.losses.get(vm.meta.name)
        if loss is not None and loss.placed_s is None and host != vm.meta.name:
            loss.placed_s = self._loop.now_s - self.lost_at_s

    # -- losses --------------------------------------------------------------------------------------------------------

    def lose(self, names: Sequence[str]) -> None:
        self.lost_at_s = self._loop.now_s
        self.losses = {name: Loss() for name in names}
        self.off.update(names)

    async def regain(self, names: Sequence[str]) -> None:
        await self.connect(names)
        self.off.difference_update(names)
        hosts = self._replica.state.hosts
        told = [
            report(
                host=name,
                session=self.sessions[name],
                destroyed=[Destroyed(uid=uid, epoch=epoch) for uid, epoch in sorted(hosts[name].stale.items())],
                rejoined=hosts[name].phase is HostPhase.REJOINING,
            )
            for name in names
        ]
        await self._replica.propose_each(told, actor="agent")

    def is_whole(self) -> bool:
        """Every host is ready, and every microVM is confirmed."""
        state = self._replica.state
        ready = all(host.phase is HostPhase.READY for host in state.hosts.values())
        return ready and all(vm.phase is MicroVMPhase.ACTIVE for vm in state.microvms.values())


async def _comes(fleet: Fleet, loop: VirtualLoop) -> float:
    began_s = loop.now_s
    while not fleet.is_whole():
        if loop.now_s - began_s > PATIENCE_S:
            raise SystemExit(f"not whole after {PATIENCE_S:g} virtual s")
        await asyncio.sleep(1.0)
    return loop.now_s - began_s


def _spread(what: str, values: Sequence[float], of: int) -> None:
    if values:
        ranked = sorted(values)
        median, p99 = statistics.median(ranked), ranked[min(len(ranked) - 1, round(0.99 * len(ranked)))]
        print(f"  {what:10} {len(values):6,} of {of:,}: median {median:.1f}, p99 {p99:.1f}, max {ranked[-1]:.1f}")


async def measure(loop: VirtualLoop, machine: Machine, hosts: int, lost: int, off_s: float) -> None:
    log, ledger, lease = MemoryLog(), Ledger(), LeaseSettings()
    replica = Replica(log, cluster_id="bench", clock=machine, ids=SeededIds(machine))
    keeper = LeaseKeeper(replica, machine, ledger, lease)
    fleet = Fleet(replica, keeper, loop, hosts)
    watch = HostWatch(replica, replica, machine, ledger, reign=lambda: replica.reign, lease=lease)
    failover = FailoverRunner(replica, replica, machine, leading_term=lambda: 1, limits=FailoverLimits())
    scheduler = Scheduler(replica, replica, fleet, lambda: replica.is_leader)  # pyright: ignore[reportArgumentType]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(replica.run())]
        await asyncio.sleep(1.0)
        await fleet.found()
        running += [tasks.create_task(each) for each in (watch.run(), failover.run(), scheduler.run(), fleet.obey())]
        await asyncio.sleep(0.5)
        running.append(tasks.create_task(fleet.beat()))
        vms = list(replica.state.microvms.values())
        for vm in vms:
            await fleet.confirm(vm)
        await _comes(fleet, loop)

        began_s = time.process_time()
        await asyncio.sleep(CALM_S)
        calm_s = (time.process_time() - began_s) / CALM_S
        print(f"{hosts:,} hosts, all well: {calm_s / hosts * 1e6:.1f} µs of CPU per host and second")

        gone = fleet.names[:: max(1, hosts // lost)][:lost]
        began_s, size = time.process_time(), log.size
        fleet.lose(gone)
        await asyncio.sleep(off_s)
        spent_s = time.process_time() - began_s - off_s * calm_s
        print(f"{lost:,} of them lost at one moment, in virtual seconds after it:")
        for phase in (HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED):
            _spread(phase.value, [each.phases[phase] for each in fleet.losses.values() if phase in each.phases], lost)
        _spread("elsewhere", [each.placed_s for each in fleet.losses.values() if each.placed_s is not None], lost)
        log_kib = (log.size - size) / lost / 1024
        print(f"  beyond that of calm: {spent_s / lost * 1e3:.1f} ms of CPU, {log_kib:.1f} KiB of log per lost host")

        began_s = time.process_time()
        await fleet.regain(gone)
        took_s = await _comes(fleet, loop)
        spent_s = time.process_time() - began_s - took_s * calm_s
        print(f"regained after {off_s:g} s: whole in {took_s:.0f} s, {spent_s / lost * 1e3:.1f} ms of CPU per host")
        for task in running:
            task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--lost", type=int, default=100, help="at one moment")
    parser.add_argument("--off-s", type=float, default=120.0, help="how long, in virtual seconds")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    loop = VirtualLoop()
    asyncio.set_event_loop(None)
    loop.run_until_complete(measure(loop, Machine(loop, "n1", 1), options.hosts, options.lost, options.off_s))


if __name__ == "__main__":
    main()
