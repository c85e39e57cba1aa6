"""The faults: each harms the cluster on entry, says what it did, and repairs it on exit.

Faults of different groups may overlap. Victims come from the round's random generator and from who leads at that
moment. Repairing is idempotent, so an overlapping fault may have started again what this one ended.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from linearizability.cluster import FAKETIME, Cluster
from linearizability.doors import HttpDoor, LogDoor

from controlplane.ports import LogError

DISK_FULL = ("No space left", "ENOSPC", "disk full")
DISK_FAILED = ("Input/output error", "EIO")
REMOVED = ("removed from the cluster",)
OTHER_DISK = ("another disk",)
_DAY_S = 86_400
_EARLIER_S = 3.0
_BACK_S = 6.0


class MembersError(Exception):
    """A change of the membership was not done."""


@dataclass
class World:
    """What a fault may touch. `doors` by node: a machine that lost power took its front along."""

    cluster: Cluster
    doors: dict[str, LogDoor | HttpDoor]
    chance: random.Random
    notes: list[str] = field(default_factory=list[str])
    wanted: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Changes of the membership that are not known to be done: (`add` or `remove`, node), in order."""
    removed: list[str] = field(default_factory=list[str])
    """Nodes that the cluster has let go, and that a fault under way may still hold on to."""

    @property
    def names(self) -> list[str]:
        return list(self.cluster.nodes)

    def any_node(self) -> str:
        return self.chance.choice(self.names)

    async def leader(self) -> str:
        return await self.cluster.leader() or self.any_node()

    async def follower(self) -> str:
        leader = await self.leader()
        return self.chance.choice([name for name in self.names if name != leader])

    async def victim(self) -> str:
        """The leader as often as not."""
        return await self.leader() if self.chance.random() < 0.5 else self.any_node()

    def some(self, count: int) -> list[str]:
        return self.chance.sample(self.names, count)

    @property
    def minority(self) -> int:
        return (len(self.names) - 1) // 2

    async def filter(self, action: Callable[[], None]) -> None:
        """Change the network without holding up the clients."""
        await asyncio.to_thread(action)


Make = Callable[[World], AbstractAsyncContextManager[str]]


@dataclass(frozen=True)
class Fault:
    name: str
    group: str
    make: Make
    hold_s: tuple[float, float]
    """How long it lasts, drawn between the two."""
    needs: frozenset[str]
    """What of a round it needs: `ledger`, `control`, `small-disk`, `clocks`, `log` (the private socket), `raft`
    (nodes without a front), `lying-disks`."""

    def possible(self, offered: Iterable[str]) -> bool:
        return self.needs <= frozenset(offered)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, group: str, hold_s: tuple[float, float], needs: Sequence[str] = ()
) -> Callable[[Callable[[World], AsyncGenerator[str]]], Make]:
    def register(make: Callable[[World], AsyncGenerator[str]]) -> Make:
        context = asynccontextmanager(make)
        FAULTS[name] = Fault(name, group, context, hold_s, frozenset(needs))
        return context

    return register


# -- processes ---------------------------------------------------------------------------------------------------------


@fault("kill-leader", "process", (0.2, 4.0))
async def kill_leader(world: World) -> AsyncGenerator[str]:
    name = await world.leader()
    await world.cluster.end(name)
    yield name
    await world.cluster.start(name)


@fault("kill-one", "process", (0.0, 4.0))
async def kill_one(world: World) -> AsyncGenerator[str]:
    name = world.any_node()
    await world.cluster.end(name)
    yield name
    await world.cluster.start(name)


@fault("kill-minority", "process", (0.2, 5.0))
async def kill_minority(world: World) -> AsyncGenerator[str]:
    names = world.some(world.minority)
    await world.cluster.end(*names)
    yield ", ".join(names)
    await world.cluster.start(*names)


@fault("kill-majority", "process", (0.2, 2.5))
async def kill_majority(world: World) -> AsyncGenerator[str]:
    names = world.some(world.minority + 1)
    await world.cluster.end(*names)
    yield ", ".join(names)
    await world.cluster.start(*names)


@fault("kill-all", "process", (0.0, 1.0))
async def kill_all(world: World) -> AsyncGenerator[str]:
    await world.cluster.end()
    yield "all at once"
    await world.cluster.start()


@fault("restart-all", "process", (0.0, 0.5))
async def restart_all(world: World) -> AsyncGenerator[str]:
    """Told to end, all at once."""
    await world.cluster.end(how=signal.SIGTERM)
    yield "all at once"
    await world.cluster.start()


