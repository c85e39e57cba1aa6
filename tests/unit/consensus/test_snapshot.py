"""Snapshots on disk: whole or refused, only what changed is written, and a crash leaves the old or the new one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.consensus.support import BLOCK, ListState

from controlplane.consensus.configuration import Configuration, decode, encode
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.pacing import AbandonedError
from controlplane.consensus.snapshot import MAX_PACKS, RETAINED, Capture, SnapshotDirectory
from controlplane.machine.codec import digest_text
from controlplane.machine.entry import MachineState
from controlplane.manifest import Manifest, decode_manifest
from controlplane.ports import Member

DISK = Disk(durable=False)
MEMBERS = Configuration(3, (Member("a", "127.0.0.1:1", "voter"),))
GOLDEN = Path(__file__).with_name("golden") / "snapshot.format1"


class CountingDisk(Disk):
    """Counts what is written to packs, and every operation."""

    def __init__(self) -> None:
        super().__init__(durable=False)
        self.written = 0

    def append(self, fd: int, data: bytes | bytearray) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".pack":
            self.written += len(data)
        super().append(fd, data)


class Crash(BaseException):
    pass


class CrashingDisk(Disk):
    """Stops everything at the n-th operation, before it or in the middle of it."""

    def __init__(self, at: int) -> None:
        super().__init__(durable=False)
        self.left = at

    def _operation(self) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1

    def open_append(self, path: Path) -> int:
        self._operation()
        return super().open_append(path)

    def append(self, fd: int, data: bytes | bytearray) -> None:
        if self.left == 0:
            super().append(fd, data[: len(data) // 2])
        self._operation()
        super().append(fd, data)

    def sync(self, fd: int) -> None:
        self._operation()
        super().sync(fd)

    def replace(self, path: Path, *parts: bytes | bytearray) -> None:
        self._operation()
        super().replace(path, *parts)

    def remove(self, path: Path) -> None:
        self._operation()
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._operation()
        super().sync_directory(path)


def grown(state: ListState, entries: int) -> ListState:
    for _ in range(entries):
        index = state.indexes[-1] + 1 if state.indexes else 2
        state.apply(index, 1, b"entry %d" % index)
    return state


def capture(state: ListState) -> Capture:
    index = state.indexes[-1] if state.indexes else 1
    return Capture(index, 1, index, encode(MEMBERS), 1, state.view())


def opened(path: Path, disk: Disk = DISK) -> tuple[SnapshotDirectory, ListState, Manifest | None]:
    state = ListState()
    snapshots = SnapshotDirectory(path, disk, "c")
    return snapshots, state, snapshots.recover(state)


def packs(path: Path) -> list[Path]:
    return sorted(path.glob("*.pack"))


def test_a_snapshot_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, found = opened(path)
    assert found is None
    manifest = snapshots.save(capture(grown(state, 3 * BLOCK + 1)))
    assert (manifest.index, manifest.incarnation) == (3 * BLOCK + 2, 3)
    assert (decode(manifest.configuration), manifest.configuration_index) == (MEMBERS, 1)
    assert len(manifest.chunks) == 4
    _, again, found = opened(path)
    assert found == manifest
    assert again.digest() == state.digest()
    reader = snapshots.reader()
    assert reader is not None
    with reader:
        assert decode_manifest(reader.encoded) == manifest


def test_an_older_snapshot_never_replaces_a_newer_one(tmp_path: Path) -> None:
    snapshots, state, _ = opened(tmp_path / "snapshots")
    older = capture(grown(state, 5))
    newer = snapshots.save(capture(grown(state, 5)))
    assert snapshots.save(older) == newer
    assert opened(tmp_path / "snapshots")[2] == newer


def test_only_what_changed_is_written_also_after_a_restart(tmp_path: Path) -> None:
    disk = CountingDisk()
    snapshots, state, _ = opened(tmp_path / "snapshots", disk)
    first = snapshots.save(capture(grown(state, 100 * BLOCK)))
    assert disk.written == first.size
    disk.written = 0
    second = snapshots.save(capture(grown(state, BLOCK)))
    assert disk.written == second.size - first.size
    disk.written = 0
    snapshots, state, _ = opened(tmp_path / "snapshots", disk)
    third = snapshots.save(capture(grown(state, BLOCK)))
    assert disk.written == third.size - second.size
    full, other, _ = opened(tmp_path / "other")
    assert full.save(capture(grown(other, 102 * BLOCK))) == third, "an incremental snapshot is the full one"


def test_unchanged_parts_are_not_even_encoded(tmp_path: Path) -> None:
    snapshots, state, _ = opened(tmp_path / "snapshots")
    snapshots.save(capture(grown(state, 4 * BLOCK)))
    encoded: list[str] = []
    grown(state, 1)

    class Watched:
        def __init__(self) -> None:
            self.view = state.view()
            self.header = self.view.header

        def parts(self) -> Iterator[object]:
            for part in self.view.parts():
                encode = part.encode
                yield type(part)(part.key, part.identity, lambda key=part.key, e=encode: encoded.append(key) or e())

    snapshots.save(Capture(state.indexes[-1], 1, state.indexes[-1], b"", 0, Watched()))  # type: ignore[arg-type]
    assert encoded == ["4"]


def test_two_snapshots_are_kept_and_what_nothing_needs_goes(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    for _ in range(60):
        snapshots.save(capture(grown(state, BLOCK // 2)))
    assert len(list(path.glob("*.snapshot"))) == RETAINED
    assert len(packs(path)) <= MAX_PACKS + RETAINED
    # The last block of every other snapshot is of no use later.
    assert sum(pack.stat().st_size for pack in packs(path)) < 3 * snapshots.newest.size  # type: ignore[union-attr]
    assert opened(path)[1].digest() == state.digest()


def test_a_reader_goes_on_while_newer_snapshots_are_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.consensus.disk._SHRINK_BYTES", 8)
    snapshots, state, _ = opened(tmp_path / "snapshots")
    snapshots.save(capture(grown(state, 5)))
    digest = state.digest()
    reader = snapshots.reader()
    assert reader is not None
    for _ in range(5):
        snapshots.save(capture(grown(state, 5)))
    old = ListState()
    loader = old.begin_load(reader.manifest.header)
    for chunk in reader.chunks():
        loader.add(chunk)
    loader.finish()()
    reader.close()
    assert old.digest() == digest


def test_an_abandoned_save_changes_nothing_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    first = snapshots.save(capture(grown(state, BLOCK)))
    grown(state, 3 * BLOCK)
    calls: list[int] = []

    def abandon() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise AbandonedError

    with pytest.raises(AbandonedError):
        snapshots.save(capture(state), abandon)
    assert snapshots.newest == first
    assert len(packs(path)) == 1
    snapshots.save(capture(state))
    assert opened(path)[1].digest() == state.digest()


# -- damage ------------------------------------------------------------------------------------------------------------


def damaged(path: Path) -> str:
    with pytest.raises(CorruptDataError) as refusal:
        opened(path)
    return str(refusal.value)


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    snapshots.save(capture(grown(state, 2 * BLOCK)))
    for file in path.iterdir():
        good = file.read_bytes()
        for at in range(len(good)):
            file.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
            assert str(file) in damaged(path)
        for size in range(0, len(good), 7):
            file.write_bytes(good[:size])
            assert str(file) in damaged(path)
        file.write_bytes(good)
    assert opened(path)[1].digest() == state.digest()


def test_refusals_say_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    manifest = snapshots.save(capture(grown(state, 2 * BLOCK)))
    (pack,) = packs(path)
    good = pack.read_bytes()
    pack.write_bytes(good[:-1] + b"?")
    assert f"{pack}: the snapshot cannot be used: chunk {manifest.chunks[-1].name} (1) does not match" in damaged(path)
    pack.write_bytes(good[:-1])
    assert f"it has {len(good) - 1} bytes, {len(good)} are needed" in damaged(path)
    pack.unlink()
    assert "it is missing" in damaged(path)
    assert "remove this node and add it under a new id" in damaged(path)
    pack.write_bytes(good)
    with pytest.raises(CorruptDataError, match="belongs to cluster 'c', not 'd'"):
        SnapshotDirectory(path, DISK, "d").recover(ListState())


def test_a_snapshot_whose_chunks_are_not_its_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    view = grown(state, 5).view()
    view.length = 6
    snapshots.save(Capture(6, 1, 6, b"", 0, view))
    assert "the snapshot at 6 is not a state: 5 entries, 6 are needed" in damaged(path)


def test_an_older_snapshot_that_is_damaged_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    snapshots.save(capture(grown(state, 5)))
    snapshots.save(capture(grown(state, 2 * BLOCK)))
    older = min(path.glob("*.snapshot"))
    older.write_bytes(b"?")
    assert opened(path)[1].digest() == state.digest()
    assert not older.exists()


# -- crashes -----------------------------------------------------------------------------------------------------------


def history(snapshots: SnapshotDirectory, state: ListState) -> None:
    """Saves that write, copy out of worn packs, and remove."""
    for _ in range(4):
        snapshots.save(capture(grown(state, BLOCK // 2 + 1)))


def test_a_crash_at_any_operation_leaves_the_old_snapshot_or_the_new_one(tmp_path: Path) -> None:
    at = 0
    while True:
        path = tmp_path / str(at)
        snapshots, state, _ = opened(path)
        history(snapshots, state)
        before = state.digest()
        grown(state, BLOCK)
        disk = CrashingDisk(at)
        snapshots._disk = disk  # type: ignore[attr-defined]
        crashed = True
        try:
            snapshots.save(capture(state))
            crashed = False
        except Crash:
            pass
        again, found, _ = opened(path)
        assert found.digest() in (before, state.digest())
        # It goes on from there, and no file is left that nothing needs.
        again.save(capture(grown(found, 1)))
        again.save(capture(grown(found, 1)))
        assert opened(path)[1].digest() == found.digest()
        assert not list(path.glob("*.tmp"))
        if not crashed:
            assert at > 8, "the crashes must have covered the whole save"
            return
        shutil.rmtree(path)
        at += 1


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "snapshots"
    snapshots, state, _ = opened(path)
    snapshots.save(capture(grown(state, 5)))
    (path / "000000000099.pack").write_bytes(b"half a chunk")
    (path / "00000000000000000099.snapshot.tmp").write_bytes(b"half")
    again, found, _ = opened(path)
    assert found.digest() == state.digest()
    assert len(packs(path)) == 1
    again.save(capture(grown(found, 5)))
    assert packs(path)[-1].name == "000000000100.pack", "the number is not used again"


# -- the form before ---------------------------------------------------------------------------------------------------


def test_a_snapshot_of_format_1_is_taken_over(tmp_path: Path) -> None:
    old = tmp_path / "snapshot"
    shutil.copy(GOLDEN, old)
    state = MachineState("test")
    manifest = SnapshotDirectory(tmp_path / "snapshots", DISK, "test").recover(state)
    assert manifest is not None
    assert (manifest.index, manifest.term, manifest.entry_index) == (40, 3, 39)
    assert digest_text(state.state) == "c472911f33201db5db4f38f8dc464124"
    assert not old.exists()
    again = MachineState("test")
    assert SnapshotDirectory(tmp_path / "snapshots", DISK, "test").recover(again) == manifest
    assert again.state == state.state


def test_a_crash_while_taking_over_format_1_loses_nothing(tmp_path: Path) -> None:
    for at in range(100):
        path = tmp_path / str(at)
        path.mkdir()
        shutil.copy(GOLDEN, path / "snapshot")
        try:
            SnapshotDirectory(path / "snapshots", CrashingDisk(at), "test").recover(MachineState("test"))
        except Crash:
            state = MachineState("test")
            assert SnapshotDirectory(path / "snapshots", DISK, "test").recover(state) is not None
            assert digest_text(state.state) == "c472911f33201db5db4f38f8dc464124"
            continue
        assert at > 5
        return


def test_a_damaged_snapshot_of_format_1_is_refused(tmp_path: Path) -> None:
    good = GOLDEN.read_bytes()
    for at in range(0, len(good), 11):
        (tmp_path / "snapshot").write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        with pytest.raises(CorruptDataError, match="the snapshot cannot be used"):
            SnapshotDirectory(tmp_path / "snapshots", DISK, "test").recover(MachineState("test"))
    (tmp_path / "snapshot").write_bytes(good)
    with pytest.raises(CorruptDataError, match="belongs to cluster 'test', not 'other'"):
        SnapshotDirectory(tmp_path / "snapshots", DISK, "other").recover(MachineState("other"))
