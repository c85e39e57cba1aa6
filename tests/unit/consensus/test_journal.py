"""The journal recovers exactly what was durable, or says clearly that it cannot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError, DiskError, DiskFullError
from controlplane.consensus.journal import Journal
from controlplane.consensus.segments import SECTOR_BYTES

DISK = Disk(durable=False)
COMMANDS = st.binary(max_size=40) | st.sampled_from([b"x" * 600, bytes(3000), b"\xff" * 1500])
Facts = tuple[object, ...]


def facts(journal: Journal) -> Facts:
    return journal[:], journal.current_term, journal.voted_for, journal.commit_index


def reopened(directory: Path) -> Facts:
    """What a start finds. It leaves another newest segment behind, with the same bytes."""
    journal = Journal.open(directory, DISK)
    try:
        return facts(journal)
    finally:
        journal.close()


def newest(directory: Path) -> Path:
    return max(directory.glob("*.wal"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def filled(
    path: Path, batches: list[list[bytes]], segment_bytes: int = 1 << 20
) -> tuple[Journal, list[tuple[int, Facts]]]:
    """A journal with one sync per batch, and (size, facts) after each sync."""
    journal = Journal.create(path, DISK, segment_bytes=segment_bytes)
    journal.set_term(1, "n1")
    history = [(journal.size_bytes, facts(journal))]
    for batch in batches:
        for command in batch:
            journal.add(command, journal.last_index + 1, 1)
        journal.sync()
        history.append((journal.size_bytes, facts(journal)))
    return journal, history


ACTIONS: dict[str, Callable[[Journal, int], None]] = {
    "truncate": lambda j, n: (
        j.truncate_from(max(j.base_index, j.commit_index) + 1 + n % (j.last_index - j.commit_index))
        if j.last_index > max(j.base_index, j.commit_index)
        else None
    ),
    "commit": lambda j, n: j.set_commit_index(min(j.last_index, j.commit_index + n % 3)),
    "term": lambda j, n: j.set_term(j.current_term + n % 2, f"n{n % 3}"),
    "compact": lambda j, n: j.compact_to(min(j.commit_index, j.base_index + n % 4)),
    "reset": lambda j, n: j.reset(j.last_index + n % 5, j.last_term),
    "sync": lambda j, n: j.sync(),
}
STEPS = st.lists(
    st.one_of(COMMANDS, st.tuples(st.sampled_from([*sorted(ACTIONS), "open", "all"]), st.integers(0, 50))), max_size=60
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from([1 << 20, 4096, 1024]))
def test_whatever_was_synced_comes_back(steps: list[bytes | tuple[str, int]], segment_bytes: int) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name) / "wal"
        journal = Journal.create(directory, DISK, segment_bytes=segment_bytes)
        for step in steps:
            if isinstance(step, bytes):
                journal.add(step, journal.last_index + 1, max(journal.current_term, journal.last_term))
            elif step[0] == "open":
                journal.close()
                journal = Journal.open(directory, DISK, segment_bytes=segment_bytes)
            elif step[0] == "all":
                journal.set_commit_index(journal.last_index)
            else:
                ACTIONS[step[0]](journal, step[1])
        dirty = journal.dirty
        journal.sync()
        entries, *expected = facts(journal)
        found_entries, *found = reopened(directory)
        assert found_entries == entries
        # The commit index alone may lag: it is written with the next batch.
        assert found[:2] == expected[:2]
        assert found[2] <= expected[2]  # type: ignore[operator]
        assert found[2] == expected[2] or not dirty
        journal.close()


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(COMMANDS, min_size=1, max_size=3), min_size=1, max_size=4), st.data())
def test_a_flipped_bit_is_refused_and_never_loses_an_entry(batches: list[list[bytes]], data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name) / "wal"
        journal, _ = filled(directory, batches, data.draw(st.sampled_from([1 << 20, 2048])))
        journal.close()
        path = data.draw(st.sampled_from(sorted(directory.glob("*.wal"))))
        raw = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, len(raw) * 8 - 1))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        with pytest.raises(CorruptDataError, match=str(directory)):
            reopened(directory)


def test_a_damaged_batch_with_others_behind_it_is_refused_even_when_it_looks_torn(path: Path) -> None:
    journal, history = filled(path, [[b"a"], [b"b"], [b"c"]])
    journal.close()
    raw = bytearray(newest(path).read_bytes())
    at = history[1][0]
    raw[at : at + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    newest(path).write_bytes(raw)
    with pytest.raises(CorruptDataError, match="durable once"):
        Journal.open(path, DISK)


def test_an_entry_that_looks_like_a_batch_is_not_taken_for_one(path: Path) -> None:
    journal, history = filled(path, [[b"a"], [b"b"]])
    later = newest(path).read_bytes()[history[1][0] :]
    # What a user writes may contain whole batches of an older file, at every alignment.
    forged = b"".join(later[: SECTOR_BYTES - 1] + b"." for _ in range(8))
    journal.close()
    journal = Journal.create(path, DISK)
    journal.add(b"kept", 2, 0)
    journal.sync()
    expected, size = facts(journal), journal.size_bytes
    journal.add(forged * 3, 3, 0)
    journal.sync()
    journal.close()
    raw = bytearray(newest(path).read_bytes())
    raw[size : size + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    newest(path).write_bytes(raw)
    assert reopened(path) == expected


def test_a_batch_that_is_missing_in_the_middle_is_refused(path: Path) -> None:
    journal, history = filled(path, [[b"a"], [b"b"], [b"c"]])
    journal.close()
    raw = newest(path).read_bytes()
    newest(path).write_bytes(raw[: history[1][0]] + raw[history[2][0] :])
    with pytest.raises(CorruptDataError, match="batch 4 stands where 3 belongs"):
        Journal.open(path, DISK)


def test_after_a_torn_tail_the_journal_goes_on(path: Path) -> None:
    journal, _ = filled(path, [[b"a"], [b"b" * 2000]])
    journal.close()
    newest(path).write_bytes(newest(path).read_bytes()[:-700])
    journal = Journal.open(path, DISK)
    assert [command for command, _, _ in journal[1:]] == [b"a"]
    journal.add(b"c", journal.last_index + 1, 1)
    journal.sync()
    expected = facts(journal)
    journal.close()
    assert reopened(path) == expected


@pytest.mark.parametrize("raw", [b"", b"short", b"x" * 600, bytes(2048)])
def test_another_file_is_not_taken_for_a_segment(path: Path, raw: bytes) -> None:
    path.mkdir()
    (path / "0000000000000001.wal").write_bytes(raw)
    with pytest.raises(CorruptDataError):
        Journal.open(path, DISK)


class FullDisk(Disk):
    """Takes half of a write and then has no space left, until there is some again."""

    full = False
    space = 1 << 40

    def append(self, fd: int, data: bytes | bytearray) -> None:
        if not self.full:
            super().append(fd, data)
            return
        self.full = False
        super().append(fd, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    def free_bytes(self, path: Path) -> int:
        return self.space


def test_a_full_disk_leaves_a_journal_that_opens_again(path: Path) -> None:
    disk = FullDisk(durable=False)
    journal = Journal.create(path, disk)
    journal.add(b"kept", 2, 1)
    journal.sync()
    expected = facts(journal)
    disk.full = True
    journal.add(b"half", 3, 1)
    with pytest.raises(DiskFullError, match=r"disk full .No space"):
        journal.sync()
    journal.add(b"later", 4, 1)
    journal.close()
    disk.space = 1 << 20
    with pytest.raises(DiskFullError, match=r"1048576 bytes are free, 4[0-9]+ are needed"):
        Journal.open(path, disk)
    disk.space = 1 << 40
    journal = Journal.open(path, disk)
    assert facts(journal) == expected
    journal.close()


def test_the_term_never_goes_back(path: Path) -> None:
    journal, _ = filled(path, [])
    journal.set_term(7, None)
    with pytest.raises(AssertionError):
        journal.set_term(6, "n1")
    journal.close()


# -- segments ----------------------------------------------------------------------------------------------------------


def test_compaction_removes_whole_segments_and_rewrites_nothing(path: Path) -> None:
    journal, _ = filled(path, [[b"x" * 1000]] * 50, segment_bytes=8192)
    before = {p: p.stat().st_ino for p in path.glob("*.wal")}
    size = journal.size_bytes
    assert size == sum(p.stat().st_size for p in before)
    assert len(before) > 8
    journal.set_commit_index(51)
    journal.compact_to(41)
    after = {p: p.stat().st_ino for p in path.glob("*.wal")}
    assert after.items() <= before.items()
    assert journal.size_bytes == sum(p.stat().st_size for p in after) < size / 3
    assert (journal.base_index, journal.last_index, journal.term_at(40)) == (41, 51, None)
    expected = facts(journal)
    journal.close()
    assert reopened(path) == expected


def test_a_compacted_segment_that_comes_back_changes_nothing(path: Path) -> None:
    journal, _ = filled(path, [[b"x" * 1000]] * 20, segment_bytes=4096)
    before = {p: p.read_bytes() for p in path.glob("*.wal")}
    journal.set_commit_index(21)
    journal.compact_to(15)
    expected = facts(journal)
    journal.close()
    gone = [p for p in sorted(before) if not p.exists()]
    assert len(gone) > 2
    now = {p: p.read_bytes() for p in path.glob("*.wal")}
    for back in (gone[:1], gone[1:], gone[-1:], gone):
        for p in back:
            p.write_bytes(before[p])
        assert reopened(path) == expected
        for p in path.iterdir():
            p.unlink()
        for p, raw in now.items():
            p.write_bytes(raw)


def test_any_missing_shortened_or_exchanged_segment_is_refused(path: Path) -> None:
    journal, history = filled(path, [[b"x" * 1000]] * 12, segment_bytes=4096)
    journal.close()
    files = sorted(path.glob("*.wal"))
    assert len(files) >= 4
    good = {p: p.read_bytes() for p in files}

    def restore() -> None:
        for p in path.iterdir():
            p.unlink()
        for p, raw in good.items():
            p.write_bytes(raw)

    for p in files[:-1]:
        p.unlink()
        with pytest.raises(CorruptDataError, match=r"is missing|no segment"):
            Journal.open(path, DISK)
        restore()
        for size in range(0, len(good[p]), SECTOR_BYTES // 2):
            p.write_bytes(good[p][:size])
            with pytest.raises(CorruptDataError):
                Journal.open(path, DISK)
        restore()
    for one, other in itertools.pairwise(files):
        one.write_bytes(good[other])
        other.write_bytes(good[one])
        with pytest.raises(CorruptDataError, match="by its header"):
            Journal.open(path, DISK)
        restore()
    assert reopened(path) == history[-1][1]


def test_segments_of_another_history_do_not_fit(tmp_path: Path) -> None:
    one, _ = filled(tmp_path / "one", [[b"x" * 1000]] * 12, segment_bytes=4096)
    two, _ = filled(tmp_path / "two", [[b"y" * 1000]] * 12, segment_bytes=4096)
    one.close()
    two.close()
    name = sorted((tmp_path / "one").glob("*.wal"))[1].name
    (tmp_path / "one" / name).write_bytes((tmp_path / "two" / name).read_bytes())
    with pytest.raises(CorruptDataError, match="continues another batch"):
        Journal.open(tmp_path / "one", DISK)


def test_truncation_reaches_into_older_segments_and_survives_compaction(path: Path) -> None:
    journal, _ = filled(path, [[b"x" * 1000]] * 12, segment_bytes=4096)
    journal.truncate_from(4)
    for _ in range(12):
        journal.add(b"z" * 1000, journal.last_index + 1, 2)
        journal.sync()
    journal.set_commit_index(9)
    for base in (3, 4, 9):
        journal.compact_to(base)
        expected = facts(journal)
        journal.close()
        journal = Journal.open(path, DISK, segment_bytes=4096)
        assert facts(journal) == expected
    journal.close()


def test_a_start_writes_what_it_read_into_a_new_segment_before_it_counts(path: Path) -> None:
    journal, _ = filled(path, [[b"a"], [b"b"]])
    journal.close()
    old = newest(path)
    operations: list[str] = []

    class Watched(Disk):
        def replace(self, path: Path, *parts: bytes | bytearray) -> None:
            super().replace(path, *parts)
            operations.append(f"replace {path.name}")

        def remove(self, path: Path) -> None:
            operations.append(f"remove {path.name}")
            super().remove(path)

    journal = Journal.open(path, Watched(durable=True))
    journal.close()
    assert operations == ["replace 0000000000000002.wal", f"remove {old.name}"]
    assert [p.name for p in path.iterdir()] == ["0000000000000002.wal"]


def test_a_reset_begins_a_new_chain(path: Path) -> None:
    journal, _ = filled(path, [[b"x" * 1000]] * 12, segment_bytes=4096)
    journal.set_term(4, "n2")
    journal.reset(100, 3)
    assert len(list(path.iterdir())) == 1
    journal.add(b"next", 101, 4)
    journal.sync()
    expected = facts(journal)
    assert expected[0] == [(b"\x01", 100, 3), (b"next", 101, 4)]
    journal.close()
    assert reopened(path) == expected


@pytest.mark.parametrize("operation", ["append", "sync", "replace"])
def test_a_failing_operation_names_the_file_and_what_remains_true(path: Path, operation: str) -> None:
    class Broken(Disk):
        broken = False

        def fail(self, name: str) -> None:
            if self.broken and name == operation:
                raise OSError(5, "Input/output error")

        def append(self, fd: int, data: bytes | bytearray) -> None:
            self.fail("append")
            super().append(fd, data)

        def sync(self, fd: int) -> None:
            self.fail("sync")
            super().sync(fd)

        def replace(self, path: Path, *parts: bytes | bytearray) -> None:
            self.fail("replace")
            super().replace(path, *parts)

    disk = Broken(durable=False)
    journal = Journal.create(path, disk, segment_bytes=2048)
    journal.add(b"kept", 2, 1)
    journal.sync()
    expected = facts(journal)
    disk.broken = True
    journal.add(b"x" * 4000, 3, 1)
    with pytest.raises(DiskError, match=r"writing .*\.wal: .*Input/output error.*is not affected"):
        journal.sync()
    journal.close()
    found = reopened(path)
    entries = found[0]
    assert isinstance(entries, list)
    assert entries[:2] == expected[0]
