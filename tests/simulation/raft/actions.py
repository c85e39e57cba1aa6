"""The vocabulary of schedules. An action is a frozen record of what happens and how long after the one before; it draws
itself from a generator and applies itself to a world. A new one is a class here and a line in `VOCABULARY`.

Actions name processes by number, or the present leader by -1, so that dropping one from a schedule leaves the others
with a meaning.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec
from simulation.raft.network import Pair, Weather

from controlplane.consensus.configuration import promoted, removed, with_member
from controlplane.ports import Member

if TYPE_CHECKING:
    from simulation.raft.world import World


def someone(chance: random.Random) -> int:
    return -1 if chance.random() < 0.4 else chance.randrange(60)


class Action(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    weight: ClassVar[float] = 1.0
    after_s: float

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        raise NotImplementedError

    def apply(self, world: World) -> None:
        raise NotImplementedError


class Propose(Action, frozen=True):
    """Clients write, at a leader or anywhere else."""

    weight: ClassVar[float] = 30.0
    who: int
    count: int
    size: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(
            after_s=after_s, who=someone(chance), count=chance.choice((1, 1, 2, 5, 15)), size=chance.choice((0, 0, 200))
        )

    def apply(self, world: World) -> None:
        for _ in range(self.count):
            world.propose(world.pick(self.who), self.size)


class ReadState(Action, frozen=True):
    """A client reads, linearizably."""

    weight: ClassVar[float] = 12.0
    who: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance))

    def apply(self, world: World) -> None:
        world.read(world.pick(self.who))


class Wait(Action, frozen=True):
    """Nothing new for a while."""

    weight: ClassVar[float] = 3.0

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=chance.uniform(0.3, 2.5))

    def apply(self, world: World) -> None:
        pass


class Crash(Action, frozen=True):
    """A process dies; it comes back at once or by a later `Restart`."""

    weight: ClassVar[float] = 4.0
    who: int
    power: bool
    back: bool

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), power=chance.random() < 0.7, back=chance.random() < 0.5)

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        if process.up:
            process.die(power=self.power)
            if self.back:
                world.start(process)


class CrashInDisk(Action, frozen=True):
    """A process will die inside one of its next disk operations."""

    weight: ClassVar[float] = 4.0
    who: int
    operations: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), operations=chance.choice((1, 1, 2, 3, 5)))

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        if process.up:
            process.disk.dies_in = self.operations


class FailDisk(Action, frozen=True):
    """One of the next disk operations of a process fails. It stops, and later starts on what is there."""

    weight: ClassVar[float] = 3.0
    who: int
    operations: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), operations=chance.choice((1, 1, 2, 3, 5)))

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        if process.up:
            process.disk.fails_in = self.operations


class TroubleAtStart(Action, frozen=True):
    """The next start of a process does not get far: it dies inside a disk operation, or one fails."""

    weight: ClassVar[float] = 3.0
    who: int
    operations: int
    fails: bool

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(
            after_s=after_s, who=someone(chance), operations=chance.choice((1, 2, 3, 4)), fails=chance.random() < 0.3
        )

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        process.start_trouble = (None, self.operations) if self.fails else (self.operations, None)


class LoseDisk(Action, frozen=True):
    """A process comes back with an empty directory under its old name. One at most, which everybody has met before, and
    only where the other voters are a majority without it."""

    weight: ClassVar[float] = 1.0
    who: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=chance.randrange(60))

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        others = [other for other in world.processes.values() if other is not process and not other.gone]
        met = all(process.name in other.roster.stores for other in others)
        # Also not the second half of two voters in a change that one of the others has begun.
        known = [other.voters() for other in [process, *others] if other.up]
        enough = len(known) > len(others) and all(len(voters) != 1 and len(voters) != 2 for voters in known)
        if not enough or not met or any(p.lost_disk for p in world.processes.values()):
            return
        world.count("disk lost")
        process.die(power=True)
        process.lose_disk()
        world.start(process)


class Restart(Action, frozen=True):
    """Every process that is down comes back."""

    weight: ClassVar[float] = 6.0

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s)

    def apply(self, world: World) -> None:
        for process in list(world.processes.values()):
            if not process.up and not process.gone:
                world.start(process)


class CrashAll(Action, frozen=True):
    """The power fails everywhere at once, and returns."""

    weight: ClassVar[float] = 1.0
    power: bool

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, power=chance.random() < 0.8)

    def apply(self, world: World) -> None:
        world.count("all restarted at once")
        for process in world.processes.values():
            if process.up:
                process.die(power=self.power)
        for process in world.processes.values():
            if not process.gone:
                world.start(process)


class Pause(Action, frozen=True):
    """A process stands still (SIGSTOP, a suspended machine); what arrives waits."""

    weight: ClassVar[float] = 3.0
    who: int
    for_s: float

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), for_s=chance.choice((0.2, 0.8, 2.0, 5.0)) * chance.random())

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        if process.up:
            world.count("paused")
            process.pause(self.for_s)


class SlowDisk(Action, frozen=True):
    """Syncs of one process take long, until the next action of this kind changes it."""

    weight: ClassVar[float] = 2.0
    who: int
    up_to_s: float

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), up_to_s=chance.choice((0.0, 0.01, 0.1, 0.6)))

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        process.sync_s = (0.0, self.up_to_s)
        if process.up:
            world.count("slow disk")
            process.disk.sync_s = process.sync_s


class ClockJump(Action, frozen=True):
    """A process's monotonic clock jumps: it never should, and nothing but speed may depend on that."""

    weight: ClassVar[float] = 2.0
    who: int
    by_s: float

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), by_s=chance.choice((0.3, 1.0, 60.0, -0.5, -3.0)))

    def apply(self, world: World) -> None:
        world.count("clock jumped")
        world.pick(self.who).jump_clock(self.by_s)


