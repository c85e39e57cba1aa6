"""A host's agent process: the real agent over the simulated driver, its files on a real file system in memory."""

from __future__ import annotations

import random
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING

from simulation.cluster.driver import SimulatedHostDriver
from simulation.cluster.host import SimulatedHost
from simulation.cluster.ids import SeededIds
from simulation.cluster.loop import Process
from simulation.cluster.node import CLUSTER

from controlplane.agent import Agent, AgentSettings
from controlplane.agent.statedir import LOCK

if TYPE_CHECKING:
    from simulation.cluster.world import World

RESTART_S = (0.5, 2.0)


class AgentHost:
    """What is the same in all lives of the agent."""

    def __init__(self, world: World, host: SimulatedHost) -> None:
        self.world = world
        self.host = host
        self.process: Process | None = None
        self.down = False
        """It is not to be started by itself."""

    @property
    def _state_dir(self) -> Path:
        return self.host.directory / "agent"

    def start(self) -> None:
        if self.down or not self.host.on or (self.process is not None and self.process.alive):
            return
        world, host = self.world, self.host
        process = self.process = Process(world.loop, host.machine, f"{host.name}/agent")
        process.ended.append(self._ended)
        process.spawn(self._run())

    def _ended(self) -> None:
        """The kernel lets go of its lock, and systemd starts it again."""
        assert self.process is not None
        (self._state_dir / LOCK).unlink(missing_ok=True)
        self.world.network.process_ended(self.process, silently=not self.host.on)
        self.host.wakers.clear()
        loop = self.world.loop
        loop.call_later(self.host.machine.chance.uniform(*RESTART_S), self.start, context=Context())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    async def _run(self) -> None:
        world, machine = self.world, self.host.machine
        settings = AgentSettings(
            host=self.host.name,
            state_dir=self._state_dir,
            endpoints={node.name: node.gateway for node in world.nodes.values()},
            tls=world.tls,
            cluster_id=CLUSTER,
            vcpu=self.host.vcpu,
            memory_in_mb=self.host.memory_in_mb,
            version="simulation",
        )
        driver = SimulatedHostDriver(self.host, world.checker.destroying)
        agent = Agent(
            settings,
            {"simulated": driver},
            machine,
            SeededIds(machine),
            proc=self.host.proc,
            rng=random.Random(machine.chance.getrandbits(64)),
        )
        try:
            await agent.run()
        except Exception as error:
            world.agent_failed(self.host, error)
            assert self.process is not None
            self.process.kill()
