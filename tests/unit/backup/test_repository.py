from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stores import keep, refused

from controlplane.backup.archive import ArchiveStore
from controlplane.backup.directory import DirectoryStore
from controlplane.backup.repository import GRACE_S, LEASE_S, Progress, Repository, chunk_name
from controlplane.manifest import FORMAT, ChunkRef, Manifest, ManifestError, chunk_ref, encode_manifest
from controlplane.ports import StoreError

AT_S = 1_769_860_800.0  # 2026-01-31T12:00:00Z


class Cluster:
    """A state of a few chunks, and an account of what was asked for."""

    def __init__(self, *contents: bytes, cluster_id: str = "prod", index: int = 7) -> None:
        self.data = {chunk_ref(f"part/{number}", data): data for number, data in enumerate(contents)}
        self.cluster_id, self.index = cluster_id, index
        self.asked: list[ChunkRef] = []

    @property
    def manifest(self) -> bytes:
        refs = tuple(self.data)
        size = sum(ref.size for ref in refs)
        return encode_manifest(
            Manifest(FORMAT, self.cluster_id, 1, self.index, 2, self.index, b"members", b"header", refs, size)
        )

    def fetch(self, refs: Sequence[ChunkRef]) -> list[bytes]:
        self.asked += refs
        return [self.data[ref] for ref in refs]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def repository(root: Path) -> Repository:
    return Repository(DirectoryStore(root))


def save(repository: Repository, cluster: Cluster, at_s: float = AT_S):
    return repository.save(cluster.manifest, cluster.fetch, now_s=at_s)


def age(root: Path, folder: str, by_s: float) -> None:
    for path in (root / folder).rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - by_s,) * 2)


def chunks_of(repository: Repository) -> set[str]:
    return {each.name for each in repository.store.list("chunks")}


def test_a_save_can_be_read_back(repository: Repository) -> None:
    cluster = Cluster(b"one", b"two", b"")
    saved = save(repository, cluster)
    assert (saved.uploaded_chunks, saved.uploaded_bytes, saved.chunks, saved.size) == (3, 6, 3, 6)
    assert saved.entry.name == "snapshots/prod/20260131T120000Z-7.manifest"
    assert (saved.entry.taken_at, saved.entry.index) == ("2026-01-31T12:00:00Z", 7)
    assert repository.entries() == [saved.entry]
    manifest = repository.manifest(repository.find())
    assert list(repository.chunks(manifest.chunks)) == [b"one", b"two", b""]
    assert not list(repository.store.list("locks"))


def test_only_what_is_missing_is_asked_for(repository: Repository) -> None:
    save(repository, Cluster(b"one", b"two"))
    second = Cluster(b"one", b"TWO", index=9)
    saved = save(repository, second, AT_S + 60)
    assert [second.data[ref] for ref in second.asked] == [b"TWO"]
    assert (saved.uploaded_chunks, saved.chunks) == (1, 2)
    assert [each.index for each in repository.entries()] == [7, 9]


def test_an_interrupted_save_shows_nothing_and_is_gone_on_with(repository: Repository) -> None:
    cluster = Cluster(*(bytes([number]) * 5_000_000 for number in range(4)))
    calls = 0

    def breaks(refs: Sequence[ChunkRef]) -> list[bytes]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ConnectionError
        return cluster.fetch(refs)

    seen: list[Progress] = []
    with pytest.raises(ConnectionError):
        repository.save(cluster.manifest, breaks, now_s=AT_S, progress=seen.append)
    assert [(each.done_chunks, each.chunks) for each in seen] == [(1, 4), (2, 4)]
    assert repository.entries() == []
    assert not list(repository.store.list("locks"))
    assert save(repository, cluster).uploaded_chunks == 2


def test_a_shortened_chunk_is_uploaded_again(repository: Repository, root: Path) -> None:
    cluster = Cluster(b"one")
    save(repository, cluster)
    path = root / chunk_name(next(iter(cluster.data)))
    path.write_bytes(b"on")
    assert save(repository, cluster, AT_S + 1).uploaded_chunks == 1
    assert path.read_bytes() == b"one"


def test_a_source_that_gives_other_bytes_is_refused(repository: Repository) -> None:
    with pytest.raises(ManifestError):
        repository.save(Cluster(b"one").manifest, lambda _: [b"two"], now_s=AT_S)
    assert repository.entries() == []


def test_what_was_altered_is_refused_on_read(repository: Repository, root: Path) -> None:
    cluster = Cluster(b"one")
    entry = save(repository, cluster).entry
    (root / chunk_name(next(iter(cluster.data)))).write_bytes(b"eno")
    with refused("damaged"):
        list(repository.chunks(repository.manifest(entry).chunks))
    raw = (root / entry.name).read_bytes()
    for at in range(0, len(raw), 11):
        (root / entry.name).write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with refused("damaged"):
            repository.manifest(entry)


def test_a_renamed_manifest_is_refused(repository: Repository, root: Path) -> None:
    entry = save(repository, Cluster(b"one")).entry
    (root / entry.name).rename(root / "snapshots" / "prod" / "20260131T120000Z-8.manifest")
    with refused("damaged") as caught:
        repository.manifest(repository.find())
    assert "renamed" in caught.value.message