@fault("restart-rolling", "process", (0.5, 2.0))
async def restart_rolling(world: World) -> AsyncGenerator[str]:
    """As an operator does it: the next one when this one is back."""
    for name in world.names:
        await world.cluster.end(name, how=signal.SIGTERM)
        await world.cluster.start(name)
        give_up = time.monotonic() + _BACK_S
        while (status := await world.cluster.status(name)) is None or status.leader is None:
            if time.monotonic() > give_up:
                break
            await asyncio.sleep(0.1)
    yield "one after another"


@asynccontextmanager
async def _frozen(world: World, names: Sequence[str]) -> AsyncGenerator[str]:
    world.cluster.freeze(*names)
    try:
        yield ", ".join(names)
    finally:
        world.cluster.thaw(*names)


@fault("freeze-leader-briefly", "process", (0.05, 0.45))
async def freeze_leader_briefly(world: World) -> AsyncGenerator[str]:
    """Shorter than the election timeout."""
    async with _frozen(world, [await world.leader()]) as what:
        yield what


@fault("freeze-leader", "process", (1.2, 5.0))
async def freeze_leader(world: World) -> AsyncGenerator[str]:
    async with _frozen(world, [await world.leader()]) as what:
        yield what


@fault("freeze-follower", "process", (0.2, 5.0))
async def freeze_follower(world: World) -> AsyncGenerator[str]:
    async with _frozen(world, [await world.follower()]) as what:
        yield what


@fault("freeze-majority", "process", (0.3, 3.0))
async def freeze_majority(world: World) -> AsyncGenerator[str]:
    async with _frozen(world, world.some(world.minority + 1)) as what:
        yield what


@fault("power-loss-one", "process", (0.2, 3.0), needs=["ledger"])
async def power_loss_one(world: World) -> AsyncGenerator[str]:
    name = await world.victim()
    await _lose_power(world, [name])
    yield f"{name} ({world.notes[-1]})"
    await world.cluster.start(name)


@fault("power-loss-all", "process", (0.0, 1.0), needs=["ledger"])
async def power_loss_all(world: World) -> AsyncGenerator[str]:
    await _lose_power(world, world.names)
    yield f"all at once ({world.notes[-1]})"
    await world.cluster.start()


@fault("power-loss-after-lies", "process", (0.0, 0.2), needs=["lying-disks"])
async def power_loss_after_lies(world: World) -> AsyncGenerator[str]:
    """For the build that must be found out: every disk says that it synced, and did not."""
    for name in world.names:
        world.cluster.order_disk(name, "no-sync")
    await asyncio.sleep(1.5)
    await _lose_power(world, world.names, partly=False)
    for name in world.names:
        world.cluster.order_disk(name, "ok")
    yield f"all at once ({world.notes[-1]})"
    await world.cluster.start()


async def _lose_power(world: World, names: Sequence[str], *, partly: bool | None = None) -> None:
    """What was not synced is gone, wholly or but for a random beginning."""
    await world.cluster.end(*names)
    partly = world.chance.random() < 0.5 if partly is None else partly
    lost = {name: world.cluster.lose_power(name, world.chance if partly else None) for name in names}
    for name in names:
        await world.doors[name].restart()
    world.notes.append("unsynced bytes lost: " + ", ".join(f"{name} {count}" for name, count in lost.items()))


# -- the network -------------------------------------------------------------------------------------------------------


@fault("partition-halves", "network", (0.5, 6.0))
async def partition_halves(world: World) -> AsyncGenerator[str]:
    names = world.some(len(world.names))
    sides = names[: world.minority], names[world.minority :]
    await world.filter(lambda: world.cluster.network.split(*sides))
    yield " | ".join(map(" ".join, sides))
    await world.filter(world.cluster.network.heal)


@fault("isolate-leader", "network", (0.5, 6.0))
async def isolate_leader(world: World) -> AsyncGenerator[str]:
    leader = await world.leader()
    rest = [name for name in world.names if name != leader]
    await world.filter(lambda: world.cluster.network.split([leader], rest))
    yield leader
    await world.filter(world.cluster.network.heal)


@fault("isolate-all", "network", (0.3, 3.0))
async def isolate_all(world: World) -> AsyncGenerator[str]:
    await world.filter(lambda: world.cluster.network.split(*([name] for name in world.names)))
    yield "every node alone"
    await world.filter(world.cluster.network.heal)


@fault("one-way", "network", (0.5, 6.0))
async def one_way(world: World) -> AsyncGenerator[str]:
    """A node is heard by nobody, or hears nobody."""
    name, deaf = await world.victim(), world.chance.random() < 0.5
    others = [other for other in world.names if other != name]
    links = [(other, name) if deaf else (name, other) for other in others]
    await world.filter(lambda: world.cluster.network.cut(links))
    yield f"{name} {'hears nobody' if deaf else 'is not heard'}"
    await world.filter(world.cluster.network.heal)


