"""Agents and gateways over loopback with mutual TLS, the real machine and the simulated driver."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from grpc import aio
from support.builders import (
    begin_incarnation,
    declare_host,
    declare_microvm,
    declare_namespace,
    detached,
    fenced,
    microvm_spec,
    place,
    resurrect,
)
from support.harness import Replica
from support.leases import FakeKeeper

from controlplane.agent import Agent, AgentSettings
from controlplane.agent.journal import JournalError
from controlplane.agent.pacing import Backoff
from controlplane.agent.statedir import StateDirError
from controlplane.api.gateway import Gateway
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles
from controlplane.machine.convergence import differences, is_confirmed, is_settled
from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Act, Action, AgentLost, Command, Delete, Destroyed, Report
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase, ObservedPower
from controlplane.model.spec import DriftPolicy, HostFailure, PowerState, Recovery
from controlplane.model.types import Kind
from controlplane.ports import BidRequestItem, DriverError, HostUnreachableError, NoLeaderError
from controlplane.system import SystemClock, Ulids
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2_grpc as rpc

WAIT_S = 15.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class NodeView:
    """One node's sight of the shared replica, which can be cut off from it alone."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
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
        self.views[node] = NodeView(self.replica)
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


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    ports = free_ports(2)
    made = Cluster(
        directory=tmp_path,
        replica=Replica(),
        authority=Authority.create(tmp_path / "ca", name="test"),
        ports={"n1": ports[0], "n2": ports[1]},
    )
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def ready(cluster: Cluster) -> Cluster:
    """One node, one host that is declared and connected."""
    await cluster.start_node("n1")
    await cluster.declared()
    cluster.start_agent()
    await cluster.connected()
    return cluster


async def test_a_placed_microvm_is_created_and_settles(ready: Cluster) -> None:
    await ready.place(vcpu=2)
    vm = await ready.settled()
    assert vm.phase is MicroVMPhase.ACTIVE
    assert vm.observed is not None
    assert (vm.observed.power, vm.observed.vcpu, vm.observed.simulated) == (ObservedPower.RUNNING, 2, True)


async def test_changes_travel_by_events_and_not_by_looking_again(ready: Cluster) -> None:
    begun_s = asyncio.get_running_loop().time()
    await ready.place()
    await ready.settled()
    assert asyncio.get_running_loop().time() - begun_s < 3.0, "the gateway looks again every 5 s"


