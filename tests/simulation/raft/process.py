"""One simulated process of the log: what `consensus.runner` is around a core, without sockets, threads and real time.

It starts and dies, runs a tick when something happened and at the core's deadline, is busy while its disk is slow,
and forwards proposals and reads of its clients to the leader.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from simulation.raft.clock import ProcessClock
from simulation.raft.disk import ProcessDiedError, SimulatedDisk
from unit.consensus.support import ListState

from controlplane.consensus import engine
from controlplane.consensus.configuration import Configuration, founding, with_stores
from controlplane.consensus.core import RaftCore
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.errors import ConsensusError, DiskError
from controlplane.consensus.installing import Prepared
from controlplane.consensus.messages import Answer, HelloReply, Message, Propose, ReadIndex
from controlplane.consensus.roster import Roster
from controlplane.consensus.settings import RaftSettings
from controlplane.consensus.snapshot import Capture
from controlplane.manifest import Manifest
from controlplane.ports import RefusedError

NEVER_S = float("inf")


@dataclass
class Build:
    """Which core runs; tests put broken ones here."""

    name: str = "ours"
    core: type[RaftCore] = RaftCore
    prepare: Callable[[Process], None] = lambda process: None
    """Called with every process before its core is made."""


@dataclass(eq=False)
class Proposal:
    entry: bytes
    at: str
    result: str = "open"
    """open, acknowledged, refused (certainly not in any log), or unknown."""
    index: int = 0


@dataclass(eq=False)
class Read:
    at: str
    floor: int
    """The result must reach this index: everything acknowledged, or seen by a read, before this one began."""
    index: int | None = None


@dataclass(eq=False)
class Confirmation:
    """Somebody asks a process for the proof that it leads."""

    at: str
    elected: int
    """The highest term in which anybody had been elected before this was asked."""
    floor: int
    """As of a `Read`."""


@dataclass
class Memory:
    """What the checker remembers of a process across its lives."""

    fast: object = None
    term: int = 0
    said_term: int = 0
    """The highest term it spoke in."""
    promised_index: int = 0
    """The highest index the process acknowledged as durable, unless another leader's entries replaced it."""
    log_terms: dict[int, int] = field(default_factory=dict[int, int])
    last_index: int = 0
    commit_index: int = 0
    led_term: int = 0
    heard: int = 0
    """Messages that arrived, and what is known of them at the beginning of a row of ticks."""
    row_heard: int = 0
    row_ticks: int = 0
    row_began_s: float = 0.0


class Surroundings(Protocol):
    """The world as one process sees it."""

    seen: Counter[str]

    @property
    def now_s(self) -> float: ...
    def enter(self, process: Process) -> None: ...
    def later(self, at_s: float, process: Process, what: Callable[..., None], *arguments: object) -> None: ...
    def sent(self, process: Process, peer: str, message: Message) -> bool: ...
    def writable(self, source: str, target: str) -> bool: ...
    def after(self, process: Process, *, died: bool = False) -> None: ...
    def died(self, process: Process, *, power: bool) -> None: ...
    def failed(self, process: Process, error: Exception) -> None: ...
    def proposal_ended(self, process: Process, proposal: Proposal, term: int) -> None: ...
    def read_ended(self, process: Process, read: Read) -> None: ...
    def confirmed(self, process: Process, asked: Confirmation, index: int, term: int) -> None: ...
    def count(self, what: str) -> None: ...
    def peers_changed(self, process: Process) -> None: ...
    def ticked(self, process: Process) -> None: ...