@fault("one-link-one-way", "network", (0.5, 6.0))
async def one_link_one_way(world: World) -> AsyncGenerator[str]:
    source, target = world.some(2)
    await world.filter(lambda: world.cluster.network.cut([(source, target)]))
    yield f"{source} to {target}"
    await world.filter(world.cluster.network.heal)


@fault("bridge", "network", (0.5, 6.0))
async def bridge(world: World) -> AsyncGenerator[str]:
    """Two sides that reach each other through one node alone."""
    names = world.some(len(world.names))
    middle, left, right = names[0], names[1 : 1 + world.minority], names[1 + world.minority :]
    links = [link for a in left for b in right for link in ((a, b), (b, a))]
    await world.filter(lambda: world.cluster.network.cut(links))
    yield f"{' '.join(left)} - {middle} - {' '.join(right)}"
    await world.filter(world.cluster.network.heal)


@fault("packet-loss", "network", (1.0, 6.0))
async def packet_loss(world: World) -> AsyncGenerator[str]:
    percent = world.chance.choice([5, 20, 40])
    names = world.some(world.chance.randint(1, len(world.names)))
    await world.filter(lambda: world.cluster.network.lose(dict.fromkeys(names, percent)))
    yield f"{percent} % of what {', '.join(names)} should get"
    await world.filter(world.cluster.network.heal)


@fault("delay", "network", (1.0, 6.0))
async def delay(world: World) -> AsyncGenerator[str]:
    delay_ms = world.chance.choice([30, 100, 300])
    names = world.some(world.chance.randint(1, len(world.names)))

    def spoil() -> None:
        for name in names:
            world.cluster.network.delay(name, delay_ms)

    await world.filter(spoil)
    yield f"about {delay_ms} ms on what {', '.join(names)} send"
    await world.filter(world.cluster.network.heal)


# -- members -----------------------------------------------------------------------------------------------------------


@fault("transfer-leadership", "members", (0.0, 0.5), needs=["log"])
async def transfer_leadership(world: World) -> AsyncGenerator[str]:
    target = world.chance.choice([None, *world.names])
    through = world.any_node()
    try:
        leader = await world.cluster.admin(through).transfer_leadership(target, timeout_s=2.0)
    except LogError as error:
        yield f"asked through {through} for {target}: {type(error).__name__}"
    else:
        yield f"asked through {through} for {target}: {leader} leads"


@fault("replace-member", "members", (0.0, 1.0), needs=["raft"])
async def replace_member(world: World) -> AsyncGenerator[str]:
    """A new node comes, an old one goes for good: first the one or the other, and the old one may be dead already."""
    if (undone := await _undone(world)) is not None:
        yield undone
        return
    old = await world.victim()
    dead = world.chance.random() < 0.4
    world.cluster.nodes[old].may_end = True
    world.cluster.nodes[old].excuses += REMOVED
    if dead:
        await world.cluster.end(old)
    new = await _newcomer(world)
    world.wanted = [("add", new), ("remove", old)]
    if len(world.names) > 4 and world.chance.random() < 0.5:
        world.wanted.reverse()
    told = await _try_members(world, timeout_s=4.0)
    yield f"{old}{' (dead)' if dead else ''} by {new}: {told}"


@fault("lost-disk", "members", (0.3, 2.0), needs=["raft"])
async def lost_disk(world: World) -> AsyncGenerator[str]:
    """A node comes back with an empty disk under its old name: nobody may count it, and a new one takes its place."""
    if (undone := await _undone(world)) is not None:
        yield undone
        return
    old = world.any_node()
    node = world.cluster.nodes[old]
    node.may_end = True
    node.excuses += [*REMOVED, *OTHER_DISK]
    await world.cluster.end(old)
    await asyncio.to_thread(world.cluster.wipe, old)
    await world.cluster.start(old)
    new = await _newcomer(world)
    world.wanted = [("add", new), ("remove", old)]
    yield f"{old}, to be replaced by {new}"
    await _try_members(world, timeout_s=4.0)


async def _undone(world: World) -> str | None:
    """Why no change may be begun now: one at a time, until the node that it removed is taken away."""
    try:
        await settle_members(world, timeout_s=_EARLIER_S)
    except MembersError as error:
        return f"nothing, because of an earlier change: {error}"
    # Also one that was removed just now, by the end of an earlier change: it is still among the names.
    if world.removed:
        return f"nothing, because {world.removed[0]} was removed a moment ago"
    return None


async def _newcomer(world: World) -> str:
    node = await world.cluster.make_node()
    world.doors[node.name] = LogDoor(node.socket)
    return node.name