class ClockRate(Action, frozen=True):
    """A process's clock runs at another speed."""

    weight: ClassVar[float] = 1.0
    who: int
    rate: float

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance), rate=chance.choice((0.3, 0.8, 1.0, 1.3, 4.0)))

    def apply(self, world: World) -> None:
        world.count("clock rate changed")
        world.pick(self.who).clock.run_at(self.rate, world.now_s)


class Partition(Action, frozen=True):
    """Groups that cannot reach each other. Kinds: `symmetric`; `asymmetric` (only one direction is cut); `bridge` (two
    groups that see each other only through one process); `isolated` (one process alone); `pair` (two processes alone);
    `link` (what `other` says to `who`)."""

    weight: ClassVar[float] = 6.0
    kind: str
    who: int
    other: int
    hold: bool

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        kind = chance.choice(("symmetric", "asymmetric", "bridge", "isolated", "pair", "link", "link"))
        return cls(
            after_s=after_s,
            kind=kind,
            who=someone(chance),
            other=chance.randrange(60),
            hold=chance.random() < 0.6,
        )

    def apply(self, world: World) -> None:
        world.count(f"partition {self.kind}")
        world.network.partition(self._pairs(world), hold=self.hold)

    def _pairs(self, world: World) -> list[Pair]:
        names = sorted(world.processes)
        one, other = world.pick(self.who).name, world.pick(self.other).name
        names.remove(one)
        middle = (len(names) + 1) // 2
        match self.kind:
            case "link":
                return [(other, one)] if other != one else []
            case "pair":
                left, right = [one, other], [name for name in names if name != other]
            case "isolated":
                left, right = [one], names
            case "bridge":
                left, right = names[:middle], names[middle:]
            case _:
                left, right = [one, *names[: middle - 1]], names[middle - 1 :]
        pairs = [(a, b) for a in left for b in right]
        return pairs if self.kind == "asymmetric" else [*pairs, *((b, a) for a, b in pairs)]


class Heal(Action, frozen=True):
    """The network is whole again."""

    weight: ClassVar[float] = 9.0

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s)

    def apply(self, world: World) -> None:
        world.network.heal(world.now_s)
        world.connect()


class HealLink(Action, frozen=True):
    """One direction between two processes works again; what it held arrives."""

    weight: ClassVar[float] = 2.0
    source: int
    target: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, source=chance.randrange(60), target=chance.randrange(60))

    def apply(self, world: World) -> None:
        pair = world.pick(self.source).name, world.pick(self.target).name
        world.network.heal(world.now_s, lambda other: other == pair)
        world.connect()


class HealCuts(Action, frozen=True):
    """What was dropped gets through again; what is held stays held."""

    weight: ClassVar[float] = 2.0

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s)

    def apply(self, world: World) -> None:
        world.network.heal(world.now_s, lambda pair: not world.network.holds(pair))
        world.connect()


class ChangeWeather(Action, frozen=True):
    """Another quality of the network."""

    weight: ClassVar[float] = 2.0
    loss: float
    duplicate: float
    reorder: float
    delay_s: tuple[float, float]

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        weather = draw_weather(chance)
        return cls(
            after_s=after_s,
            loss=weather.loss,
            duplicate=weather.duplicate,
            reorder=weather.reorder,
            delay_s=weather.delay_s,
        )

    def apply(self, world: World) -> None:
        world.network.weather = Weather(self.loss, self.duplicate, self.reorder, self.delay_s)


