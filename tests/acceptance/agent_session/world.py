"""Nodes and agents over loopback with mutual TLS, around one replica: the real machine and the simulated driver."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from support.builders import declare_host, declare_microvm, declare_namespace, place
from support.harness import Replica
from support.leases import FakeKeeper

from controlplane.agent import Agent, AgentSettings
from controlplane.agent.pacing import Backoff
from controlplane.api.gateway import Gateway
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles
from controlplane.machine.convergence import is_settled
from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Command
from controlplane.model.resources import MicroVM
from controlplane.ports import Contact, NoLeaderError
from controlplane.ports import NodeView as Belief
from controlplane.ports.issuance import Issuer
from controlplane.system import SystemClock, Ulids

WAIT_S = 15.0


class NodeView:
    """One node's sight of the shared replica, which can be cut off from it alone."""

    def __init__(self, replica: Replica, node: str) -> None:
        self._replica = replica
        self._node = node
        self._frozen: State | None = None

    def cut(self) -> None:
        self._frozen = self._replica.state

    @property
    def state(self) -> State:
        return self._frozen or self._replica.state

    @property
    def caught_up(self) -> bool:
        return self._frozen is None and self._replica.caught_up

    @property
    def contact(self) -> Contact:
        if self._frozen is None:
            return replace(self._replica.contact, node=self._node)
        alone = replace(self._replica.contact, leader=None, hears=(), misses=("n2", "n3"))
        return replace(alone, node=self._node, role="candidate")

    @property
    def begun(self) -> bool:
        return self._replica.begun

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        return await self._replica.fresh(timeout_s=timeout_s)

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        return await self._replica.until(condition, timeout_s=timeout_s)

    def watch(self, after: int | None) -> AsyncIterator[Event]:
        return self._replica.watch(after)

    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        if self._frozen is not None:
            raise NoLeaderError("no leader")
        return await self._replica.propose(command, actor=actor, key=key, timeout_s=timeout_s)

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        return await self._replica.propose_each(commands, actor=actor, timeout_s=timeout_s)


@dataclass
class Cluster:
    """Nodes that share one level replica, and agents that dial them."""

    directory: Path
    replica: Replica
    authority: Authority
    ports: dict[str, int]
    views: dict[str, NodeView] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    drivers: dict[str, SimulatedDriver] = field(default_factory=dict)
    certificates: dict[str, TlsFiles] = field(default_factory=dict)
    keepers: dict[str, FakeKeeper] = field(default_factory=dict)
    leader: str | None = "n1"
    issuer: Issuer | None = None
    """Of every node that is started from then on."""

    # -- parts

    @property
    def addresses(self) -> dict[str, str]:
        return {node: f"127.0.0.1:{port}" for node, port in self.ports.items()}

    def certificate(self, kind: str, name: str) -> TlsFiles:
        key = f"{kind}-{name}"
        if key not in self.certificates:
            issue = self.authority.issue_node if kind == "node" else self.authority.issue_host
            self.certificates[key] = issue(name, self.directory / key)
        return self.certificates[key]

    async def start_node(self, node: str) -> Gateway:
        self.views[node] = NodeView(self.replica, node)
        self.keepers[node] = FakeKeeper(leads=node == self.leader)
        gateway = Gateway(
            node=node,
            cluster_id="test",
            reader=self.views[node],
            proposer=self.views[node],
            ids=Ulids(),
            clock=SystemClock(),
            nodes=lambda: self.addresses,
            tls=self.certificate("node", node),
            listen=self.addresses[node],
            keeper=self.keepers[node],
            leader=lambda: self.leader,
            lease_ttl_s=10.0,
            view=lambda: Belief(contact=self.views[node].contact, revision=self.replica.state.revision),
            issuer=self.issuer,
        )
        await gateway.start()
        self.gateways[node] = gateway
        return gateway

    async def stop_node(self, node: str) -> None:
        await self.gateways.pop(node).stop()

    def settings(self, host: str = "h1", **changes: object) -> AgentSettings:
        settings = AgentSettings(
            host=host,
            state_dir=self.directory / host,
            endpoints=self.addresses,
            tls=self.certificate("host", host),
            vcpu=1000,
            memory_in_mb=1_000_000,
            heartbeat_s=0.1,
            unresponsive_s=1.0,
            connect_timeout_s=3.0,
            reconnect_base_s=0.02,
            reconnect_cap_s=0.2,
            complete_report_s=1.0,
            resync_s=0.5,
            grace_s=0.0,
            backoff=Backoff(base_s=0.02, cap_s=0.2, permanent_s=0.3),
        )
        return replace(settings, **changes)

    def simulated_dir(self, host: str = "h1") -> Path:
        return self.directory / f"{host}-simulated"

    def start_agent(self, host: str = "h1", **changes: object) -> None:
        self.drivers[host] = SimulatedDriver(self.simulated_dir(host), poll_s=0.05)
        agent = Agent(self.settings(host, **changes), {"simulated": self.drivers[host]}, SystemClock(), Ulids())
        self.agents[host] = agent
        self.tasks[host] = asyncio.create_task(agent.run())

    async def stop_agent(self, host: str = "h1") -> None:
        task = self.tasks.pop(host)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        for host in tuple(self.tasks):
            await self.stop_agent(host)
        for node in tuple(self.gateways):
            await self.stop_node(node)

    # -- what happens

    async def connected(self, host: str = "h1") -> None:
        await self.reaches(lambda: host in self.agents and self.agents[host].node is not None)

    async def declared(self, *hosts: str) -> None:
        await self.replica.accept(declare_namespace())
        for host in hosts or ("h1",):
            await self.replica.accept(declare_host(host))

    async def place(self, name: str = "web", *, host: str = "h1", **spec: object) -> MicroVM:
        await self.replica.accept(declare_microvm(name, **spec))
        await self.replica.accept(place(self.vm(name), host))
        return self.vm(name)

    def boot_id(self, host: str = "h1") -> str:
        """Of the host as it is connected: while it may have a lease, no other boot of it is let in."""
        inventory = self.replica.state.hosts[host].inventory
        assert inventory is not None
        return inventory.boot_id

    async def settled(self, name: str = "web") -> MicroVM:
        await self.reaches(lambda: is_settled(self.vm(name)))
        return self.vm(name)

    def vm(self, name: str = "web") -> MicroVM:
        found = self.replica.state.microvm("demo", name)
        assert found is not None
        return found

    def gone(self, name: str = "web") -> bool:
        return self.replica.state.microvm("demo", name) is None

    async def reaches(self, condition: Callable[[], bool]) -> None:
        for task in self.tasks.values():
            assert not task.done(), task
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, self.describe()
            await asyncio.sleep(0.01)

    def describe(self) -> str:
        state = self.replica.state
        vms = [(vm.meta.name, vm.phase.value, vm.epoch, vm.observed) for vm in state.microvms.values()]
        hosts = [(host.meta.name, host.phase.value, host.node, host.unmanaged) for host in state.hosts.values()]
        tasks = [task for task in self.tasks.values() if task.done()]
        return f"not reached within {WAIT_S} s; microVMs {vms[:5]}, hosts {hosts}, ended {tasks}"

    async def tamper(self, *arguments: str, host: str = "h1") -> None:
        """Change something behind the agent's back, from another process."""
        command, *rest = arguments
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "controlplane.drivers.simulated",
            command,
            "--state-dir",
            str(self.simulated_dir(host)),
            *rest,
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await asyncio.wait_for(process.communicate(), WAIT_S)
        assert process.returncode == 0, error
