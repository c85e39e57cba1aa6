"""A simulated node: its raft process and its front process, composed of the real parts as `bootstrap` composes them."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING

from simulation.cluster.ids import SeededIds
from simulation.cluster.link import LogLink
from simulation.cluster.loop import Machine, Process
from simulation.raft.disk import SimulatedDisk

from controlplane.api.gateway import Gateway
from controlplane.consensus import RaftNode, RaftSettings
from controlplane.consensus.errors import ConsensusError
from controlplane.decide.breaker import FailoverLimits
from controlplane.ports import NodeView
from controlplane.reconcile.evacuation import EvacuationRunner
from controlplane.reconcile.failover import FailoverRunner
from controlplane.reconcile.gc import GCRunner
from controlplane.reconcile.groups import GroupRunner
from controlplane.reconcile.hostwatch import HostWatch
from controlplane.reconcile.leases import LeaseKeeper
from controlplane.reconcile.ledger import Ledger
from controlplane.reconcile.scheduler import Scheduler
from controlplane.replica import Replica
from controlplane.settings import GCSettings, LeaseSettings

if TYPE_CHECKING:
    from simulation.cluster.world import World

CLUSTER = "simulation"
RESTART_S = (0.3, 1.5)
"""How soon the parent starts a process again that ended."""


class NodeDisk(SimulatedDisk):
    """`died` is called soon after its process died inside an operation."""

    def __init__(self, machine: Machine, seen: Counter[str], died: Callable[[], None]) -> None:
        super().__init__(machine.chance, self._spend_time, seen)
        self.process: Process | None = None
        self._died = died

    def _spend_time(self, seconds: float) -> None:
        if self.process is not None:
            self.process.spent_s += seconds

    def _dies(self, operation: str) -> bool:
        dies = super()._dies(operation)
        if dies and (process := self.process) is not None:
            # What is done by now was done; nothing of what the dead process still tries is.
            self.dead = True
            process.stop()
            process.loop.call_soon(self._died, context=Context())
        return dies


class Node:
    """What is the same in all lives of its processes: the machine, the disk and the settings."""

    def __init__(self, world: World, name: str, index: int, directory: Path, raft: dict[str, float]) -> None:
        self.world = world
        self.name = name
        self.machine = Machine(world.loop, name, world.seed)
        self.directory = directory / name / "raft"
        self.gateway = f"127.0.0.1:{2000 + index}"
        self.address = f"127.0.0.1:{1000 + index}"
        self.disk = NodeDisk(self.machine, world.seen, self._died_inside)
        self.raft_tuning = raft
        self.lease = LeaseSettings(fence_s=world.profile.fence_s)
        self.raft: RaftLife | None = None
        self.front: FrontLife | None = None
        self.down = False
        """It is not to be started by itself."""
        self.join = False
        """It begins as nobody, and waits for the members to add it."""
        self.leaving = False
        """It is to be removed: what it learns of that ends it."""

    def settings(self, others: dict[str, str]) -> RaftSettings:
        return RaftSettings(
            node=self.name,
            cluster_id=CLUSTER,
            data_dir=self.directory,
            listen=self.address,
            peers=others,
            join=self.join,
            plaintext_peers_for_tests=True,
            snapshot_entries=int(self.raft_tuning["snapshot_entries"]),
            retain_entries=int(self.raft_tuning["retain_entries"]),
            heartbeat_s=self.raft_tuning["heartbeat_s"],
            election_min_s=self.raft_tuning["election_s"],
            election_max_s=2 * self.raft_tuning["election_s"],
        )

    # -- lives ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        if self.world.restoring or self.world.nodes.get(self.name) is not self:
            return
        self.down = False
        self.start_raft()
        self.start_front()

    def start_raft(self) -> None:
        if not self.down and (self.raft is None or not self.raft.process.alive):
            self.raft = RaftLife(self)

    def start_front(self) -> None:
        if not self.down and (self.front is None or not self.front.process.alive):
            self.front = FrontLife(self)

    def kill(self, *, power: bool) -> None:
        """The whole node ends; with `power`, so does what its disk had not synced."""
        self.down = True
        for life in (self.front, self.raft):
            if life is not None:
                life.process.kill()
                self.world.network.process_ended(life.process, silently=power)
        if power:
            self.disk.lose_power(self.directory)

    def _died_inside(self) -> None:
        """In the middle of an operation of its disk: the raft process alone, or the machine lost its power."""
        if self.raft is not None and self.machine.chance.random() < 0.5:
            self.raft.process.kill()
        else:
            self.kill(power=True)
            self.again(self.start)

    def forget(self) -> None:
        """Its data directory is moved away, for a restore."""
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.disk.forget()

    def serving(self) -> tuple[Process, RaftNode] | None:
        raft = self.raft
        return (raft.process, raft.node) if raft is not None and raft.serving and raft.process.alive else None

    def again(self, start: Callable[[], None]) -> None:
        """The parent starts a process again in a while."""
        loop = self.world.loop
        loop.call_later(self.machine.chance.uniform(*RESTART_S), start, context=Context())


class RaftLife:
    def __init__(self, node: Node) -> None:
        world = node.world
        self._node = node
        self.process = Process(world.loop, node.machine, f"{node.name}/raft")
        self.serving = False
        node.disk.process = self.process
        node.disk.dead = False
        self.process.ended.append(self._ended)
        others = {other.name: other.address for other in world.nodes.values() if other is not node}
        self.state = world.checker.state_of(node.name)
        self.node = RaftNode(node.settings(others), self.state, disk=node.disk, transport=world.switchboard.peers)
        self.process.spawn(self._run())

    def _ended(self) -> None:
        """The kernel closes its files and lets go of its lock."""
        node = self._node
        node.disk.end()
        node.disk.dies_in = node.disk.fails_in = None
        (node.directory / "lock").unlink(missing_ok=True)
        self.serving = False
        node.world.network.process_ended(self.process, silently=False)
        node.again(node.start_raft)

    async def _run(self) -> None:
        try:
            await self.node.start()
            self.serving = True
            await self.node.wait_failed()
        except (ConsensusError, OSError) as error:
            self._node.world.raft_failed(self._node, error)
            self.process.kill()


class FrontLife:
    """See `bootstrap.front`; without the HTTP API, whose part users play."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.process = Process(node.world.loop, node.machine, f"{node.name}/front")
        self.process.ended.append(self._ended)
        self.process.spawn(self._run())

    def _ended(self) -> None:
        node = self._node
        node.world.network.process_ended(self.process, silently=False)
        node.again(node.start_front)

    async def _run(self) -> None:
        node, world, clock = self._node, self._node.world, self._node.machine
        ids = SeededIds(clock)
        self.replica = replica = Replica(LogLink(node.serving), cluster_id=CLUSTER, clock=clock, ids=ids)
        lease = node.lease
        ledger = Ledger()
        keeper = LeaseKeeper(replica, clock, ledger, lease)
        gateway = Gateway(
            node=node.name,
            cluster_id=CLUSTER,
            reader=replica,
            proposer=replica,
            ids=ids,
            clock=clock,
            nodes=lambda: {each.name: each.gateway for each in world.nodes.values()},
            tls=world.tls,
            listen=node.gateway,
            keeper=keeper,
            leader=lambda: replica.leader,
            lease_ttl_s=lease.ttl_s,
            view=lambda: NodeView(contact=replica.contact, revision=replica.state.revision, waits_s=watch.waits_s),
        )
        scheduler = Scheduler(replica, replica, gateway.link, lambda: replica.is_leader)
        watch = HostWatch(replica, replica, clock, ledger, reign=lambda: replica.reign, lease=lease)

        def leading_term() -> int | None:
            return replica.reign.term if replica.reign is not None else None

        evacuation = EvacuationRunner(replica, replica, gateway.link, lambda: replica.is_leader)
        failover = FailoverRunner(replica, replica, clock, leading_term=leading_term, limits=FailoverLimits())
        collector = GCRunner(
            replica, replica, clock, is_leader=lambda: replica.is_leader, settings=GCSettings(), refused=Counter()
        )
        groups = GroupRunner(replica, replica, clock, ids, is_leader=lambda: replica.is_leader)
        try:
            async with asyncio.TaskGroup() as tasks:
                runners = (scheduler.run(), failover.run(), evacuation.run(), collector.run(), groups.run())
                for runner in (replica.run(), *runners):
                    tasks.create_task(runner)
                await gateway.start()
                tasks.create_task(watch.run())
        except ExceptionGroup as group:
            world.front_failed(node, group)
            self.process.kill()
