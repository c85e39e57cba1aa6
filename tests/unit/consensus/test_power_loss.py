"""After a power loss at any moment a member has what it acknowledged, or refuses; and these tests can fail."""

from __future__ import annotations

import os
import random
import shutil
import traceback
from pathlib import Path
from typing import ClassVar

import pytest
from support.model_disk import ModelDisk, lay_out
from support.power_loss import SEGMENT_BYTES, Facts, Tally, facts_of, live, recovered
from unit.consensus.net import Net
from unit.consensus.rig import Rig

from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.journal import Journal
from controlplane.consensus.messages import AppendReply, Message, VoteReply
from controlplane.consensus.replay import LogState, Replay

SEEDS = 12
STEPS = 40


def test_random_lives_with_every_power_loss_after_every_operation() -> None:
    tally = Tally()
    for seed in range(SEEDS):
        live(seed, STEPS, tally=tally)
    assert tally.counts["states"] > 20_000
    for reached in ("failed syncs", "flipped bits", "power losses gone on from", "refused for their zeros", "starts"):
        assert tally.counts[reached] > 0, reached


@pytest.mark.parametrize("size", [0, 1, 455, 456, 457, 1200])
@pytest.mark.parametrize("entries", [1, 3])
def test_every_byte_prefix_and_every_set_of_sectors_of_the_last_batch(tmp_path: Path, size: int, entries: int) -> None:
    disk = ModelDisk()
    journal = Journal.create(tmp_path / "wal", disk)
    journal.set_term(3, "b")
    journal.add(b"acknowledged", 2, 3)
    journal.sync()
    before = facts_of(journal)
    for index in range(3, 3 + entries):
        journal.add(bytes(range(1, 256)) * 5 + bytes([index]) if size > 1000 else b"\x07" * size, index, 3)
    after = facts_of(journal)
    found = set()
    count = 0

    def check() -> None:
        nonlocal count
        for state in disk.crash_states(every_byte=True, max_sectors=10):
            count += 1
            found.add(recovered(state)[0])

    disk.on_step = check
    journal.sync()
    assert found == {before, after}
    assert count > 512
    journal.close()


