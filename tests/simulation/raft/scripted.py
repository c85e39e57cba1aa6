"""The same scripted scenario for PySyncObj as shipped and for ours: members that run only when told to, messages that
arrive only when told to, first in first out per direction, in virtual time.

`Stock` is PySyncObj's own class with nothing overridden: its journal on real files, its configuration, its messages,
pickled between members as its own transport does. Only the transport (its public parameter) and the clock are ours.
"""

from __future__ import annotations

import pickle
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from simulation.raft.clock import Clock, ProcessClock, virtual_time
from simulation.raft.disk import SimulatedDisk
from unit.consensus.support import ListState

from controlplane.consensus import engine
from controlplane.consensus.core import RaftCore
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.errors import DiskError
from controlplane.consensus.settings import RaftSettings

ELECTION_S = (0.5, 1.0)
HEARTBEAT_S = 0.1

Send = Callable[[str, Any], bool]


class _Wire(Transport):
    """PySyncObj's transport without a socket."""

    def __init__(self, node: str, send: Send) -> None:
        super().__init__(None, Node(node), [])
        self._send_to = send

    @property
    def ready(self) -> bool:
        return True

    def send(self, node: Node, message: Any) -> bool:
        return self._send_to(node.id, pickle.dumps(message))

    def addNode(self, node: Node) -> None:
        pass

    def dropNode(self, node: Node) -> None:
        pass

    def destroy(self) -> None:
        pass


class StockList(SyncObj):
    """A replicated list, as PySyncObj's documentation writes such a thing."""

    def __init__(self, node: str, peers: list[str], conf: SyncObjConf, transport: Transport) -> None:
        super().__init__(Node(node), [Node(peer) for peer in peers], conf, transport=transport)
        self.values: list[bytes] = []

    @replicated
    def add(self, value: bytes) -> None:
        self.values.append(value)