class Process:
    """Implements the core's Outlet and Hooks."""

    def __init__(
        self,
        settings: RaftSettings,
        build: Build,
        world: Surroundings,
        chance: random.Random,
        *,
        snapshot_s: tuple[float, float],
    ) -> None:
        self.settings = settings
        self.name = settings.node
        self.world = world
        self.chance = chance
        self.clock = ProcessClock(random.Random(chance.getrandbits(64)))
        self.memory = Memory()
        self.start_trouble: tuple[int | None, int | None] = None, None
        """Disk operations until the next start dies in one, or until one fails."""
        self.core: RaftCore | None = None
        self.gone = False
        """Removed from the cluster, or refused with an empty disk: it never starts again."""
        self.lost_disk = False
        self.peers: frozenset[str] = frozenset()
        """Whom it dials, and lets in."""
        self.life = 0
        self.busy_until_s = 0.0
        self.turn_s = (0.00005, 0.0005)
        """Range of true seconds between something that happens and the tick for it."""
        self.sync_s = (0.0, 0.0)
        self._build = build
        self._snapshot_s = snapshot_s
        self._requests = 0
        self._forwarded: dict[int, tuple[str, Proposal | Read]] = {}
        self._reads: list[tuple[int, Read]] = []
        self._tick_wanted = False
        self._timer_s = NEVER_S
        self._followed: str | None = None
        self._membership_version = -1
        self._expelled: ConsensusError | None = None

    @property
    def up(self) -> bool:
        return self.core is not None

    @property
    def directory(self) -> Path:
        return self.settings.data_dir

    def voters(self) -> set[str]:
        """Whose majority decides, as this process knows it."""
        configuration = self.core.configuration if self.core is not None else None
        return set(configuration.voters) if configuration is not None else set()

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Begin a life; False when it ended before it was up."""
        self.world.enter(self)
        self.life += 1
        self.disk = SimulatedDisk(self.chance, self._spend, self.world.seen) if self.life == 1 else self.disk
        self.disk.dead = False
        self.disk.dies_in, self.disk.fails_in = self.start_trouble
        self.start_trouble = None, None
        self.disk.sync_s = self.sync_s
        failing = self.disk.fails_in is not None
        before = self.data if self.life > 1 else None
        try:
            self._recover()
        except ProcessDiedError:
            self._end_start("died while starting", before, power=self.chance.random() < 0.7)
        except (DiskError, OSError):
            if not failing:
                raise
            self._end_start("failed while starting", before, power=False)
        self.disk.dies_in = self.disk.fails_in = None
        return self.up

    def _end_start(self, what: str, before: DataDirectory | None, *, power: bool) -> None:
        self.world.count(what)
        self.core = None
        if self.data is not before:
            self.close()
        self.disk.end()
        self.clock.lag_s = 0.0
        if power:
            self.disk.lose_power(self.directory)

    def _recover(self) -> None:
        self.state = ListState()
        self._build.prepare(self)
        self.clock.lag_s = 0.0
        settings = self.settings
        self.data = DataDirectory(
            self.directory,
            self.name,
            settings.cluster_id,
            self.disk,
            founding=founding(settings.node, settings.address, settings.peers),
            join=settings.join,
            segment_bytes=settings.segment_bytes,
        )
        settings = replace(settings, join=self.data.founding is None)
        self._expelled = None
        self.roster = Roster(
            node=self.name,
            cluster_id=settings.cluster_id,
            contacts=settings.peers,
            address=settings.address,
            store=self.data.store,
            stores=self.data.stores,
            incarnation=self.data.incarnation,
            remember=self.data.remember_store,
            belong=self.data.remember_incarnation,
            expelled=self._expel,
        )
        self.core = self._build.core(
            settings,
            journal=self.data.journal,
            snapshots=self.data.snapshots,
            state=self.state,
            outlet=self,
            hooks=self,
            founding=self.data.founding,
        )
        self.meet_members()
        if self.core.is_alone:
            self.core.campaign()
        self._end_event()
        self.wake()

    def die(self, *, power: bool) -> None:
        """The process ends here and now; with `power`, so does what its disk had not synced."""
        assert self.core is not None
        self.core = None
        self.close()
        if power:
            self.disk.lose_power(self.directory)
        self._tick_wanted = False
        self._timer_s = NEVER_S
        self._followed = None
        self._reads.clear()
        self._forwarded.clear()
        self.busy_until_s = 0.0
        self.world.died(self, power=power)

    def lose_disk(self) -> None:
        """Its directory is empty when it comes back under its old name: it forgot every vote and every entry."""
        shutil.rmtree(self.directory)
        self.disk.forget()
        self.lost_disk = True
        self.memory = Memory()

    def close(self) -> None:
        """Give back the file descriptors without writing anything."""
        self.disk.dead = True
        with suppress(DiskError):
            self.data.close()

    def jump_clock(self, by_s: float) -> None:
        """The clock is read at the next event; a timer that is due by then fires with it."""
        self.clock.jump(by_s)
        if self.core is not None:
            self.world.enter(self)
            self._arm()

    def pause(self, for_s: float) -> None:
        self.busy_until_s = max(self.busy_until_s, self.world.now_s + for_s)

    def run(self, what: Callable[..., object], *arguments: object) -> None:
        """One piece of the process's work; its failure ends the process, and the checker looks at the result."""
        if self.core is None:
            return
        self.world.enter(self)
        try:
            what(*arguments)
        except ProcessDiedError:
            self._end_event()
            # What it said before it died may have been heard.
            self.world.after(self, died=True)
            self.die(power=self.chance.random() < 0.7)
            return
        except Exception as error:
            self._end_event()
            self.world.after(self, died=True)
            self.world.failed(self, error)
            return
        self._end_event()
        self.world.after(self)
        if self._expelled is not None:
            self.world.failed(self, self._expelled)

    def _expel(self, error: ConsensusError) -> None:
        self._expelled = error

    def meet_members(self) -> None:
        """Let connections follow the log's configuration."""
        core = self.core
        assert core is not None
        self._membership_version = core.membership_version
        self.roster.update(core.configuration, core.configuration_index, core.committed_configuration)
        peers = frozenset(self.roster.addresses())
        if peers != self.peers:
            self.peers = peers
            self.world.peers_changed(self)

    def _spend(self, seconds: float) -> None:
        self.clock.lag_s += seconds

    def _end_event(self) -> None:
        if self.clock.lag_s:
            self.busy_until_s = max(self.busy_until_s, self.world.now_s + self.clock.lag_s)
            self.clock.lag_s = 0.0
        self._arm()

    # -- ticks ---------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        if not self._tick_wanted:
            self._tick_wanted = True
            delay_s = self.chance.uniform(*self.turn_s)
            self.world.later(self.world.now_s + delay_s, self, self.tick, self.life)

    def tick(self, life: int) -> None:
        if life == self.life and self.core is not None:
            self._tick_wanted = False
            self.run(self._tick)
            self.world.ticked(self)

    def _tick(self) -> None:
        core = self.core
        assert core is not None
        core.tick()
        if core.membership_version != self._membership_version:
            self.meet_members()
        if core.leader is not None and core.leader != self._followed:
            if self._followed is not None:
                self._peer_lost(self._followed)
            self._followed = core.leader

    def _arm(self) -> None:
        """Have a timer for the core's next deadline. A timer that is too early looks again; a later one is not
        needed."""
        core = self.core
        if core is None:
            return
        remaining_s = max(0.0, core.next_deadline_s() - self.clock.local_s(self.world.now_s)) + 0.001
        at_s = self.world.now_s + remaining_s / self.clock.rate
        if at_s < self._timer_s - 1e-9:
            self._timer_s = at_s
            self.world.later(at_s, self, self._timer, self.life, at_s)

    def _timer(self, life: int, at_s: float) -> None:
        if life != self.life or self.core is None or at_s != self._timer_s:
            return
        self._timer_s = NEVER_S
        self.world.enter(self)
        late_s = self.clock.local_s(self.world.now_s) - self.core.next_deadline_s()
        if late_s < 0:
            self._arm()
            return
        if late_s > self.settings.heartbeat_s:
            self.world.count("stall excused")
            self.run(self.core.excuse_stall)
        self.wake()

    # -- Outlet and Hooks ----------------------------------------------------------------------------------------------

    def send(self, peer: str, message: Message) -> bool:
        return self.world.sent(self, peer, message)

    def writable(self, peer: str) -> bool:
        return self.world.writable(self.name, peer)

    def progressed(self) -> None:
        if self._reads:
            self._answer_reads()

    def snapshot_due(self) -> None:
        self._after_a_while(self._capture_snapshot)

    def _after_a_while(self, what: Callable[..., None], *arguments: object) -> None:
        """What a thread of this life does or reports; anything may come before."""
        life = self.life

        def go_on() -> None:
            if life == self.life and self.core is not None:
                self.run(what, *arguments)

        self.world.later(self.world.now_s + self.chance.uniform(*self._snapshot_s), self, go_on)

    def _capture_snapshot(self) -> None:
        assert self.core is not None
        self._after_a_while(self._save_snapshot, self.core.capture())

    def _save_snapshot(self, capture: Capture) -> None:
        manifest = self.data.snapshots.save(capture)
        self.world.count("snapshot taken")
        self._after_a_while(self._snapshot_saved, manifest)

    def _snapshot_saved(self, manifest: Manifest) -> None:
        assert self.core is not None
        self.core.snapshot_saved(manifest)

    def install_due(self) -> None:
        self._after_a_while(self._prepare_install)

    def _prepare_install(self) -> None:
        assert self.core is not None
        self._after_a_while(self._finish_install, self.core.prepare_install())

    def _finish_install(self, prepared: Prepared) -> None:
        assert self.core is not None
        self.core.finish_install(prepared)

    # -- peers ---------------------------------------------------------------------------------------------------------

    def receive(self, peer: str, message: Message) -> None:
        self.run(self._receive, peer, message)

    def _receive(self, peer: str, message: Message) -> None:
        core = self.core
        assert core is not None
        match message:
            case Answer():
                self._answered(peer, message)
            case Propose():
                self._propose_for(core, peer, message)
            case ReadIndex():
                core.read(lambda index: self._send_answer(peer, message.request, index, 0, unknown=False))
            case _:
                core.receive(peer, message)

    def greet(self, target: Process) -> bool:
        """Dial `target`; whether both agree to talk."""
        hello = self.roster.hello(target.name)
        replies: list[HelloReply] = []
        target.run(lambda: replies.append(target.roster.judge(hello)))
        target.run(target.meet_members)
        if not replies or not self.up:
            return False
        reply = replies[0]
        if reply.refusal:
            self.world.count("connection refused")
            self.run(self.roster.refused, target.name, reply)
            return False
        objections: list[str] = []
        self.run(lambda: objections.append(self.roster.examine(target.name, reply)))
        return self.up and target.up and objections == [""]

    def peer_connected(self, peer: str) -> None:
        if self.core is not None:
            self.run(self.core.connected, peer)

    def peer_disconnected(self, peer: str) -> None:
        if self.core is not None:
            self.run(self.core.disconnected, peer)
            self._peer_lost(peer)

    # -- clients -------------------------------------------------------------------------------------------------------

    def propose(self, proposal: Proposal) -> None:
        self.run(self._propose, proposal)

    def _propose(self, proposal: Proposal) -> None:
        core = self.core
        assert core is not None
        leader = core.leader
        if leader == self.name:
            core.propose(proposal.entry, lambda position, reason: self._resolved(proposal, position, reason))
        elif leader is None or not self._forward(leader, proposal, lambda n: Propose(n, proposal.entry)):
            self._resolved(proposal, None, engine.NOT_LEADER)

    def read(self, read: Read) -> None:
        self.run(self._read, read)

    def _read(self, read: Read) -> None:
        core = self.core
        assert core is not None
        leader = core.leader
        if leader == self.name:
            core.read(lambda index: self._read_index(read, index))
        elif leader is None or not self._forward(leader, read, ReadIndex):
            self._read_index(read, None)

    def confirm(self, asked: Confirmation) -> None:
        self.run(self._confirm, asked)

    def _confirm(self, asked: Confirmation) -> None:
        core = self.core
        assert core is not None

        def answered(led: tuple[int, int] | None) -> None:
            if led is None:
                self.world.count("leadership refused")
            else:
                self.world.confirmed(self, asked, *led)

        core.confirm(answered)

    def change(self, make: Callable[[Configuration], Configuration]) -> None:
        """An operator asks this leader for another configuration."""
        self.run(self._change, make)

    def _change(self, make: Callable[[Configuration], Configuration]) -> None:
        core = self.core
        assert core is not None
        current = core.configuration
        if current is None or core.change_blocked():
            self.world.count("change refused")
            return
        try:
            new = make(current)
            if new != current:
                core.change_configuration(with_stores(new, self.roster.stores), self._changed)
        except RefusedError:
            self.world.count("change refused")

    def _changed(self, position: tuple[int, int] | None, reason: int) -> None:
        self.world.count("change committed" if position is not None else "change lost")

    def _forward(self, leader: str, call: Proposal | Read, make: Callable[[int], Message]) -> bool:
        self._requests += 1
        number = (self.life << 32) + self._requests
        if not self.send(leader, make(number)):
            return False
        self._forwarded[number] = leader, call
        return True

    def _propose_for(self, core: RaftCore, peer: str, message: Propose) -> None:
        def resolved(position: tuple[int, int] | None, reason: int) -> None:
            index, term = position or (0, 0)
            unknown = position is None and reason == engine.UNKNOWN_OUTCOME
            self._send_answer(peer, message.request, index if position else None, term, unknown=unknown)

        core.propose(message.entry, resolved)

    def _send_answer(self, peer: str, request: int, index: int | None, term: int, *, unknown: bool) -> None:
        self.send(peer, Answer(request, index or 0, term, refused=index is None, unknown=unknown))

    def _answered(self, peer: str, message: Answer) -> None:
        found = self._forwarded.get(message.request)
        if found is None or found[0] != peer:
            return
        del self._forwarded[message.request]
        call = found[1]
        if isinstance(call, Read):
            self._read_index(call, None if message.refused else message.index)
        elif message.unknown:
            self._resolved(call, None, engine.UNKNOWN_OUTCOME)
        else:
            position = None if message.refused else (message.index, message.term)
            self._resolved(call, position, engine.SUCCESS if position else engine.NOT_LEADER)

    def _peer_lost(self, peer: str) -> None:
        for number in [number for number, (asked, _) in self._forwarded.items() if asked == peer]:
            call = self._forwarded.pop(number)[1]
            if isinstance(call, Proposal):
                self._resolved(call, None, engine.UNKNOWN_OUTCOME)

    def _resolved(self, proposal: Proposal, position: tuple[int, int] | None, reason: int) -> None:
        index, term = position or (0, 0)
        if position is not None:
            proposal.result, proposal.index = "acknowledged", index
        else:
            proposal.result = "unknown" if reason == engine.UNKNOWN_OUTCOME else "refused"
            if reason == engine.DISCARDED:
                self.world.count("proposal discarded")
        self.world.proposal_ended(self, proposal, term)

    def _read_index(self, read: Read, index: int | None) -> None:
        if index is None:
            self.world.count("read refused")
            return
        self._reads.append((index, read))
        self._answer_reads()

    def _answer_reads(self) -> None:
        """Reads whose index this process's state has reached are answered from it."""
        assert self.core is not None
        reached = self.core.entry_index
        ready = [(index, read) for index, read in self._reads if index <= reached]
        self._reads = [(index, read) for index, read in self._reads if index > reached]
        for index, read in ready:
            read.index = index
            self.world.read_ended(self, read)