def test_finds_by_time_index_or_name(repository: Repository) -> None:
    first, second = save(repository, Cluster(b"1")).entry, save(repository, Cluster(b"2", index=9), AT_S + 60).entry
    for wanted in ("7", "2026-01-31T12:00:00Z", "20260131T120000Z-7", first.name):
        assert repository.find(wanted) == first
    assert repository.find() == second
    for wanted in ("8", "x", ""):
        with refused("not_found"):
            repository.find(wanted)
    save(repository, Cluster(b"1", cluster_id="other"), AT_S)
    with refused("invalid") as caught:
        repository.find()
    assert "other, prod" in caught.value.message
    assert repository.find(None, "prod") == second
    with refused("not_found"):
        repository.find(None, "nobody")


def test_an_archive_takes_one_snapshot(tmp_path: Path) -> None:
    repository = Repository(ArchiveStore(tmp_path / "x.flsnap"))
    cluster = Cluster(b"one", b"two")
    entry = save(repository, cluster).entry
    again = Repository(ArchiveStore(tmp_path / "x.flsnap"))
    assert again.entries() == [entry]
    assert list(again.chunks(again.manifest(entry).chunks)) == [b"one", b"two"]
    with refused("invalid"):
        again.prune(keep=1)


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_prune_keeps_the_newest_and_what_they_need(repository: Repository, root: Path) -> None:
    clusters = [Cluster(b"shared", f"only {n}".encode(), index=n) for n in (1, 2, 3)]
    for number, cluster in enumerate(clusters):
        save(repository, cluster, AT_S + number)
    save(repository, Cluster(b"theirs", cluster_id="other"))
    age(root, "chunks", GRACE_S + 1)
    would = repository.prune(keep=2, cluster_id="prod", dry_run=True)
    assert (len(repository.entries("prod")), len(chunks_of(repository))) == (3, 5)
    pruned = repository.prune(keep=2, cluster_id="prod")
    assert pruned == would
    assert (pruned.snapshots, pruned.chunks, pruned.size, pruned.kept) == (1, 1, 6, 3)
    assert [each.index for each in repository.entries("prod")] == [2, 3]
    for entry in repository.entries():
        list(repository.chunks(repository.manifest(entry).chunks))
    assert len(chunks_of(repository)) == 4


def test_prune_leaves_young_chunks_for_saves_that_were_interrupted(repository: Repository, root: Path) -> None:
    save(repository, Cluster(b"one"))
    orphan = chunk_ref("x", b"orphan")
    keep(repository.store, chunk_name(orphan), b"orphan")
    assert repository.prune(keep=1).chunks == 0
    age(root, "chunks", GRACE_S + 1)
    assert repository.prune(keep=1).chunks == 1


def test_nothing_is_pruned_while_a_manifest_cannot_be_read(repository: Repository, root: Path) -> None:
    first, second = save(repository, Cluster(b"1")).entry, save(repository, Cluster(b"2", index=9), AT_S + 60).entry
    age(root, "chunks", GRACE_S + 1)
    (root / second.name).write_bytes(b"?")
    with refused("damaged"):
        repository.prune(keep=1)
    assert repository.store.exists(first.name)
    assert len(chunks_of(repository)) == 2


def test_save_and_prune_give_way_to_each_other(repository: Repository, root: Path) -> None:
    save(repository, Cluster(b"one"))
    keep(repository.store, "locks/save-someone", b"x")
    with refused("busy"):
        repository.prune(keep=1)
    save(repository, Cluster(b"two", index=8), AT_S + 1)
    repository.store.delete("locks/save-someone")
    keep(repository.store, "locks/prune-someone", b"x")
    with refused("busy") as caught:
        save(repository, Cluster(b"three", index=9))
    assert "a prune is at work" in caught.value.message
    age(root, "locks", LEASE_S + 5)
    save(repository, Cluster(b"three", index=9), AT_S + 2)
    assert not list(repository.store.list("locks"))


@pytest.mark.parametrize("keep_count", [0, -1])
def test_at_least_one_stays(repository: Repository, keep_count: int) -> None:
    with refused("invalid"):
        repository.prune(keep=keep_count)


def test_saves_and_prunes_at_once_lose_nothing(root: Path) -> None:
    """Four savers and a pruner without grace on one store: every snapshot that is listed at the end is whole."""
    errors: list[BaseException] = []

    def saver(number: int) -> None:
        repository = Repository(DirectoryStore(root))
        for turn in range(12):
            cluster = Cluster(b"shared", f"{turn % 3}".encode(), f"{number}".encode(), index=100 * turn + number + 1)
            try:
                save(repository, cluster, AT_S + turn)
            except StoreError as error:
                if error.code != "busy":
                    errors.append(error)

    def pruner() -> None:
        repository = Repository(DirectoryStore(root))
        for _ in range(30):
            try:
                repository.prune(keep=2, grace_s=-1e9)
            except StoreError as error:
                if error.code != "busy":
                    errors.append(error)

    threads = [threading.Thread(target=saver, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=pruner))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    repository = Repository(DirectoryStore(root))
    for entry in repository.entries():
        list(repository.chunks(repository.manifest(entry).chunks))


@settings(max_examples=30)
@given(
    steps=st.lists(
        st.tuples(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=4), st.integers(1, 3)), max_size=6
    )
)
def test_whatever_was_saved_and_pruned_what_is_listed_is_whole(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[bytes], int]]
) -> None:
    repository = Repository(DirectoryStore(tmp_path_factory.mktemp("r")))
    for number, (contents, keep_count) in enumerate(steps):
        save(repository, Cluster(*contents, index=number + 1), AT_S + number)
        repository.prune(keep=keep_count, grace_s=-1e9)
        entries = repository.entries()
        assert len(entries) <= keep_count
        assert entries[-1].index == number + 1
        for entry in entries:
            list(repository.chunks(repository.manifest(entry).chunks))