class Stock:
    """A member as shipped."""

    def __init__(
        self,
        name: str,
        peers: list[str],
        directory: Path,
        send: Send,
        *,
        machine: type[StockList] = StockList,
        **options: object,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        conf = SyncObjConf(
            autoTick=False,
            journalFile=str(directory / "journal"),
            raftMinTimeout=ELECTION_S[0],
            raftMaxTimeout=ELECTION_S[1],
            appendEntriesPeriod=HEARTBEAT_S,
            connectionTimeout=3.5,
            **options,
        )
        self.core: Any = machine(name, peers, conf, _Wire(name, send))

    def private(self, name: str) -> Any:
        return getattr(self.core, f"_SyncObj__{name}")

    @property
    def values(self) -> list[bytes]:
        return self.core.values

    @property
    def leads(self) -> bool:
        return self.core._isLeader()

    @property
    def term(self) -> int:
        return self.core.raftCurrentTerm

    def connect(self, peer: str) -> None:
        self.private("onNodeConnected")(Node(peer))

    def tick(self) -> None:
        self.core.doTick()

    def receive(self, peer: str, message: Any) -> None:
        self.private("onMessageReceived")(Node(peer), pickle.loads(message))

    def propose(self, value: bytes, told: Callable[[bool], None]) -> None:
        self.core.add(value, callback=lambda _, reason: told(reason == FAIL_REASON.SUCCESS))

    def close(self) -> None:
        self.core.destroy()


class Ours:
    """A member with our core."""

    def __init__(
        self, name: str, peers: list[str], directory: Path, send: Send, *, state: ListState | None = None, **_: object
    ) -> None:
        self.directory = directory
        settings = RaftSettings(
            node=name,
            cluster_id="scripted",
            data_dir=directory,
            listen="127.0.0.1:1",
            peers=dict.fromkeys(peers, "127.0.0.1:1"),
            plaintext_peers_for_tests=True,
            heartbeat_s=HEARTBEAT_S,
            election_min_s=ELECTION_S[0],
            election_max_s=ELECTION_S[1],
        )
        self._send = send
        self.state = state or ListState()
        self.disk = SimulatedDisk(random.Random(0), lambda _: None, defaultdict(int))  # type: ignore[arg-type]
        self.data = DataDirectory(directory, name, settings.cluster_id, self.disk)
        self.core = RaftCore(
            settings,
            journal=self.data.journal,
            snapshots=self.data.snapshots,
            state=self.state,
            outlet=self,
            hooks=self,
        )

    def send(self, peer: str, message: Any) -> bool:
        return self._send(peer, message)

    def writable(self, peer: str) -> bool:
        return True

    def wake(self) -> None:
        pass

    def progressed(self) -> None:
        pass

    def snapshot_due(self) -> None:
        pass

    def install_due(self) -> None:
        pass

    @property
    def values(self) -> list[bytes]:
        return self.state.entries

    @property
    def leads(self) -> bool:
        return self.core.is_leader

    @property
    def term(self) -> int:
        return self.core.term

    def connect(self, peer: str) -> None:
        self.core.connected(peer)

    def tick(self) -> None:
        self.core.tick()

    def receive(self, peer: str, message: Any) -> None:
        self.core.receive(peer, message)

    def propose(self, value: bytes, told: Callable[[bool], None]) -> None:
        self.core.propose(value, lambda _, reason: told(reason == engine.SUCCESS))

    def close(self) -> None:
        self.disk.dead = True
        with suppress(DiskError):
            self.data.close()


Member = Stock | Ours


class Script:
    """A cluster that does only what it is told."""

    def __init__(self, make: type[Member], names: str, directory: Path, clock: Clock, **options: Any) -> None:
        self.make = make
        self.names = names
        self.directory = directory
        self.clocks = {name: ProcessClock(random.Random(name)) for name in names}
        self._clock = clock
        self.options = options
        self.wire: dict[tuple[str, str], list[Any]] = defaultdict(list)
        self.members: dict[str, Member] = {}
        self.told: dict[bytes, bool] = {}
        """What clients were told of their writes."""
        self.leaders: dict[int, set[str]] = defaultdict(set)
        """Who led in which term."""
        for name in names:
            self.start(name)

    def start(self, name: str, **options: Any) -> None:
        def send(peer: str, message: Any) -> bool:
            self.wire[name, peer].append(message)
            return True

        peers = [peer for peer in self.names if peer != name]
        self._clock.reading = self.clocks[name]
        self.members[name] = self.make(name, peers, self.directory / name, send, **{**self.options, **options})
        for peer in peers:
            self.members[name].connect(peer)

    def stop(self, name: str) -> None:
        """The process ends, and what others sent it so far is lost."""
        self.members.pop(name).close()
        for pair in self.wire:
            if name in pair:
                self.wire[pair].clear()

    def close(self) -> None:
        for member in self.members.values():
            member.close()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def elapse(self, seconds: float, *names: str) -> None:
        """Time passes for `names`, for everybody without them."""
        for name in names or self.names:
            self.clocks[name].jump(seconds)

    def tick(self, *names: str) -> None:
        for name in names:
            member = self._run(name)
            member.tick()
            if member.leads:
                self.leaders[member.term].add(name)

    def _run(self, name: str) -> Member:
        self._clock.reading = self.clocks[name]
        return self.members[name]

    def deliver(self, source: str, target: str, count: int = 1000) -> int:
        """Deliver up to `count` messages in their order, then let the target tick; how many there were."""
        delivered = self.receive(source, target, count)
        if delivered and target in self.members:
            self.tick(target)
        return delivered

    def receive(self, source: str, target: str, count: int = 1000) -> int:
        """Deliver up to `count` messages, without a tick."""
        queue = self.wire[source, target]
        messages, queue[:] = queue[:count], queue[count:]
        for message in messages if target in self.members else ():
            self._run(target).receive(source, message)
        return len(messages)

    def lose(self, source: str, target: str) -> None:
        self.wire[source, target].clear()

    def exchange(self, *names: str, rounds: int = 12) -> None:
        """Everything between `names` arrives, with time passing for heartbeats."""
        for _ in range(rounds):
            self.elapse(HEARTBEAT_S * 1.1)
            self.tick(*names)
            for _ in range(4):
                for source in names:
                    for target in names:
                        if source != target:
                            self.deliver(source, target)

    def elect(self, name: str, *voters: str) -> None:
        """`name` hears no leader for so long that it campaigns, and only `voters` hear of it; none of them has
        heard of a leader lately either."""
        self.elapse(ELECTION_S[0] * 1.01, *voters)
        for step in range(9):
            if step % 3 == 0:
                self.elapse(ELECTION_S[1] * 1.1, name)
            self.tick(name)
            for voter in voters:
                self.deliver(name, voter)
                self.deliver(voter, name)
            if self.members[name].leads:
                self.tick(name)
                return
        raise AssertionError(f"{name} was not elected")

    def propose(self, name: str, *values: bytes) -> None:
        for value in values:
            self.told.setdefault(value, False)

            def told(success: bool, value: bytes = value) -> None:
                self.told[value] = self.told[value] or success

            self._run(name).propose(value, told)
        self.tick(name)
        self.elapse(HEARTBEAT_S * 1.1)
        self.tick(name)

    # -- the verdict ---------------------------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """What is wrong with what the members hold and said, in the words of the tests."""
        found: list[str] = []
        found.extend(f"{len(who)} leaders in term {term}" for term, who in self.leaders.items() if len(who) > 1)
        for value in [value for value, success in self.told.items() if success]:
            without = [name for name, member in self.members.items() if value not in member.values]
            if without:
                found.append(f"acknowledged {value[:8]!r} is lost on {','.join(without)}")
        for name, member in self.members.items():
            if len(set(member.values)) != len(member.values):
                found.append(f"{name} applied an entry twice")
        shortest = min(len(member.values) for member in self.members.values())
        if len({tuple(member.values[:shortest]) for member in self.members.values()}) > 1:
            found.append("states differ")
        return found


@contextmanager
def script(make: type[Member], names: str, directory: Path, **options: Any) -> Generator[Script]:
    clock = Clock()
    with virtual_time(clock):
        cluster = Script(make, names, directory, clock, **options)
        try:
            yield cluster
        finally:
            cluster.close()


def restore(copy: Path, directory: Path) -> None:
    """Put the files of `directory` back to what they were in `copy`."""
    shutil.rmtree(directory)
    shutil.copytree(copy, directory)
