"""Three cores under random schedules: messages are delayed, lost and repeated, members crash and forget what was not
synced.

After every step: no two members disagree on a committed entry (log matching, state-machine safety), nobody leads
twice in a term, and in the end everything acknowledged is in every member's log. A failure prints the seed; the seed
replays it.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from unit.consensus.rig import Rig

from controlplane.consensus import engine
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError, DivergedError, SafetyViolationError
from controlplane.consensus.messages import Message

SEEDS = range(100)
STEPS = 600
NAMES = "abc"


class ForgetfulDisk(Disk):
    """Knows how much of the journal was synced, so that a crash can drop the rest."""

    def __init__(self, *, honest: bool) -> None:
        super().__init__(durable=False)
        self._honest = honest
        self.lost_from: int | None = None

    def append(self, fd: int, data: bytes | bytearray) -> None:
        if self.lost_from is None:
            self.lost_from = os.fstat(fd).st_size
        super().append(fd, data)

    def sync(self, fd: int) -> None:
        if self._honest:
            self.lost_from = None

    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        super().replace(path, *parts)
        self.lost_from = None

    def crash(self, path: Path, chance: random.Random) -> None:
        """Keep a random prefix of what was not synced."""
        if self.lost_from is None:
            return
        raw = path.read_bytes()
        keep = self.lost_from if not self._honest else chance.randint(self.lost_from, len(raw))
        path.write_bytes(raw[:keep])
        self.lost_from = None


class World:
    def __init__(self, seed: int, directory: Path, *, honest: bool = True) -> None:
        self.chance = random.Random(seed)
        random.seed(seed)
        self.wire: list[tuple[str, str, Message]] = []
        self.acknowledged: list[bytes] = []
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.leaders: dict[int, str] = {}
        self.rigs: dict[str, Rig] = {}
        self.proposed = 0
        for name in NAMES:
            rig = Rig(
                directory / name,
                node=name,
                peers=NAMES.replace(name, ""),
                heartbeat_s=1e-6,
                election_min_s=4e-6,
                election_max_s=1000.0,
                snapshot_entries=15,
                retain_entries=3,
                segment_bytes=2048,
            )
            rig.data.close()
            rig.disk = ForgetfulDisk(honest=honest)  # type: ignore[assignment]
            rig.start()
            self.rigs[name] = rig
            self.plug(rig)

    def plug(self, rig: Rig) -> None:
        def send(peer: str, message: Message) -> bool:
            self.wire.append((rig.settings.node, peer, message))
            return True

        def snapshot_due() -> None:
            index, term, entry_index, data = rig.core.dump()
            meta = rig.data.snapshots.describe(index, term, entry_index, data)
            rig.data.snapshots.save(meta, data)
            rig.core.snapshot_saved(meta)

        rig.send = send  # type: ignore[method-assign]
        rig.snapshot_due = snapshot_due  # type: ignore[method-assign]

    def step(self) -> None:
        chance = self.chance
        rig = self.rigs[chance.choice(NAMES)]
        what = chance.random()
        if what < 0.80 and self.wire:
            self.deliver()
        elif what < 0.85:
            rig.core.tick()
        elif what < 0.97:
            leading = [r for r in self.rigs.values() if r.core.is_leader]
            self.propose(chance.choice(leading or [rig]))
        elif what < 0.985:
            rig.core.campaign()
            rig.core.tick()
        else:
            self.crash(rig)
        self.check()

    def deliver(self) -> None:
        chance = self.chance
        at = chance.randrange(min(len(self.wire), 8))
        source, target, message = self.wire[at]
        if chance.random() > 0.1:
            del self.wire[at]
        if chance.random() > 0.1:
            self.rigs[target].core.receive(source, message)
            if chance.random() < 0.5:
                self.rigs[target].core.tick()

    def propose(self, rig: Rig) -> None:
        self.proposed += 1
        entry = b"%d" % self.proposed

        def resolved(position: object, reason: int) -> None:
            if reason == engine.SUCCESS:
                self.acknowledged.append(entry)

        rig.core.propose(entry, resolved)

    def crash(self, rig: Rig) -> None:
        journal = max((rig.settings.data_dir / "wal").glob("*.wal"))
        os.close(rig.data.journal._fd)
        rig.data.journal._fd = -1
        os.close(rig.data._lock_fd)
        rig.disk.crash(journal, self.chance)  # type: ignore[attr-defined]
        rig.start()

    def check(self) -> None:
        for name, rig in self.rigs.items():
            core, journal = rig.core, rig.data.journal
            if core.is_leader:
                assert self.leaders.setdefault(core.term, name) == name, f"two leaders in term {core.term}"
            for command, index, term in journal[1 : core.commit_index - journal.base_index + 1]:
                known = self.committed.setdefault(index, (term, command))
                assert known == (term, command), f"{name} has another entry at {index}"

    def settle(self) -> None:
        """A healthy stretch at the end: everybody catches up."""
        for rig in self.rigs.values():
            # A lost snapshot chunk is sent again after seconds, or at once on a new connection.
            for peer in rig.settings.peers:
                rig.core.disconnected(peer)
                rig.core.connected(peer)
        leader = self.rigs["a"]
        for _ in range(200):
            if not leader.core.is_leader:
                leader = self.rigs[self.chance.choice(NAMES)]
                leader.core.campaign()
            for _ in range(30):
                for rig in self.rigs.values():
                    rig.core.tick()
                wire, self.wire = self.wire, []
                for source, target, message in wire:
                    self.rigs[target].core.receive(source, message)
            self.check()
            last = leader.data.journal.last_index
            if leader.core.is_leader and all(rig.core.applied_index == last for rig in self.rigs.values()):
                return
        raise AssertionError("the members do not agree after the faults ended")

    def verdict(self) -> None:
        states = [rig.state.entries for rig in self.rigs.values()]
        assert states[0] == states[1] == states[2]
        assert len(set(states[0])) == len(states[0]), "an entry was applied twice"
        missing = set(self.acknowledged) - set(states[0])
        assert not missing, f"acknowledged and lost: {missing}"

    def close(self) -> None:
        for rig in self.rigs.values():
            # One that could not be started again after its crash is closed already.
            with suppress(OSError):
                rig.data.close()


def run(seed: int, *, honest: bool = True) -> World:
    with TemporaryDirectory() as directory:
        world = World(seed, Path(directory), honest=honest)
        try:
            for _ in range(STEPS):
                world.step()
            world.settle()
            world.verdict()
        finally:
            world.close()
        return world


def test_random_schedules_lose_nothing_and_never_disagree() -> None:
    acknowledged = snapshots = 0
    for seed in SEEDS:
        try:
            world = run(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        acknowledged += len(world.acknowledged)
        snapshots += sum(rig.core.snapshot_index > 0 for rig in world.rigs.values())
    # The schedules must get somewhere, or they prove nothing.
    assert acknowledged > 5 * len(SEEDS)
    assert snapshots > len(SEEDS) / 4


def test_the_schedules_find_a_disk_that_does_not_sync() -> None:
    broken = r"two leaders|another entry|is committed, but|and lost|do not agree|does not exist|has diverged|is missing"

    def all_schedules() -> None:
        for seed in SEEDS:
            run(seed, honest=False)

    with pytest.raises((AssertionError, CorruptDataError, SafetyViolationError, DivergedError), match=broken):
        all_schedules()
