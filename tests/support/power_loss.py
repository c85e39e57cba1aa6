"""Random lives of a journal and of a member on a `ModelDisk`, with every power loss tried after every operation.

What a recovery may find is what was durable when the last operation returned, or that and the batch in flight: never
less, never a mixture, never a traceback. A refusal (CorruptDataError) is right only where a payload with a long run of
zeros makes a torn write look like damage. A failure names the seed.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from controlplane.consensus.errors import CorruptDataError, DiskError
from controlplane.consensus.journal import Journal, LogEntry
from controlplane.consensus.replay import Replay
from support.model_disk import ModelDisk, State, lay_out

SEGMENT_BYTES = 4096
SIZES = (0, 1, 30, 400, 480, 500, 900, 1500)

Facts = tuple[tuple[LogEntry, ...], int, str | None]
"""Entries with the base first, term, vote. The commit index is a hint and may lag."""


@dataclass
class Tally:
    counts: Counter[str] = field(default_factory=Counter[str])

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))


def facts_of(journal: Journal) -> Facts:
    return tuple(journal[:]), journal.current_term, journal.voted_for


def recovered(files: State) -> tuple[Facts, int]:
    """What a start would find in the journal's files, and the commit index."""
    segments = {int(path.stem): path for path in files if path.suffix == ".wal"}
    if not segments:
        raise CorruptDataError("the journal has no segment")
    state = Replay(segments, lambda path, limit: files[path][: limit if limit >= 0 else None]).state
    return (tuple(state.entries), state.current_term, state.voted_for), state.commit_index


