"""A whole cluster in one process: the event queue, the processes, the network between them and their clients.

Events are deliveries, ticks, timers and the actions of a schedule. A run is a function of its plan alone: the same plan
gives the same trace, whatever the machine does and however its sets are ordered.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from simulation.raft.clock import Clock, virtual_time
from simulation.raft.invariants import Checker, Violation
from simulation.raft.network import Network, Weather
from simulation.raft.process import Build, Confirmation, Process, Proposal, Read

from controlplane.consensus import replication, transfers
from controlplane.consensus.errors import DiskError, LostDiskError, RemovedError
from controlplane.consensus.messages import Message
from controlplane.consensus.settings import RaftSettings

if TYPE_CHECKING:
    from simulation.raft.schedule import Plan

NAMES = "abcdefghi"
SETTLE_S = 20.0
"""Virtual seconds after the last fault within which a leader must exist and new writes must commit everywhere."""
_MAX_EVENTS = 60_000
_CONNECT_S = (0.001, 0.03)
_encode = msgspec.msgpack.Encoder().encode


class World:
    """Implements the Surroundings of every process."""

    def __init__(self, plan: Plan, directory: Path, build: Build) -> None:
        self.plan = plan
        self.seen: Counter[str] = Counter()
        self.processes: dict[str, Process] = {}
        self.checker = Checker(self.seen, self.processes)
        self.clock = Clock()
        self.steps = 0
        self.actions = 0
        """How many of the plan's actions happened."""
        self.trace = 0
        """A checksum over everything that happened, in order."""
        self.recent: deque[tuple[object, ...]] = deque(maxlen=60)
        self._queue: list[tuple[float, int, Process | None, Callable[..., None], tuple[object, ...]]] = []
        self._pushed = 0
        self._chance = random.Random(f"{plan.seed} world")
        self.network = Network(plan.seed, self._in_flight)
        self.network.weather = plan.profile.weather
        self._acknowledged: list[tuple[Proposal, int]] = []
        self._directory = directory
        self._build = build
        founders = NAMES[: plan.profile.members]
        for name in founders:
            self._add_process(name, founders, join=False)
        self.checker.belonging = list(founders)

    def _add_process(self, name: str, contacts: Iterable[str], *, join: bool) -> Process:
        profile = self.plan.profile
        settings = RaftSettings(
            node=name,
            cluster_id="simulation",
            data_dir=self._directory / name,
            listen=self.address_of(name),
            peers={peer: self.address_of(peer) for peer in contacts if peer != name},
            join=join,
            plaintext_peers_for_tests=True,
            heartbeat_s=profile.heartbeat_s,
            election_min_s=profile.election_s[0],
            election_max_s=profile.election_s[1],
            snapshot_entries=profile.snapshot_entries,
            retain_entries=profile.retain_entries,
            segment_bytes=profile.segment_bytes,
        )
        process = Process(
            settings,
            self._build,
            self,
            random.Random(f"{self.plan.seed} process {name}"),
            snapshot_s=profile.snapshot_s,
        )
        process.sync_s = profile.sync_s
        process.turn_s = profile.turn_s
        self.processes[name] = process
        return process

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole plan, and what must hold after it. Raises Violation."""
        with virtual_time(self.clock), tuned(self.plan.profile.batch_bytes, self.plan.profile.chunk_bytes):
            try:
                for process in self.processes.values():
                    self.start(process)
                for action in self.plan.actions:
                    self.advance(action.after_s)
                    self.note("action", action)
                    self.steps += 1
                    self.actions += 1
                    action.apply(self)
                self._settle()
            finally:
                for process in self.processes.values():
                    if process.up:
                        process.close()

    def advance(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        queue = self._queue
        while queue and queue[0][0] <= until_s:
            at_s, order, process, what, arguments = heapq.heappop(queue)
            if process is not None and process.busy_until_s > at_s:
                heapq.heappush(queue, (process.busy_until_s, order, process, what, arguments))
                continue
            self.clock.now_s = at_s
            self.steps += 1
            if self.steps > _MAX_EVENTS:
                raise Violation("livelock", f"{_MAX_EVENTS} events in {self.now_s:.1f} virtual seconds")
            what(*arguments)
        self.clock.now_s = until_s

    def note(self, *what: object) -> None:
        self.recent.append((self.now_s, *what))

    def count(self, what: str) -> None:
        self.seen[what] += 1

    # -- Surroundings --------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.clock.now_s

    def enter(self, process: Process) -> None:
        self.clock.reading = process.clock

    def later(self, at_s: float, process: Process | None, what: Callable[..., None], *arguments: object) -> None:
        self._pushed += 1
        heapq.heappush(self._queue, (at_s, self._pushed, process, what, arguments))

    def sent(self, process: Process, peer: str, message: Message) -> bool:
        fate = self.network.send(self.now_s + process.clock.lag_s, process.name, peer, message)
        if fate == "unconnected":
            return False
        self.checker.sent(process, peer, message)
        if fate != "sent":
            self.seen[f"message {fate}"] += 1
        return True

    def writable(self, source: str, target: str) -> bool:
        return self.network.writable(source, target)

    def after(self, process: Process, *, died: bool = False) -> None:
        if died:
            self.checker.died_inside(process)
        else:
            self.checker.after(process)
        if self._acknowledged:
            for proposal, term in self._acknowledged:
                self.checker.acknowledged(proposal, term)
            self._acknowledged.clear()
        if self.steps % 128 == 0:
            self.checker.whole_log(process)

    def ticked(self, process: Process) -> None:
        self.checker.ticked(process, self.now_s)

    def died(self, process: Process, *, power: bool) -> None:
        self.note("died", process.name, "power" if power else "kill")
        self.seen["power lost" if power else "killed"] += 1
        for other in self.processes.values():
            if other is process:
                continue
            self.network.disconnect(process.name, other.name)
            if self.network.reachable(process.name, other.name):
                self.later(self.now_s + self._chance.uniform(0, 0.05), other, self._lost, other, process, process.life)

    def failed(self, process: Process, error: Exception) -> None:
        if isinstance(error, Violation):
            raise error
        if isinstance(error, RemovedError):
            if process.name not in self.checker.retired:
                raise Violation("removed by nobody", f"{process.name}: {error}")
            self.seen["removed member stopped"] += 1
            process.gone = True
            process.die(power=False)
            return
        if isinstance(error, LostDiskError) and process.lost_disk:
            self.seen["empty disk refused"] += 1
            process.gone = True
            process.die(power=False)
            return
        if isinstance(error, DiskError | OSError):
            self.seen["stopped by its disk"] += 1
            process.die(power=False)
            return
        raise Violation(f"stopped by {type(error).__name__}", f"{process.name}: {error}") from error

    def proposal_ended(self, process: Process, proposal: Proposal, term: int) -> None:
        self.seen[f"proposal {proposal.result}"] += 1
        if proposal.result == "acknowledged":
            self._acknowledged.append((proposal, term))

    def read_ended(self, process: Process, read: Read) -> None:
        self.seen["read answered"] += 1
        self.checker.read(process, read)

    def confirmed(self, process: Process, asked: Confirmation, index: int, term: int) -> None:
        self.seen["leadership confirmed"] += 1
        self.checker.confirmed(process, asked, index, term)

    # -- connections ---------------------------------------------------------------------------------------------------

    def start(self, process: Process) -> None:
        """Begin a life of `process`, and its connections in both directions."""
        try:
            if not process.start():
                return
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"does not start: {type(error).__name__}", f"{process.name}: {error}") from error
        self.note("started", process.name)
        self.checker.started(process)
        self.after(process)
        self.connect()

    def connect(self) -> None:
        """Dial whatever is not connected and can be."""
        for source in self.processes.values():
            for target in self.processes.values():
                if target.name in source.peers and (source.name, target.name) not in self.network.connected:
                    at_s = self.now_s + self._chance.uniform(*_CONNECT_S)
                    self.later(at_s, source, self._dial, source, target, source.life, target.life)

    def _dial(self, source: Process, target: Process, source_life: int, target_life: int) -> None:
        pair = source.name, target.name
        if not source.up or not target.up or (source.life, target.life) != (source_life, target_life):
            return
        if pair in self.network.connected or target.name not in source.peers or not self.network.reachable(*pair):
            return
        if source.greet(target):
            self.network.connected.add(pair)
            source.peer_connected(target.name)

    def peers_changed(self, process: Process) -> None:
        """`process` knows other members than before: connections with anybody else end, new ones are made."""
        for source, target in sorted(self.network.connected):
            other = target if source == process.name else source if target == process.name else None
            if other is not None and other not in process.peers:
                self._hang_up(self.processes[source], target)
        self.connect()

    def _hang_up(self, source: Process, target: str) -> None:
        self.network.disconnect(source.name, target)
        self.later(self.now_s, source, source.peer_disconnected, target)

    def _lost(self, source: Process, target: Process, target_life: int) -> None:
        """`source` notices that the process it was connected to has ended."""
        if source.up and (source.name, target.name) in self.network.connected:
            self.network.disconnect(source.name, target.name)
            source.peer_disconnected(target.name)
            if target.life != target_life:
                self.connect()

    def reset(self, source: Process, target: Process) -> None:
        """A connection breaks; it is dialled again."""
        if (source.name, target.name) in self.network.connected:
            self._lost(source, target, target.life)
            self.connect()

    def _in_flight(self, at_s: float, source: str, target: str, message: Message) -> None:
        self.later(at_s, self.processes[target], self._deliver, source, target, message)

    def _deliver(self, source: str, target: str, message: Message) -> None:
        self.network.landed(source, target)
        process = self.processes[target]
        process.memory.heard += 1
        if not process.up:
            return
        data = b"%s>%s %.6f" % (source.encode(), target.encode(), self.now_s) + _encode(message)
        self.trace = zlib.crc32(data, self.trace)
        self.recent.append((self.now_s, source, target, message))
        process.receive(source, message)

    # -- clients -------------------------------------------------------------------------------------------------------

    def leader(self) -> Process | None:
        """Whoever leads in the highest term."""
        leading = [p for p in self.processes.values() if p.core is not None and p.core.is_leader]
        return max(leading, key=lambda p: p.core.term if p.core else 0, default=None)

    def pick(self, who: int) -> Process:
        """The process an action means: a number, or the leader for a negative one."""
        if who < 0 and (leader := self.leader()) is not None:
            return leader
        names = self.members()
        return self.processes[names[who % len(names)]]

    @staticmethod
    def address_of(name: str) -> str:
        return f"127.0.0.1:{1000 + NAMES.index(name)}"

    def members(self) -> list[str]:
        """The processes there are, removed ones left out."""
        return sorted(name for name, process in self.processes.items() if not process.gone) or [NAMES[0]]

    def join(self) -> str | None:
        """A new process starts, and is nobody until the log says so. Its name; None when all names are used."""
        unused = NAMES[len(self.processes) :]
        if not unused:
            return None
        process = self._add_process(unused[0], self.members(), join=True)
        self.start(process)
        return process.name

    def propose(self, process: Process, size: int = 0) -> Proposal | None:
        if not process.up:
            return None
        entry = b"%d:" % len(self.checker.proposals) + bytes(size)
        proposal = Proposal(entry, process.name)
        self.checker.proposals.append(proposal)
        process.propose(proposal)
        return proposal

    def read(self, process: Process) -> None:
        if process.up:
            process.read(Read(process.name, self.checker.floor))
        # Who believes to lead may be asked for the proof at any time; only one of them may have it.
        for each in self.processes.values():
            if each.core is not None and each.core.is_leader:
                each.confirm(Confirmation(each.name, max(self.checker.leaders, default=0), self.checker.floor))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """The faults stop; soon everybody must agree on everything, and new writes must go through."""
        self.note("faults end")
        self.calm()
        deadline_s = self.now_s + SETTLE_S
        proposal: Proposal | None = None
        while True:
            self.advance(0.1)
            if proposal is not None and proposal.result == "acknowledged" and self._agreed(proposal.index):
                break
            if self.now_s > deadline_s:
                raise Violation("no progress", f"not within {SETTLE_S} virtual seconds after the last fault")
            if proposal is None or proposal.result in ("refused", "unknown"):
                proposal = self.propose(self._chance.choice(self._belonging()))
            elif proposal.result == "open" and self.now_s > deadline_s - SETTLE_S / 2:
                proposal = None
        for process in self.processes.values():
            self.checker.whole_log(process)
        self.checker.verdict(self._belonging())

    def calm(self) -> None:
        """End every fault."""
        self.network.weather = Weather()
        self.network.heal(self.now_s)
        for process in list(self.processes.values()):
            process.start_trouble = None, None
            process.clock.run_at(1.0, self.now_s)
            process.sync_s = (0.0, 0.0)
            process.busy_until_s = 0.0
            if process.up:
                process.disk.sync_s = (0.0, 0.0)
                process.disk.dies_in = process.disk.fails_in = None
            elif not process.gone:
                self.start(process)
        self.connect()

    def _belonging(self) -> list[Process]:
        """Who belongs to the cluster by the newest committed configuration, and has its disk."""
        processes = [self.processes[name] for name in self.checker.belonging]
        return [process for process in processes if not process.lost_disk]

    def _agreed(self, index: int) -> bool:
        entry_indexes = {p.core.entry_index if p.core else -1 for p in self._belonging()}
        return len(entry_indexes) == 1 and entry_indexes.pop() >= index


@contextmanager
def tuned(batch_bytes: int, chunk_bytes: int) -> Generator[None]:
    """Small messages, so that few entries need several of them."""
    values = [(replication, "_BATCH_BYTES", batch_bytes), (transfers, "PIECE_BYTES", chunk_bytes)]
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    for module, name, value in values:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
