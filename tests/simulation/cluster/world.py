"""The simulated cluster: its machines and processes, what goes wrong, and what must have become of it in the end.

A run is a function of its seed, its profile and its schedule. It begins well, goes through the troubles of the
schedule, and ends calm: everything is healed, and within `SETTLE_S` everything must be as it was asked for, or say why
not.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from simulation.cluster.agent import AgentHost
from simulation.cluster.builds import Build
from simulation.cluster.checker import Checker
from simulation.cluster.faults import FAULTS_BY_NAME, Fault
from simulation.cluster.grpc_aio import Exchange
from simulation.cluster.host import Guest, SimulatedHost
from simulation.cluster.loop import CURRENT, Machine, VirtualLoop
from simulation.cluster.network import Network, Weather
from simulation.cluster.node import CLUSTER, Node
from simulation.cluster.peers import Switchboard
from simulation.cluster.profile import Profile
from simulation.cluster.schedule import Trouble
from simulation.cluster.settled import unsettled
from simulation.cluster.surroundings import simulated
from simulation.cluster.users import Users

from controlplane.identity.authority import Authority

SETTLE_S = 180.0
COLLECT_S = 60.0
SPARES = 6
"""Members that may be added."""
_SKEW = math.sqrt(1.1)
"""Clocks run at most so much faster or slower than the truth, so no two differ by more than a tenth."""


Note = tuple[float, tuple[object, ...]]
"""When something happened, in true virtual seconds, and what."""


class World:
    def __init__(self, seed: int, troubles: Sequence[Trouble], directory: Path, profile: Profile, build: Build) -> None:
        self.seed = seed
        self.profile = profile
        self.build = build
        self.seen: Counter[str] = Counter()
        self.recent: deque[Note] = deque(maxlen=80)
        self.on_note: Callable[[Note], None] = lambda note: None
        self.loop = VirtualLoop()
        self.network = Network(self.loop, seed, self.seen)
        self.switchboard = Switchboard(self.network)
        self.hosts: dict[str, SimulatedHost] = {}
        self.checker = Checker(CLUSTER, self.seen, self.hosts)
        self.exchange = Exchange(self.network, lambda machine: self._certificates[machine])
        self.restoring = False
        self.changing_members = False
        self._troubles = troubles
        self._chance = random.Random(f"{seed} faults")
        self._claimed: set[str] = set()
        self._machine = Machine(self.loop, "world", seed)
        self._directory = directory
        self._tuning = {name: getattr(profile, name) for name in _RAFT_TUNING}
        self.nodes: dict[str, Node] = {}
        for i in range(1, profile.nodes + 1):
            self.add_node(f"n{i}", founder=True)
        self.spare_names = [f"n{i}" for i in range(profile.nodes + 1, profile.nodes + SPARES + 1)]
        """Of members to come."""
        for i in range(1, profile.hosts + 1):
            name = f"h{i}"
            machine = Machine(self.loop, name, seed, rate=self.draw_rate(self._chance))
            self.hosts[name] = SimulatedHost(name, self.loop, machine, directory / name, self.seen, self._guest_changed)
        self.agents = {name: AgentHost(self, host) for name, host in self.hosts.items()}
        self.users = Users(self)
        authority = Authority.create(directory / "ca", cluster_id="simulation")
        names = (*self.nodes, *self.spare_names)
        files = {name: authority.issue_node(name, directory / "tls" / name) for name in names}
        files |= {name: authority.issue_host(name, directory / "tls" / name) for name in self.hosts}
        self._certificates = {name: each.certificate.read_bytes() for name, each in files.items()}
        self.tls = files["n1"]

    def add_node(self, name: str, *, founder: bool = False) -> Node:
        node = self.nodes[name] = Node(self, name, int(name.removeprefix("n")), self._directory, self._tuning)
        node.join = not founder
        return node

    def remove_node(self, node: Node) -> None:
        """It is taken down, and its disk is thrown away."""
        del self.nodes[node.name]
        node.kill(power=True)
        node.forget()

    def draw_rate(self, chance: random.Random) -> float:
        return chance.choice((1 / _SKEW, 1.0, _SKEW, chance.uniform(1 / _SKEW, _SKEW)))

    # -- what others tell ----------------------------------------------------------------------------------------------

    def count(self, what: str) -> None:
        """A fault begins."""
        self.seen[what] += 1
        self.note("fault", what)

    def note(self, *what: object) -> None:
        note = self.loop.now_s, what
        self.recent.append(note)
        self.on_note(note)

    def _guest_changed(self, host: SimulatedHost, guest: Guest) -> None:
        epoch = guest.vm.epoch if guest.vm is not None else 0
        name = guest.vm.name if guest.vm is not None else guest.native_id
        self.note("guest", host.name, name, f"epoch {epoch}", guest.power.value, guest.cause or "")
        self.network.arrived((host.name, name), f"{epoch} {guest.power} {guest.cause}".encode())
        self.checker.guest_changed(host, guest)

    def raft_failed(self, node: Node, error: Exception) -> None:
        self.note("raft ended", node.name, repr(error)[:150])
        if isinstance(error, OSError) or type(error).__name__ in ("DiskError", "DiskFullError"):
            self.seen["stopped by its disk"] += 1
        elif not node.leaving:
            self.checker.violate("a node stopped for good", f"{node.name}: {error!r}")

    def front_failed(self, node: Node, error: BaseException) -> None:
        self.checker.violate("a front ended", f"{node.name}: {error!r} {getattr(error, 'exceptions', '')!r}")

    def agent_failed(self, host: SimulatedHost, error: Exception) -> None:
        self.checker.violate("an agent ended", f"{host.name}: {error!r}")

    def leader(self) -> Node | None:
        """Who leads in the highest term, as far as processes believe."""
        found: list[tuple[int, Node]] = []
        for node in self.nodes.values():
            serving = node.serving()
            core = serving[1]._core if serving is not None else None
            if core is not None and core.is_leader:
                found.append((core.term, node))
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def claim_host(self, chance: random.Random) -> str | None:
        """A host whose agent and watchdog are well, for a trouble of one of them."""
        free = [name for name, host in self.hosts.items() if name not in self._claimed and host.on]
        if not free:
            return None
        return self.claim(chance.choice(free))

    def claim(self, name: str) -> str | None:
        """That host, if it is well."""
        if name in self._claimed or not self.hosts[name].on:
            return None
        self._claimed.add(name)
        return name

    def release_host(self, name: str) -> None:
        self._claimed.discard(name)

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises Violation."""
        if self.build.leave_out is not None:
            self.build.leave_out()
        asyncio.set_event_loop(None)
        with simulated(self.exchange, self._machine, self.hosts.values()):
            self.loop.run_until_complete(self._watched())
        if self.checker.violation is None and self.loop.unhandled:
            self.checker.violate("unhandled error", self.loop.unhandled[0])
        if self.checker.violation is not None:
            raise self.checker.violation

    async def _watched(self) -> None:
        """The run, until its end or the first violation."""
        life = asyncio.create_task(self._life())
        collecting = asyncio.create_task(_collected())
        stopped = asyncio.create_task(self.checker.stopped.wait())
        await asyncio.wait([life, stopped], return_when=asyncio.FIRST_COMPLETED)
        collecting.cancel()
        if life.done():
            life.result()

    async def _life(self) -> None:
        assert CURRENT.get() is None
        for node in self.nodes.values():
            node.start()
        for agent in self.agents.values():
            agent.start()
        await self.users.found()
        await asyncio.sleep(10.0)
        await self._go_wrong()
        self.note("faults end")
        await self.users.put_back()
        deadline_s = self.loop.now_s + SETTLE_S
        while (left := unsettled(self)) and self.loop.now_s < deadline_s:  # noqa: ASYNC110 - anything may settle it
            await asyncio.sleep(1.0)
        if left:
            self.checker.violate("not settled", f"{SETTLE_S:g} s after the last fault: {'; '.join(left)}"[:1500])
        self.checker.verdict()

    async def _go_wrong(self) -> None:
        under_way: dict[asyncio.Task[None], None] = {}
        began_s = self.loop.now_s
        for trouble in self._troubles:
            await asyncio.sleep(began_s + trouble.at_s - self.loop.now_s)
            fault = FAULTS_BY_NAME[trouble.fault]
            task = asyncio.create_task(_endured(fault, self, random.Random(trouble.chance)))
            under_way[task] = None
            task.add_done_callback(partial(under_way.pop))
        for task in list(under_way):
            await task
        self.network.weather = Weather()


_RAFT_TUNING = ("heartbeat_s", "election_s", "snapshot_entries", "retain_entries")


async def _collected() -> None:
    """What is young and forgotten: the old is nearly all what dead processes left, and stays."""
    while True:
        await asyncio.sleep(COLLECT_S)
        gc.collect(1)


async def _endured(fault: Fault, world: World, chance: random.Random) -> None:
    await fault(world, chance)
    world.note("over", fault.__name__)