class JournalLife:
    """One journal through random operations, restarts, failed syncs and power losses."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        disk_type: type[ModelDisk] = ModelDisk,
        journal_type: type[Journal] = Journal,
        every_byte: bool = False,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally or Tally()
        self._chance = random.Random(seed)
        self._root = root
        self._disk_type = disk_type
        self._journal_type = journal_type
        self._every_byte = every_byte
        self._incarnation = 0
        self._zeros = False
        self._expected: tuple[Facts, ...] = ()
        self._disk = disk_type()
        self._directory = root / "life" / "wal"
        self._disk.make_directory(self._directory.parent)
        self._journal = journal_type.create(self._directory, self._disk, segment_bytes=SEGMENT_BYTES)
        self._attach()

    def _attach(self) -> None:
        self._complete()
        journal_sync = self._journal.sync

        def sync() -> None:
            journal_sync()
            self._complete()

        self._journal.sync = sync  # type: ignore[method-assign]
        self._disk.on_step = self._check

    def _complete(self) -> None:
        self._zeros = False
        self._completed = facts_of(self._journal)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()
            self._complete_if_clean()
            self._check()
        self._flip_bits(20)
        self._journal.close()

    def _complete_if_clean(self) -> None:
        if not self._journal.dirty:
            self._complete()

    def _step(self) -> None:
        chance, journal = self._chance, self._journal
        what = chance.random()
        if what < 0.55:
            for _ in range(chance.choice((1, 1, 2, 4))):
                journal.add(self._command(), journal.last_index + 1, max(1, journal.current_term))
            journal.sync()
        elif what < 0.63:
            journal.set_term(journal.current_term + chance.randint(0, 1), chance.choice((None, "a", "b")))
        elif what < 0.70:
            floor = max(journal.base_index, journal.commit_index)
            if journal.last_index > floor:
                journal.truncate_from(chance.randint(floor + 1, journal.last_index))
                journal.add(self._command(), journal.last_index + 1, journal.current_term)
                journal.sync()
        elif what < 0.80:
            journal.set_commit_index(chance.randint(journal.commit_index, journal.last_index))
        elif what < 0.86:
            journal.compact_to(chance.randint(journal.base_index, journal.commit_index))
        elif what < 0.88:
            journal.reset(journal.last_index + chance.randint(0, 3), max(1, journal.current_term))
        elif what < 0.94:
            self._restart()
        elif what < 0.97:
            self._fail_a_sync()
        else:
            self._lose_power()

    def _command(self) -> bytes:
        size = self._chance.choice(SIZES)
        if self._chance.random() < 0.1:
            self._zeros = self._zeros or size >= 128
            return bytes(size)
        return self._chance.randbytes(size)

    def _restart(self) -> None:
        """The process is killed and started again: what it wrote is still readable."""
        self._disk.on_step = lambda: None
        self._journal.close()
        self._reopen(facts_of(self._journal))

    def _reopen(self, *expected: Facts) -> None:
        """A start finds one of `expected`; a power loss in the middle of it leaves one of them too."""
        self._expected = expected
        self._disk.on_step = self._check
        journal = self._journal_type.open(self._directory, self._disk, segment_bytes=SEGMENT_BYTES)
        assert facts_of(journal) in expected, "the start found something else"
        self._expected = ()
        self._journal = journal
        self._attach()
        self.tally.counts["starts"] += 1

    def _fail_a_sync(self) -> None:
        journal = self._journal
        journal.add(self._command(), journal.last_index + 1, max(1, journal.current_term))
        self._disk.fail_syncs = True
        try:
            journal.sync()
        except DiskError:
            self._disk.fail_syncs = False
        self._disk.on_step = lambda: None
        journal.close()
        self._reopen(self._completed, facts_of(journal))
        self.tally.counts["failed syncs"] += 1

    def _lose_power(self) -> None:
        """Go on from one of the states that a power loss may leave."""
        journal = self._journal
        for _ in range(2):
            journal.add(self._command(), journal.last_index + 1, max(1, journal.current_term))
        before, in_flight = self._completed, facts_of(journal)
        states: list[State] = []
        self._disk.on_step = lambda: states.extend(self._disk.crash_states(every_byte=False))
        journal.sync()
        self._disk.on_step = lambda: None
        journal.close()
        state = self._chance.choice(states)
        self._incarnation += 1
        root = self._root / f"life{self._incarnation}"
        lay_out(state, self._directory.parent, root)
        self._directory = root / "wal"
        self._disk = self._disk_type()
        self._disk.adopt(root)
        try:
            found, _ = recovered(state)
            assert found in (before, in_flight), _differs(found, (before, in_flight))
            self._reopen(found)
        except CorruptDataError as error:
            if not self._zeros:
                raise AssertionError("a power loss was taken for damage") from error
            self._begin_anew()
        self.tally.counts["power losses gone on from"] += 1

    def _begin_anew(self) -> None:
        self._incarnation += 1
        self._zeros = False
        self._disk = self._disk_type()
        self._directory = self._root / f"life{self._incarnation}" / "wal"
        self._disk.make_directory(self._directory.parent)
        self._journal = self._journal_type.create(self._directory, self._disk, segment_bytes=SEGMENT_BYTES)
        self._attach()

    # -- what must hold ------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        allowed = self._expected or (self._completed, facts_of(self._journal))
        for state in self._disk.crash_states(every_byte=self._every_byte):
            self.tally.counts["states"] += 1
            try:
                found, commit_index = recovered(state)
            except CorruptDataError as error:
                if not self._zeros:
                    raise AssertionError("a power loss was taken for damage") from error
                self.tally.counts["refused for their zeros"] += 1
                continue
            assert found in allowed, (
                f"recovered neither what was durable nor what was in flight: {_differs(found, allowed)}"
            )
            assert commit_index <= self._journal.commit_index

    def _flip_bits(self, count: int) -> None:
        """Damage of durable bytes is refused; never is anything lost silently."""
        (state, *_) = self._disk.crash_states(every_byte=False)
        for _ in range(count):
            path = self._chance.choice(sorted(state))
            bit = self._chance.randrange(len(state[path]) * 8)
            raw = bytearray(state[path])
            raw[bit // 8] ^= 1 << bit % 8
            self.tally.counts["flipped bits"] += 1
            try:
                found, _ = recovered({**state, path: bytes(raw)})
            except CorruptDataError:
                continue
            # Only in a file that does not count any more.
            assert found == self._completed, f"bit {bit} of {path.name} changed what is recovered"


def _differs(found: Facts, allowed: tuple[Facts, ...]) -> str:
    def show(facts: Facts) -> str:
        entries, term, vote = facts
        return f"base {entries[0][1]}, last {entries[-1][1:]}, term {term}, vote {vote}"

    return (
        f"recovered is what was neither durable nor in flight: {show(found)}; allowed: {' | '.join(map(show, allowed))}"
    )


def live(
    seed: int,
    steps: int,
    *,
    tally: Tally,
    disk_type: type[ModelDisk] = ModelDisk,
    journal_type: type[Journal] = Journal,
    every_byte: bool = False,
) -> None:
    """One life of `steps` operations. Raises AssertionError that names the seed."""
    with TemporaryDirectory() as name:
        life = JournalLife(
            Path(name), seed, disk_type=disk_type, journal_type=journal_type, every_byte=every_byte, tally=tally
        )
        try:
            life.run(steps)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    tally.counts["seeds"] += 1