async def test_an_update_and_a_change_of_power_settle(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.replica.accept(declare_microvm(vcpu=4, power_state=PowerState.PAUSED))
    vm = await ready.settled()
    assert vm.observed is not None
    assert (vm.observed.power, vm.observed.vcpu) == (ObservedPower.PAUSED, 4)


async def test_a_restart_is_carried_out_and_confirmed(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.replica.accept(Act(namespace="demo", name="web", action=Action.RESTART))
    vm = await ready.settled()
    assert vm.observed is not None
    assert vm.observed.restart_seq == vm.restart_seq == 1
    _, console = await ready.gateways["n1"].link.console("h1", vm.meta.uid, offset=0, limit=65536, timeout_s=5)
    assert b"stopped on request" in console


async def test_a_tombstone_is_carried_out_and_confirmed(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    await ready.reaches(ready.gone)
    assert await ready.drivers["h1"].list() == ()
    await ready.reaches(lambda: not list((ready.directory / "h1" / "journal").iterdir()))


async def test_an_idle_host_writes_nothing_to_the_log(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    written = len(ready.replica.commands)
    await asyncio.sleep(1.6)  # more than one complete report and three listings
    assert len(ready.replica.commands) == written


async def test_microvms_outlive_the_agent_and_are_found_again(ready: Cluster) -> None:
    before = await ready.place()
    await ready.settled()
    uid = before.meta.uid
    await ready.stop_agent()
    other = SimulatedDriver(ready.simulated_dir())
    await other.start()
    (alone,) = await other.list()
    await other.stop()
    assert alone.power is ObservedPower.RUNNING
    ready.start_agent()
    await ready.connected()
    await ready.replica.accept(declare_microvm(vcpu=3))
    vm = await ready.settled()
    assert vm.meta.uid == uid
    assert vm.epoch == before.epoch
    assert len(await ready.drivers["h1"].list()) == 1


async def test_deleting_while_the_agent_is_away(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.stop_agent()
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    ready.start_agent()
    await ready.reaches(ready.gone)
    assert await ready.drivers["h1"].list() == ()


async def test_a_host_that_nobody_declared_gets_nothing(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    cluster.start_agent()
    await cluster.connected()
    await cluster.reaches(lambda: "h1" in cluster.replica.state.hosts)
    assert not cluster.replica.state.hosts["h1"].declared
    await cluster.declared()
    await cluster.place()
    await cluster.settled()


async def test_a_host_is_told_nothing_before_the_incarnation_has_begun(ready: Cluster) -> None:
    """What the restored state says of it may run elsewhere, and its own lease may be one of the lost history."""
    await ready.place("held")
    held = await ready.settled("held")
    ready.replica.incarnation = 2
    late = await ready.place("late")
    await asyncio.sleep(0.7)  # more than one resync
    assert [each.uid for each in await ready.drivers["h1"].list()] == [held.meta.uid]
    await ready.replica.accept(begin_incarnation())
    # The session ends, and what the next one reports is of what it was assigned.
    await ready.reaches(lambda: ready.replica.state.begun is not None and not ready.replica.state.begun.awaited)
    assert ready.replica.state.hosts["h1"].phase is HostPhase.READY
    assert (await ready.settled("late")).epoch == late.epoch == 1


# -- sessions ----------------------------------------------------------------------------------------------------------


async def test_the_agent_dials_another_node_when_its_own_stops(ready: Cluster) -> None:
    await ready.start_node("n2")
    await ready.place()
    await ready.settled()
    await ready.stop_node("n1")
    await ready.reaches(lambda: ready.agents["h1"].node == "n2")
    await ready.reaches(lambda: ready.replica.state.hosts["h1"].node == "n2")
    await ready.place("second")
    await ready.settled("second")


async def test_the_agent_leaves_a_node_that_is_cut_off_from_the_cluster(ready: Cluster) -> None:
    await ready.start_node("n2")
    ready.views["n1"].cut()
    await ready.place()
    await ready.reaches(lambda: ready.agents["h1"].node == "n2")
    await ready.settled()


async def test_the_agent_leaves_a_node_that_does_not_answer(cluster: Cluster) -> None:
    """The kernel accepts connections to n1 and nobody says anything, as with a stopped process."""
    with socket.create_server(("127.0.0.1", cluster.ports["n1"])):
        await cluster.start_node("n2")
        await cluster.declared()
        cluster.start_agent(connect_timeout_s=0.5)
        await cluster.reaches(lambda: cluster.agents["h1"].node == "n2")


async def test_a_report_whose_outcome_was_lost_is_repeated_without_harm(ready: Cluster) -> None:
    ready.replica.lose_outcomes = 3
    with contextlib.suppress(Exception):
        await ready.replica.propose(declare_microvm(), actor="alice")
    with contextlib.suppress(Exception):
        await ready.replica.propose(place(ready.vm()), actor="alice")
    await ready.settled()
    assert ready.replica.lose_outcomes == 0
    assert len(await ready.drivers["h1"].list()) == 1


async def test_reports_wait_for_a_leader(ready: Cluster) -> None:
    await ready.place()
    ready.replica.leaderless = True
    await ready.tamper("create", "stranger")
    await asyncio.sleep(0.3)
    assert not ready.replica.state.hosts["h1"].unmanaged
    ready.replica.leaderless = False
    await ready.reaches(lambda: bool(ready.replica.state.hosts["h1"].unmanaged))
    await ready.settled()


async def test_a_session_that_is_no_longer_the_hosts_ends_and_a_new_one_begins(ready: Cluster) -> None:
    session = ready.replica.state.hosts["h1"].session
    assert session is not None
    await ready.replica.accept(AgentLost(host="h1", session=session, reason="test"))
    await ready.reaches(lambda: ready.replica.state.hosts["h1"].session not in (None, session))
    await ready.place()
    await ready.settled()


async def test_the_newest_session_of_a_host_is_its_only_one(ready: Cluster) -> None:
    """A second agent with the host's certificate takes over; the first is told goodbye by its node."""
    first = ready.replica.state.hosts["h1"].session
    async with raw_session(ready, "h1", node="n1") as stream:
        await stream.write(hello("h1", session="second", boot_id=ready.boot_id()))
        welcome = await read(stream)
        assert welcome.welcome.node == "n1"
        assert ready.replica.state.hosts["h1"].session == "second"
        await ready.reaches(lambda: ready.replica.state.hosts["h1"].session not in (first, "second"))
        while (message := await read(stream)).WhichOneof("message") != "goodbye":
            assert message.WhichOneof("message") == "assignments"
        assert "another session" in message.goodbye.reason


async def test_an_older_session_cannot_report(ready: Cluster) -> None:
    vm = await ready.place()
    await ready.settled()
    before = ready.replica.state.digest
    outcome = await ready.replica.propose(
        Report(host="h1", session="an-old-one", destroyed=[Destroyed(uid=vm.meta.uid, epoch=vm.epoch)]), actor="x"
    )
    assert outcome.code == "stale"
    assert ready.replica.state.digest == before


def hello(host: str, *, session: str = "s1", **changes: object) -> wire.FromAgent:
    fields: dict[str, object] = {
        "host": host,
        "session": session,
        "agent_version": "0",
        "boot_id": "b",
        "drivers": [wire.Driver(name="simulated", version="1", simulated=True)],
        "capacity": wire.Amount(vcpu=4, memory_in_mb=4096),
        "protocol": 1,
    }
    return wire.FromAgent(hello=wire.Hello(**{**fields, **changes}))


async def read(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]) -> wire.ToAgent:
    message = await asyncio.wait_for(stream.read(), WAIT_S)
    assert isinstance(message, wire.ToAgent), f"the node closed the stream: {await stream.details()}"
    return message


async def read_to_end(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]) -> None:
    while True:
        await read(stream)


def channel(cluster: Cluster, tls: TlsFiles, node: str) -> aio.Channel:
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes())
    return aio.secure_channel(cluster.addresses[node], credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@contextlib.asynccontextmanager
async def raw_session(
    cluster: Cluster, host: str, *, node: str = "n1", tls: TlsFiles | None = None
) -> AsyncIterator[aio.StreamStreamCall[wire.FromAgent, wire.ToAgent]]:
    async with channel(cluster, tls or cluster.certificate("host", host), node) as opened:
        stream = rpc.AgentGatewayStub(opened).Session()
        try:
            yield stream
        finally:
            stream.cancel()


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (hello("h2"), grpc.StatusCode.PERMISSION_DENIED, "hello.host: says 'h2', the certificate is host h1's"),
        (hello("h1", cluster_id="other"), grpc.StatusCode.FAILED_PRECONDITION, "hello.cluster_id: the host belongs"),
        (hello("h1", protocol=7), grpc.StatusCode.INVALID_ARGUMENT, "hello.protocol: 7; this node speaks 1"),
        (hello("h1", session=""), grpc.StatusCode.INVALID_ARGUMENT, "hello.session: missing"),
        (hello("h1", drivers=[]), grpc.StatusCode.INVALID_ARGUMENT, "hello.drivers: 0"),
        (
            hello("h1", held_ttl_ms=3_600_001),
            grpc.StatusCode.INVALID_ARGUMENT,
            "hello.held_ttl_ms: 3600001 is not between 0 and 3600000",
        ),
        (hello("h1", capacity=wire.Amount()), grpc.StatusCode.INVALID_ARGUMENT, "hello.capacity.vcpu: 0"),
        (
            wire.FromAgent(heartbeat=wire.Heartbeat(sequence=1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "hello: missing; it is the first message",
        ),
    ],
)
async def test_a_hello_that_cannot_be_accepted(
    cluster: Cluster, message: wire.FromAgent, code: grpc.StatusCode, says: str
) -> None:
    await cluster.start_node("n1")
    digest = cluster.replica.state.digest
    async with raw_session(cluster, "h1") as stream:
        await stream.write(message)
        with pytest.raises(aio.AioRpcError, match=says) as refused:
            await asyncio.wait_for(stream.read(), WAIT_S)
    assert refused.value.code() is code
    assert cluster.replica.state.digest == digest


async def test_a_report_that_makes_no_sense_ends_the_session_and_names_the_field(ready: Cluster) -> None:
    await ready.stop_agent()
    async with raw_session(ready, "h1") as stream:
        await stream.write(hello("h1", boot_id=ready.boot_id()))
        assert (await read(stream)).HasField("welcome")
        observed = wire.Observed(uid="vm-web", epoch=1, power="levitating")
        await stream.write(wire.FromAgent(report=wire.Report(observed=[observed])))
        with pytest.raises(aio.AioRpcError, match=r"observed.vm-web.power: 'levitating' is not one of"):
            await read_to_end(stream)


async def test_a_node_certificate_opens_no_session(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    async with raw_session(cluster, "h1", tls=cluster.certificate("node", "n2")) as stream:
        # It is refused for what it is; a hello could come too late to be written.
        with pytest.raises(aio.AioRpcError, match="the certificate belongs to node n2, not to a host") as refused:
            await asyncio.wait_for(stream.read(), WAIT_S)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_host_certificate_asks_no_questions(ready: Cluster) -> None:
    async with channel(ready, ready.certificate("host", "h1"), "n1") as opened:
        stub = rpc.NodeRelayStub(opened)
        for call in (
            stub.Presence(wire.PresenceRequest()),
            stub.Ask(wire.AskRequest(host="h1", question=wire.Question(console=wire.ConsoleRequest(uid="x")))),
            stub.Grant(wire.GrantRequest(heard=[wire.Heard(host="h1", session="s", sequence=1)])),
        ):
            with pytest.raises(aio.AioRpcError, match="the certificate belongs to host h1, not to a node") as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_certificate_of_another_authority_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.start_node("n1")
    stranger = Authority.create(tmp_path / "other-ca", name="other").issue_host("h1", tmp_path / "other")
    mixed = replace(stranger, ca=cluster.certificate("host", "h1").ca)
    async with raw_session(cluster, "h1", tls=mixed) as stream:
        with pytest.raises(aio.AioRpcError) as refused:
            await asyncio.wait_for(stream.read(), WAIT_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not cluster.replica.commands


async def test_a_connection_without_a_certificate_is_not_let_in(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    credentials = grpc.ssl_channel_credentials(cluster.certificate("host", "h1").ca.read_bytes())
    async with aio.secure_channel(cluster.addresses["n1"], credentials) as opened:
        with pytest.raises(aio.AioRpcError) as refused:
            await rpc.NodeRelayStub(opened).Presence(wire.PresenceRequest())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_agent_stays_with_its_cluster(ready: Cluster) -> None:
    await ready.stop_agent()
    (ready.directory / "h1" / "cluster-id").write_text("another\n")
    ready.start_agent()
    await asyncio.sleep(0.5)
    assert ready.agents["h1"].node is None


async def test_a_damaged_journal_stops_the_agent_before_it_does_anything(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.stop_agent()
    damaged = ready.directory / "h1" / "journal" / "vm-web.json"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    agent = Agent(ready.settings(), {"simulated": ready.drivers["h1"]}, SystemClock(), Ulids())
    with pytest.raises(JournalError, match=r"vm-web\.json: the journal's record is damaged"):
        await agent.run()


async def test_an_agent_that_can_write_no_record_stops_and_says_so(ready: Cluster) -> None:
    journal = ready.directory / "h1" / "journal"
    journal.rename(journal.with_name("gone"))
    await ready.place()
    with pytest.raises(JournalError, match=r"vm-web\.json: cannot be written"):
        await asyncio.wait_for(ready.tasks.pop("h1"), WAIT_S)


async def test_one_agent_per_state_directory(ready: Cluster) -> None:
    second = Agent(ready.settings(), {"simulated": SimulatedDriver(ready.directory / "x")}, SystemClock(), Ulids())
    with pytest.raises(StateDirError, match=r"state_dir: .* is in use by another agent \(pid \d+\)"):
        await second.run()


# -- drift -------------------------------------------------------------------------------------------------------------


async def test_drift_is_repaired_when_the_policy_says_so(ready: Cluster) -> None:
    vm = await ready.place()
    await ready.settled()
    await ready.tamper("kill", vm.meta.uid)
    await ready.reaches(lambda: details(ready.vm()).get("repairs") == "1")
    assert details(ready.vm())["last_repair"] == "power_state (process exited (signal 9))"
    after = await ready.settled()
    assert after.observed is not None
    assert after.observed.power is ObservedPower.RUNNING
    await ready.tamper("set-vcpu", "--vcpu", "7", vm.meta.uid)
    await ready.reaches(lambda: details(ready.vm()).get("repairs") == "2")
    await ready.settled()
    assert details(ready.vm())["last_repair"] == "vcpu"


def details(vm: MicroVM) -> dict[str, str]:
    return vm.observed.details if vm.observed is not None else {}


async def test_drift_is_reported_and_left_alone_until_a_repair_is_asked_for(ready: Cluster) -> None:
    vm = await ready.place(drift_policy=DriftPolicy.REPORT)
    await ready.settled()
    await ready.tamper("kill", vm.meta.uid)
    await ready.reaches(lambda: bool(differences(ready.vm())))
    await asyncio.sleep(0.7)  # more than one resync
    drifted = ready.vm()
    assert is_confirmed(drifted)
    assert [each.pointer for each in differences(drifted)] == ["/spec/power_state"]
    assert differences(drifted)[0].cause == "process exited (signal 9)"
    await ready.replica.accept(Act(namespace="demo", name="web", action=Action.REPAIR))
    await ready.settled()


async def test_a_vanished_microvm_is_made_again(ready: Cluster) -> None:
    vm = await ready.place()
    await ready.settled()
    await ready.tamper("remove", vm.meta.uid)
    await ready.reaches(lambda: details(ready.vm()).get("last_repair") == "vanished")
    await ready.settled()
    assert len(await ready.drivers["h1"].list()) == 1


async def test_a_stranger_is_reported_and_never_touched(ready: Cluster) -> None:
    await ready.tamper("create", "stranger")
    await ready.reaches(lambda: bool(ready.replica.state.hosts["h1"].unmanaged))
    (found,) = ready.replica.state.hosts["h1"].unmanaged
    assert (found.name, found.driver, found.uid) == ("stranger", "simulated", None)
    await ready.place()
    await ready.settled()
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    await ready.reaches(ready.gone)
    (left,) = await ready.drivers["h1"].list()
    assert left.name == "stranger"
    await ready.tamper("remove", found.native_id)
    await ready.reaches(lambda: not ready.replica.state.hosts["h1"].unmanaged)


async def test_a_failure_is_reported_with_its_field_and_heals(ready: Cluster) -> None:
    await ready.tamper(
        "fail", "*", "--call", "create", "--code", "ImageNotFound", "--pointer", "/spec/kernel/image", "--permanent"
    )
    await ready.place()
    await ready.reaches(lambda: ready.vm().phase is MicroVMPhase.FAILED)
    seen = ready.vm().observed
    assert seen is not None
    assert seen.failure is not None
    assert (seen.failure.code, seen.failure.pointer, seen.failure.permanent) == (
        "ImageNotFound",
        "/spec/kernel/image",
        True,
    )
    await ready.tamper("heal")
    await ready.settled()


async def test_a_new_intent_that_fails_in_the_same_way_fails_again(ready: Cluster) -> None:
    await ready.tamper("fail", "*", "--call", "create", "--permanent")
    await ready.place()
    await ready.reaches(lambda: ready.vm().phase is MicroVMPhase.FAILED)
    for vcpu in (2, 3):
        await ready.replica.accept(declare_microvm(vcpu=vcpu))
        assert ready.vm().phase is MicroVMPhase.PLACED
        await ready.reaches(lambda: ready.vm().phase is MicroVMPhase.FAILED)
    await ready.tamper("heal")
    await ready.settled()


async def test_a_passing_failure_is_retried(ready: Cluster) -> None:
    await ready.tamper("fail", "*", "--call", "create", "--times", "4")
    await ready.place()
    await ready.settled()
    await ready.tamper("fail", "*", "--call", "destroy", "--times", "3")
    await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="web"))
    await ready.reaches(ready.gone)


async def test_a_driver_that_cannot_list_makes_nothing_absent(ready: Cluster) -> None:
    await ready.place()
    await ready.settled()
    await ready.tamper("fail", "*", "--call", "list")
    await ready.reaches(lambda: ready.vm().observed is not None and ready.vm().observed.failure is not None)
    seen = ready.vm().observed
    assert seen is not None
    assert seen.failure is not None
    assert (seen.failure.code, seen.power) == ("DriverUnavailable", ObservedPower.RUNNING)
    await ready.tamper("heal")
    await ready.settled()


# -- questions ---------------------------------------------------------------------------------------------------------


async def test_questions_reach_the_agent_through_another_node(ready: Cluster) -> None:
    second = await ready.start_node("n2")
    vm = await ready.place()
    await ready.settled()
    if ready.agents["h1"].node == "n2":
        pytest.fail("the agent had only n1 to dial")
    next_offset, data = await second.link.console("h1", vm.meta.uid, offset=0, limit=4096, timeout_s=5)
    assert next_offset == len(data) > 0
    assert b"simulated" in data
    again, rest = await second.link.console("h1", vm.meta.uid, offset=next_offset, limit=4096, timeout_s=5)
    assert (again, rest) == (next_offset, b"")
    seen = await second.link.detail("h1", vm.meta.uid, timeout_s=5)
    assert (seen.uid, seen.power) == (vm.meta.uid, ObservedPower.RUNNING)
    items = [
        BidRequestItem(uid="a", spec=microvm_spec()),
        BidRequestItem(uid="b", spec=microvm_spec(vcpu=2000)),
        BidRequestItem(uid="c", spec=microvm_spec(provider="qemu")),
    ]
    bids = await second.link.bids("h1", items, timeout_s=5)
    assert bids["a"].refused is None
    assert bids["a"].score is not None
    assert bids["b"].refused == "needs 2000 vcpu, 999 of 1000 are free"
    assert bids["c"].refused == "provider qemu is asked for, this host has simulated"
    present, silent = await second.link.presence(timeout_s=5)
    assert [(each.node, each.host) for each in present] == [("n1", "h1")]
    assert present[0].last_heartbeat_age_s < 5
    assert not silent
    with pytest.raises(DriverError, match="not assigned to host h1") as refused:
        await second.link.console("h1", "unknown", offset=0, limit=10, timeout_s=5)
    assert refused.value.code == "NotAssigned"


async def test_a_host_that_cannot_be_asked(ready: Cluster) -> None:
    second = await ready.start_node("n2")
    with pytest.raises(HostUnreachableError, match="host h9 has no session"):
        await second.link.console("h9", "x", offset=0, limit=10, timeout_s=1)
    await ready.stop_agent()
    await ready.reaches(lambda: ready.gateways["n1"]._sessions.get("h1") is None)
    with pytest.raises(HostUnreachableError, match=r"host h1 by node n1: the agent of host h1 has no session here"):
        await second.link.console("h1", "x", offset=0, limit=10, timeout_s=1)
    await ready.stop_node("n1")
    present, silent = await second.link.presence(timeout_s=1)
    assert (list(present), list(silent)) == ([], ["n1"])


# -- leases ------------------------------------------------------------------------------------------------------------


async def heartbeat(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent], sequence: int) -> None:
    await stream.write(wire.FromAgent(heartbeat=wire.Heartbeat(sequence=sequence)))


async def read_one(stream: aio.StreamStreamCall[wire.FromAgent, wire.ToAgent], kind: str) -> wire.ToAgent:
    """The next message of this kind, past others."""
    while True:
        message = await read(stream)
        if message.WhichOneof("message") == kind:
            return message


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_heartbeat_at_any_node_is_granted_by_the_leader(cluster: Cluster, node: str) -> None:
    await cluster.start_node("n1")
    await cluster.start_node("n2")
    await cluster.declared()
    async with raw_session(cluster, "h1", node=node) as stream:
        await stream.write(hello("h1", session="s7"))
        await read_one(stream, "welcome")
        await heartbeat(stream, 1)
        await heartbeat(stream, 2)
        grant = (await read_one(stream, "grant")).grant
        assert grant.sequence in (1, 2)
        assert (grant.ttl_ms, grant.grace_ms) == (10_000, 2_000)
    ((asked, *_), *_) = cluster.keepers["n1"].asked
    assert (asked.host, asked.session) == ("h1", "s7")
    assert cluster.keepers["n2"].asked == []


async def test_a_new_leader_is_asked_what_the_last_one_left_open(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    await cluster.start_node("n2")
    await cluster.declared()
    async with raw_session(cluster, "h1", node="n1") as stream:
        await stream.write(hello("h1"))
        await read_one(stream, "welcome")
        # n1 is deposed, and nobody knows whom to ask; then n2 leads, which does not know it at first.
        cluster.keepers["n1"].leads = False
        await heartbeat(stream, 5)
        assert (await read_one(stream, "heartbeat_ack")).heartbeat_ack.sequence == 5, "the node is alive"
        cluster.leader = None
        await asyncio.sleep(0.3)
        cluster.leader = "n2"
        await asyncio.sleep(0.3)
        cluster.keepers["n2"].leads = True
        assert (await read_one(stream, "grant")).grant.sequence == 5
    assert cluster.keepers["n1"].asked == []


async def test_a_node_that_does_not_lead_says_so_to_other_nodes(cluster: Cluster) -> None:
    cluster.leader = "n2"
    await cluster.start_node("n1")
    request = wire.GrantRequest(heard=[wire.Heard(host="h1", session="s1", sequence=1)])
    async with channel(cluster, cluster.certificate("node", "n2"), "n1") as opened:
        with pytest.raises(aio.AioRpcError, match="this node does not lead") as refused:
            await rpc.NodeRelayStub(opened).Grant(request)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_what_is_not_granted_is_acknowledged_all_the_same(cluster: Cluster) -> None:
    await cluster.start_node("n1")
    await cluster.declared()
    cluster.keepers["n1"].refused = {"h1"}
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1"))
        await read_one(stream, "welcome")
        for sequence in (1, 2):
            await heartbeat(stream, sequence)
            await read_one(stream, "heartbeat_ack")
            await cluster.reaches(lambda sequence=sequence: len(cluster.keepers["n1"].asked) == sequence)
        cluster.keepers["n1"].refused = set()
        await heartbeat(stream, 3)
        assert (await read_one(stream, "grant")).grant.sequence == 3


@pytest.mark.parametrize(("held_ms", "committed_ms"), [(0, 10_000), (9_000, 10_000), (25_000, 25_000)])
async def test_the_longest_lease_that_may_be_out_is_committed_first(
    cluster: Cluster, held_ms: int, committed_ms: int
) -> None:
    await cluster.start_node("n1")
    await cluster.declared()
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1", held_ttl_ms=held_ms))
        await read_one(stream, "welcome")
        assert cluster.replica.state.hosts["h1"].lease_ttl_ms == committed_ms


async def test_a_host_that_is_detached_is_sent_away_and_rejoins(cluster: Cluster) -> None:
    """It is told what to destroy and what is still placed there, and is ready once it confirmed the one."""
    await cluster.start_node("n1")
    await cluster.declared("h1", "h2", "h3")
    drivers = [wire.Driver(name="simulated", version="1", simulated=True, fences=True)]
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1", session="s1", drivers=drivers))
        await read_one(stream, "welcome")
        moving = await cluster.place("moving", recovery=Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE))
        staying = await cluster.place("staying")
        await read_one(stream, "assignments")
        await cluster.replica.accept(detached("h1", session="s1"))
        goodbye = (await read_one(stream, "goodbye")).goodbye
        assert goodbye.reason == "host h1 is detached: its lease ended; it may dial in again"
    await cluster.replica.accept(fenced("h1"))
    await cluster.replica.accept(resurrect(moving))
    async with raw_session(cluster, "h1") as stream:
        await stream.write(hello("h1", session="s2", drivers=drivers))
        await read_one(stream, "welcome")
        assigned = (await read_one(stream, "assignments")).assignments
        assert {each.uid: (each.destroy, each.epoch) for each in assigned.assignments} == {
            moving.meta.uid: (True, 1),
            staying.meta.uid: (False, 1),
        }
        await stream.write(wire.FromAgent(report=wire.Report(complete=True, assignments_revision=assigned.revision)))
        assert cluster.replica.state.hosts["h1"].phase is HostPhase.REJOINING
        gone = wire.Confirmed(uid=moving.meta.uid, epoch=1)
        await stream.write(wire.FromAgent(report=wire.Report(assignments_revision=assigned.revision, destroyed=[gone])))
        await cluster.reaches(lambda: cluster.replica.state.hosts["h1"].phase is HostPhase.READY)
        assert cluster.replica.state.hosts["h1"].stale == {}
        last = (await read_one(stream, "assignments")).assignments
        assert [each.uid for each in last.assignments] == [staying.meta.uid]


# -- scale -------------------------------------------------------------------------------------------------------------


async def test_two_hundred_microvms_on_one_agent_converge(ready: Cluster) -> None:
    names = [f"vm-{number:03}" for number in range(200)]
    for name in names:
        await ready.place(name)
    await ready.reaches(lambda: all(is_settled(ready.vm(name)) for name in names))
    reports = [command for command in ready.replica.commands if isinstance(command, Report)]
    assert len(reports) < 200, "observations travel together"
    for name in names:
        await ready.replica.accept(Delete(kind=Kind.MICROVM, namespace="demo", name=name))
    await ready.reaches(lambda: not len(ready.replica.state.microvms))
    assert await ready.drivers["h1"].list() == ()