def test_flipped_bits_in_a_torn_tail_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    disk = ModelDisk()
    journal = Journal.create(tmp_path / "wal", disk)
    journal.add(b"acknowledged", 2, 0)
    journal.sync()
    before = facts_of(journal)
    journal.add(b"\x55" * 900, 3, 0)
    after = facts_of(journal)
    outcomes = {"recovered": 0, "refused": 0}

    def check() -> None:
        for number, state in enumerate(disk.crash_states(every_byte=False)):
            (path,) = (path for path in state if path.suffix == ".wal")
            for bit in range(number % 101, len(state[path]) * 8, 101):
                raw = bytearray(state[path])
                raw[bit // 8] ^= 1 << bit % 8
                try:
                    assert recovered({path: bytes(raw)})[0] in (before, after)
                    outcomes["recovered"] += 1
                except CorruptDataError:
                    outcomes["refused"] += 1

    disk.on_step = check
    journal.sync()
    journal.close()
    assert min(outcomes.values()) > 100


def opened(data: Path, cluster_id: str = "c") -> Facts:
    directory = DataDirectory(data, "n1", cluster_id, Disk(durable=False))
    try:
        return facts_of(directory.journal)
    finally:
        directory.close()


def test_a_first_start_may_be_interrupted_anywhere_and_its_first_vote_is_kept(tmp_path: Path) -> None:
    disk = ModelDisk()
    root, trial = tmp_path / "life", tmp_path / "trial"
    fresh: Facts = (((b"\x01", 1, 0),), 0, None)
    voted: Facts = (*fresh[:1], 1, "n1")
    allowed = {fresh}
    count = 0

    def check() -> None:
        nonlocal count
        for state in disk.crash_states(every_byte=False):
            lay_out(state, tmp_path, trial)
            assert opened(trial / "life" / "raft") in allowed
            count += 1

    disk.on_step = check
    directory = DataDirectory(root / "raft", "n1", "c", disk)
    allowed = {fresh, voted}
    directory.journal.set_term(1, "n1")
    allowed = {voted}
    check()
    directory.close()
    # The second start, and one more.
    for _ in range(2):
        DataDirectory(root / "raft", "n1", "c", disk).close()
    assert count > 50


def test_a_conversion_may_lose_power_anywhere(tmp_path: Path) -> None:
    root, trial = tmp_path / "life", tmp_path / "trial"
    shutil.copytree(Path(__file__).with_name("golden") / "format-1", root)
    disk = ModelDisk()
    disk.adopt(root)
    shutil.copytree(root, tmp_path / "copy")
    expected = opened(tmp_path / "copy", "test-cluster")
    count = 0

    def check() -> None:
        nonlocal count
        for state in disk.crash_states(every_byte=False):
            lay_out(state, root, trial)
            assert opened(trial, "test-cluster") == expected
            count += 1

    disk.on_step = check
    DataDirectory(root, "n1", "test-cluster", disk).close()
    check()
    assert count > 20


class Promises:
    """What one member told the others, and whether every state that a power loss may leave keeps it."""

    LIMITS: ClassVar[dict[str, object]] = {"segment_bytes": 1024, "retain_entries": 2}

    def __init__(self, directory: Path, seed: int, disk_type: type[ModelDisk] = ModelDisk) -> None:
        self.chance = random.Random(seed)
        self.net = Net(directory / "net", **self.LIMITS)
        self.member = self.net.rigs["b"]
        self.trial = directory / "trial"
        self.acknowledged: tuple[int, int] = (0, 0)
        self.term = 0
        self.vote: tuple[int, str] = (0, "")
        self.proposed: list[bytes] = []
        self.tried = 0
        self.member.data.close()
        disk = disk_type()
        disk.adopt(self.member.settings.data_dir)
        self.member.disk = disk  # type: ignore[assignment]
        self.disk = disk
        send = self.member.send

        def promising(peer: str, message: Message) -> bool:
            self.note(peer, message)
            return send(peer, message)

        self.member.send = promising  # type: ignore[method-assign]
        self.member.start()
        disk.on_step = self.check

    def note(self, peer: str, message: Message) -> None:
        if isinstance(message, AppendReply | VoteReply) and not getattr(message, "pre", False):
            self.term = max(self.term, message.term)
        if isinstance(message, AppendReply) and message.success:
            term = self.member.data.journal.term_at(message.index)
            assert term is not None
            self.acknowledged = max(self.acknowledged, (message.index, term))
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            self.vote = (message.term, peer)

    def check(self) -> None:
        # A start costs a hundred times what reading a journal does: some of the states each time.
        states = list(self.disk.crash_states(every_byte=False, max_sectors=3, max_names=8))
        for state in self.chance.sample(states, min(2, len(states))):
            lay_out(state, self.member.settings.data_dir, self.trial)
            self.tried += 1
            found = Rig(self.trial, node="b", peers="ac", **self.LIMITS)
            journal = found.data.journal
            index, term = self.acknowledged
            assert journal.base_index >= index or journal.term_at(index) == term, "an acknowledged entry is gone"
            assert journal.current_term >= self.term, "a term is forgotten"
            if self.vote[1] and journal.current_term == self.vote[0]:
                assert journal.voted_for == self.vote[1], "a vote is forgotten"
            applied = found.core.applied_index
            above = (command[1:] for command, at, _ in journal[1:] if command[0] == 0 and at > applied)
            kept = [*found.state.entries, *above]
            assert kept == self.proposed[: len(kept)], "the snapshot and the log above it do not fit"
            found.data.close()

    def step(self) -> None:
        what = self.chance.random()
        leader = self.net.rigs["a"]
        if what < 0.5:
            for _ in range(3):
                self.proposed.append(self.chance.randbytes(self.chance.choice((3, 200, 700))))
                self.net.propose("a", self.proposed[-1])
        elif what < 0.65 and self.member.core.applied_index > self.member.core.snapshot_index:
            self.member.snapshot()
        elif what < 0.85:
            self.net.down.add("b")
            for _ in range(6):
                self.proposed.append(self.chance.randbytes(150))
                self.net.propose("a", self.proposed[-1])
            leader.snapshot()
            self.net.down.clear()
            leader.core.disconnected("b")
            leader.core.connected("b")
            self.net.run(40)
        else:
            self.net.restart("b")
        self.net.run()


def test_a_member_keeps_its_promises_through_snapshots_and_installs(tmp_path: Path) -> None:
    tried = 0
    for seed in range(2):
        promises = Promises(tmp_path / str(seed), seed)
        promises.net.lead("a")
        for _ in range(14):
            promises.step()
        assert promises.acknowledged[0] > 25
        tried += promises.tried
        promises.net.close()
    assert tried > 300


def test_a_member_whose_syncs_do_nothing_breaks_its_promises(tmp_path: Path) -> None:
    def broken() -> None:
        for seed in range(3):
            promises = Promises(tmp_path / str(seed), seed, NoSync)
            promises.net.lead("a")
            for _ in range(14):
                promises.step()

    with pytest.raises((AssertionError, CorruptDataError), match=r"is gone|is forgotten|durable once"):
        broken()


# -- broken builds, each of which must be found ------------------------------------------------------------------------


class NoSync(ModelDisk):
    def sync(self, fd: int) -> None:
        self.on_step()


class NoSyncOfNewFiles(ModelDisk):
    def sync_new(self, fd: int) -> None:
        self.on_step()


class NoSyncOfNames(ModelDisk):
    def sync_directory(self, path: Path) -> None:
        self.on_step()


class RenamedBeforeSynced(ModelDisk):
    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        fd = self.create(path)
        for part in parts:
            self.append(fd, part)
        self.sync_new(fd)
        self.close(fd)
        self.sync_directory(path.parent)


class Believing(Journal):
    """Counts what it reads at a start as durable, and goes on in the same file."""

    @classmethod
    def open(cls, directory: Path, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        replay = Replay.of_directory(directory)
        journal = cls(directory, disk, segment_bytes, replay.state)
        journal._segments = replay.segments
        journal._sequence, journal._chain = replay.tail.next_sequence, replay.tail.chain
        os.truncate(replay.tail.segment.path, replay.tail.segment.size)
        journal._fd = disk.open_append(replay.tail.segment.path)
        return journal


class RemovingFirst(Journal):
    """Removes segments before the log says that they are not needed."""

    def compact_to(self, index: int) -> None:
        self.sync()
        obsolete = 0
        while obsolete < len(self._segments) - 1 and self._segments[obsolete].max_index <= index:
            obsolete += 1
        self._drop(obsolete)
        super().compact_to(index)


class Overwriting(Journal):
    """Begins a new chain under the old one's first name."""

    def reset(self, index: int, term: int) -> None:
        for segment in self._segments:
            self._disk.remove(segment.path)
        self._entries = LogState().entries
        super().reset(index, term)


@pytest.mark.parametrize(
    ("disk_type", "journal_type", "found_as"),
    [
        (NoSync, Journal, "neither durable nor in flight"),
        (NoSyncOfNewFiles, Journal, "shorter than its header"),
        (NoSyncOfNames, Journal, "has no segment"),
        (RenamedBeforeSynced, Journal, "shorter than its header"),
        (ModelDisk, Believing, "neither durable nor in flight"),
        (ModelDisk, RemovingFirst, "before it is missing"),
        (ModelDisk, Overwriting, "before it is missing"),
    ],
)
def test_broken_builds_are_found(disk_type: type[ModelDisk], journal_type: type[Journal], found_as: str) -> None:
    def lives() -> None:
        for seed in range(40):
            live(seed, STEPS, tally=Tally(), disk_type=disk_type, journal_type=journal_type)

    with pytest.raises(AssertionError, match=r"seed \d+: ") as failure:
        lives()
    assert found_as in "".join(traceback.format_exception(failure.value))