def draw_weather(chance: random.Random) -> Weather:
    slowest_s = chance.choice((0.001, 0.005, 0.05, 0.4, 2.0))
    return Weather(
        loss=chance.choice((0, 0, 0.02, 0.2)),
        duplicate=chance.choice((0, 0, 0.05, 0.3)),
        reorder=chance.choice((0, 0, 0.1, 0.7)),
        delay_s=(0.0002, slowest_s),
    )


class Reset(Action, frozen=True):
    """A connection breaks, losing what it held, and is made again."""

    weight: ClassVar[float] = 3.0
    source: int
    target: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, source=someone(chance), target=chance.randrange(60))

    def apply(self, world: World) -> None:
        source, target = world.pick(self.source), world.pick(self.target)
        if source is not target and source.up:
            world.count("connection reset")
            world.reset(source, target)


class Campaign(Action, frozen=True):
    """A process calls an election without asking first, as a leader's transfer makes it do."""

    weight: ClassVar[float] = 3.0
    who: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=chance.randrange(60))

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        if process.core is not None and not process.core.is_leader:
            world.count("election forced")
            process.run(process.core.campaign)


class Transfer(Action, frozen=True):
    """The leader hands over, to one process or to whoever is best."""

    weight: ClassVar[float] = 3.0
    target: int | None

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, target=chance.choice((None, chance.randrange(60))))

    def apply(self, world: World) -> None:
        leader = world.leader()
        if leader is not None and leader.core is not None:
            target = None if self.target is None else world.pick(self.target).name

            def ended(why: str) -> None:
                world.count("transfer failed" if why else "transfer")

            leader.run(leader.core.transfer, target, ended)


class AddMember(Action, frozen=True):
    """A new process joins as a learner."""

    weight: ClassVar[float] = 3.0

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s)

    def apply(self, world: World) -> None:
        leader = world.leader()
        name = world.join() if leader is not None else None
        if leader is not None and name is not None:
            world.count("learner asked for")
            leader.change(lambda now: with_member(now, Member(name, world.address_of(name), "learner")))


class PromoteMember(Action, frozen=True):
    """A learner becomes a voter, whether it has caught up or not: that is a matter of speed, not of safety."""

    weight: ClassVar[float] = 4.0
    which: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, which=chance.randrange(60))

    def apply(self, world: World) -> None:
        leader = world.leader()
        configuration = leader.core.configuration if leader is not None and leader.core is not None else None
        if leader is not None and configuration is not None and configuration.learners:
            learners = sorted(configuration.learners)
            world.count("promotion asked for")
            leader.change(lambda now: promoted(now, learners[self.which % len(learners)]))


class RemoveMember(Action, frozen=True):
    """A member is removed for good; the leader does not remove itself. One that lost its disk goes first."""

    weight: ClassVar[float] = 2.5
    who: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=chance.randrange(60))

    def apply(self, world: World) -> None:
        leader = world.leader()
        name = next((p.name for p in world.processes.values() if p.lost_disk), world.pick(self.who).name)
        if leader is not None:
            world.count("removal asked for")
            leader.change(lambda now: removed(now, name))


class Snapshot(Action, frozen=True):
    """A process takes a snapshot now and compacts its log."""

    weight: ClassVar[float] = 3.0
    who: int

    @classmethod
    def draw(cls, chance: random.Random, after_s: float) -> Self:
        return cls(after_s=after_s, who=someone(chance))

    def apply(self, world: World) -> None:
        process = world.pick(self.who)
        if process.core is not None:
            process.run(process.core.request_snapshot)


VOCABULARY: tuple[type[Action], ...] = (
    Propose,
    ReadState,
    Wait,
    Crash,
    CrashInDisk,
    FailDisk,
    TroubleAtStart,
    LoseDisk,
    Restart,
    CrashAll,
    Pause,
    SlowDisk,
    ClockJump,
    ClockRate,
    Partition,
    Heal,
    HealLink,
    HealCuts,
    ChangeWeather,
    Reset,
    Campaign,
    Transfer,
    AddMember,
    PromoteMember,
    RemoveMember,
    Snapshot,
)
ALWAYS = (Propose, ReadState, Restart, Heal)
"""Without these a schedule gets nowhere."""