async def settle_members(world: World, *, timeout_s: float = 40.0) -> None:
    """Bring the changes that were begun to their end. Raises MembersError when the cluster does not do them in time."""
    give_up = time.monotonic() + timeout_s
    told = ""
    while world.wanted:
        if time.monotonic() > give_up:
            raise MembersError(f"not done within {timeout_s:g} s: {world.wanted} ({told})")
        told = await _try_members(world, timeout_s=min(5.0, timeout_s))
        await asyncio.sleep(0.2)


async def _try_members(world: World, *, timeout_s: float) -> str:
    """One attempt at each change that is wanted; what became of it."""
    told: list[str] = []
    while world.wanted:
        what, name = world.wanted[0]
        through = world.chance.choice([other for other in world.names if other != name and other not in world.removed])
        admin = world.cluster.admin(through)
        try:
            if what == "add":
                await admin.add_member(world.cluster.member(name), timeout_s=timeout_s)
            else:
                await admin.remove_member(name, timeout_s=timeout_s)
        except LogError as error:
            return "; ".join([*told, f"{what} {name} through {through}: {type(error).__name__}: {error}"])
        told.append(f"{what} {name}")
        world.wanted.pop(0)
        if what == "remove":
            world.removed.append(name)
    return "; ".join(told)


async def discard_removed(world: World) -> None:
    """Take away the nodes that were removed. For when no fault is under way."""
    while world.removed:
        name = world.removed.pop(0)
        await world.cluster.discard(name)
        await world.doors.pop(name).close()


# -- disks -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _disk(world: World, name: str, mode: str, **details: object) -> AsyncGenerator[None]:
    world.cluster.order_disk(name, mode, **details)
    try:
        yield
    finally:
        world.cluster.order_disk(name, "ok")
        # A node that stopped because of its disk waits for an operator; here he is.
        await world.cluster.start(name)


def _excuse(world: World, name: str, words: Sequence[str]) -> None:
    """A node may say these words and stop: its disk gave it the reason."""
    node = world.cluster.nodes[name]
    node.excuses += words
    node.may_end = True


@fault("slow-disk", "disk", (1.0, 5.0), needs=["control"])
async def slow_disk(world: World) -> AsyncGenerator[str]:
    name, ms = await world.victim(), world.chance.choice([5, 50, 300])
    async with _disk(world, name, "slow", ms=ms, operations=["sync"]):
        yield f"{ms} ms more for each sync of {name}"


@fault("failing-disk", "disk", (0.5, 4.0), needs=["control"])
async def failing_disk(world: World) -> AsyncGenerator[str]:
    name = await world.victim()
    operations = world.chance.choice([["append"], ["sync"], ["append", "sync", "replace", "remove"]])
    _excuse(world, name, DISK_FAILED)
    async with _disk(world, name, "eio", operations=operations):
        yield f"EIO from {'/'.join(operations)} of {name}"


@fault("torn-append", "disk", (0.5, 4.0), needs=["control"])
async def torn_append(world: World) -> AsyncGenerator[str]:
    """Half of the bytes are written, and then the disk is full."""
    name = await world.victim()
    _excuse(world, name, DISK_FULL)
    async with _disk(world, name, "enospc"):
        yield name


@fault("disk-full", "disk", (1.0, 5.0), needs=["small-disk"])
async def disk_full(world: World) -> AsyncGenerator[str]:
    """A real one: the node's data lies on a small tmpfs, and something else fills it."""
    name = world.cluster.small_disk
    assert name is not None
    node = world.cluster.nodes.get(name)
    if node is None:
        yield f"nothing: {name}, whose disk is small, was replaced"
        return
    _excuse(world, name, DISK_FULL)
    ballast = node.data / "ballast"

    def fill() -> None:
        block = bytes(1 << 16)
        try:
            with ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(block)
        except OSError:
            pass

    await asyncio.to_thread(fill)
    try:
        yield name
    finally:
        ballast.unlink(missing_ok=True)
        await world.cluster.start(name)


# -- clocks ------------------------------------------------------------------------------------------------------------


@fault("clock-jump", "clock", (1.5, 6.0), needs=["clocks"])
async def clock_jump(world: World) -> AsyncGenerator[str]:
    """The wall clock of some nodes is wrong from one second to the next, and right again later."""
    names = world.some(world.chance.randint(1, len(world.names)))
    offset_s = world.chance.choice([-240, -30, -2, 2, 30, 3_600, _DAY_S, 200 * _DAY_S])
    for name in names:
        world.cluster.nodes[name].clock.write_text(f"{offset_s:+d}\n")
    yield f"{', '.join(names)} by {offset_s:+d} s"
    for name in names:
        world.cluster.nodes[name].clock.write_text("+0\n")


def missing_for(needs: Iterable[str]) -> list[str]:
    """What this machine lacks for faults with these needs."""
    return (
        [f"{FAKETIME} is missing (apt-get install libfaketime)"] if "clocks" in needs and not FAKETIME.exists() else []
    )
