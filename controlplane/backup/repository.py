"""How snapshots lie in a store, how one gets in, and how old ones go.

    chunks/<aa>/<sha256>                            a chunk, shared by every snapshot that names it
    snapshots/<cluster>/<time>-<index>.manifest     what a snapshot is made of; it comes last, so it is complete
    locks/<save|prune>-<token>                      who is at work

Only chunks that are not there yet are uploaded. A save that relies on a chunk and a prune that deletes it must not
overlap, and a store offers no lock: each writes its own mark first and looks for the other's afterwards, so at least
one of the two sees the other and gives way. Marks are refreshed while the work goes on, and one that was not for
`LEASE_S` belongs to a dead process. Ages are differences between times of the store's own clock. A save looks at the
end whether everything it names is there, and takes its manifest back otherwise.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from controlplane.manifest import ChunkRef, Manifest, ManifestError, decode_manifest, verify_chunk
from controlplane.ports import SnapshotStore, StoreError

LEASE_S = 900.0
REFRESH_S = 60.0
GRACE_S = 3600.0
"""Chunks younger than this are not pruned: a save that was interrupted goes on with them."""
BATCH_BYTES = 8 << 20
BATCH_CHUNKS = 256
WORKERS = 8
_NAME = re.compile(r"snapshots/([A-Za-z0-9_][A-Za-z0-9._-]*)/(\d{8}T\d{6}Z)-(\d{1,19})\.manifest")

Fetch = Callable[[Sequence[ChunkRef]], Sequence[bytes]]
"""The bytes of some chunks, in their order."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a save is. `chunks` and `size` are what had to be uploaded in all."""

    done_chunks: int
    chunks: int
    done_bytes: int
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A snapshot in a store, as its name tells."""

    name: str
    cluster_id: str
    taken_at: str
    """UTC, as `2026-01-31T12:00:00Z`."""
    index: int


@dataclass(frozen=True, slots=True)
class Saved:
    entry: Entry
    chunks: int
    size: int
    uploaded_chunks: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class Pruned:
    snapshots: int
    chunks: int
    size: int
    """Bytes of the chunks that are gone."""
    kept: int
    """Snapshots that stay."""


def chunk_name(ref: ChunkRef) -> str:
    return f"chunks/{ref.name[:2]}/{ref.name}"


def entry_of(name: str) -> Entry | None:
    """None when `name` is not that of a snapshot."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    cluster_id, at, index = found.groups()
    taken_at = f"{at[:4]}-{at[4:6]}-{at[6:8]}T{at[9:11]}:{at[11:13]}:{at[13:15]}Z"
    return Entry(name, cluster_id, taken_at, int(index))


class Repository:
    """Snapshots in one store. Blocking; raises StoreError, and what `fetch` raises."""

    def __init__(self, store: SnapshotStore, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._monotonic_s = monotonic_s

    # -- reading -------------------------------------------------------------------------------------------------------

    def entries(self, cluster_id: str | None = None) -> list[Entry]:
        """Every complete snapshot, the oldest first."""
        found = (entry_of(each.name) for each in self.store.list("snapshots"))
        chosen = [each for each in found if each is not None and cluster_id in (None, each.cluster_id)]
        return sorted(chosen, key=lambda each: (each.taken_at, each.index, each.name))

    def find(self, wanted: str | None = None, cluster_id: str | None = None) -> Entry:
        """The newest snapshot, or the one whose name ends with `wanted` (its time, its index, or all of it)."""
        entries = self.entries(cluster_id)
        if not entries:
            of = f" of cluster {cluster_id}" if cluster_id else ""
            raise StoreError("not_found", f"{self.store.location}: there is no snapshot{of}")
        if wanted is None:
            clusters = sorted({each.cluster_id for each in entries})
            if len(clusters) > 1:
                raise StoreError(
                    "invalid",
                    f"{self.store.location}: there are snapshots of several clusters: {', '.join(clusters)}",
                    hint="name one by --cluster",
                )
            return entries[-1]
        bare = wanted.removesuffix(".manifest")
        stems = {each: each.name.removesuffix(".manifest") for each in entries}
        matching = [e for e, stem in stems.items() if bare in (stem, stem.rpartition("/")[2], e.taken_at, str(e.index))]
        if len(matching) != 1:
            how_many = "no" if not matching else f"{len(matching)}"
            raise StoreError(
                "not_found",
                f"{self.store.location}: {how_many} snapshots are called {wanted[:100]!r}",
                hint="`flintctl snapshot list` shows their names",
            )
        return matching[0]

    def manifest(self, entry: Entry) -> Manifest:
        """Verified, and the one that its name tells of."""
        try:
            manifest = decode_manifest(self.store.get(entry.name))
        except ManifestError as error:
            raise StoreError("damaged", f"{self.store.location}: {entry.name}: {error}") from None
        if (manifest.cluster_id, manifest.index) != (entry.cluster_id, entry.index):
            raise StoreError(
                "damaged",
                f"{self.store.location}: {entry.name} holds a snapshot of cluster {manifest.cluster_id} at "
                f"{manifest.index}: it was renamed",
            )
        return manifest

    def chunk(self, ref: ChunkRef) -> bytes:
        """One chunk, verified."""
        data = self.store.get(chunk_name(ref), sha256=ref.name)
        try:
            verify_chunk(ref, data)
        except ManifestError as error:
            raise StoreError("damaged", f"{self.store.location}: {error}") from None
        return data

    def chunks(self, refs: Iterable[ChunkRef]) -> Iterator[bytes]:
        """Their bytes, verified, in order; a few are read ahead."""
        with ThreadPoolExecutor(WORKERS) as pool:
            for batch in batches(refs):
                yield from pool.map(self.chunk, batch)

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(
        self, encoded: bytes, fetch: Fetch, *, now_s: float, progress: Callable[[Progress], None] | None = None
    ) -> Saved:
        """Put a snapshot in: what is missing of its chunks, then its manifest. `now_s` (Unix) is for its name.

        An interrupted save leaves no snapshot; what it uploaded is used by the next one.
        """
        manifest = decode_manifest(encoded)
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        entry = entry_of(f"snapshots/{manifest.cluster_id}/{at}-{manifest.index}.manifest")
        if entry is None:
            raise StoreError("invalid", f"cluster id {manifest.cluster_id[:80]!r} cannot be part of an object's name")
        with self._mark("save", unless="prune") as mark:
            wanted = {ref.name: ref for ref in manifest.chunks}
            present = self._present()
            missing = [ref for name, ref in wanted.items() if present.get(name) != ref.size]
            uploaded = self._upload(missing, fetch, mark, progress)
            self.store.put(entry.name, [encoded], sha256=sha256(encoded).hexdigest())
            gone = self._gone(wanted.values())
            if gone:
                with suppress(StoreError):
                    self.store.delete(entry.name)
                raise StoreError(
                    "failed",
                    f"{self.store.location}: {len(gone)} chunks disappeared while the snapshot was saved",
                    hint="does somebody else delete files there? Save again",
                )
        return Saved(entry, len(wanted), sum(ref.size for ref in wanted.values()), len(missing), uploaded)

    def _upload(
        self, missing: list[ChunkRef], fetch: Fetch, mark: _Mark, progress: Callable[[Progress], None] | None
    ) -> int:
        size, done, count = sum(ref.size for ref in missing), 0, 0
        # One thread where the store is one file: its objects can only be written one after the other.
        with ThreadPoolExecutor(WORKERS if self.store.shared else 1) as pool:
            for batch in batches(missing):
                parts = fetch(batch)
                for ref, data in zip(batch, parts, strict=True):
                    verify_chunk(ref, data)
                list(pool.map(self._put_chunk, batch, parts))
                done += sum(ref.size for ref in batch)
                count += len(batch)
                mark.refresh()
                if progress is not None:
                    progress(Progress(count, len(missing), done, size))
        return size

    def _put_chunk(self, ref: ChunkRef, data: bytes) -> None:
        self.store.put(chunk_name(ref), [data], sha256=ref.name)

    def _present(self) -> dict[str, int]:
        """Size by hash of every chunk that is there."""
        return {each.name.rpartition("/")[2]: each.size for each in self.store.list("chunks")}

    def _gone(self, refs: Iterable[ChunkRef]) -> list[ChunkRef]:
        present = self._present()
        return [ref for ref in refs if present.get(ref.name) != ref.size]

    # -- pruning -------------------------------------------------------------------------------------------------------

    def prune(
        self, *, keep: int, cluster_id: str | None = None, grace_s: float = GRACE_S, dry_run: bool = False
    ) -> Pruned:
        """Keep the newest `keep` snapshots of each cluster (or of one), and the chunks that any snapshot names.

        Unreferenced chunks go when they are older than `grace_s`. Nothing is deleted while a save is at work (`busy`)
        or while any manifest cannot be read (`damaged`), since nobody knows then what it needs.
        """
        if keep < 1:
            raise StoreError("invalid", f"keep: {keep} snapshots: at least 1 has to stay")
        if not self.store.shared:
            raise StoreError("invalid", f"{self.store.location}: holds one snapshot; there is nothing to prune")
        with self._mark("prune", unless="save") as mark:
            old: list[Entry] = []
            staying: list[Entry] = []
            for cluster in sorted({each.cluster_id for each in self.entries()}):
                of_cluster = self.entries(cluster)
                cut = max(0, len(of_cluster) - keep) if cluster_id in (None, cluster) else 0
                old += of_cluster[:cut]
                staying += of_cluster[cut:]
            needed: set[str] = set()
            for entry in staying:
                needed.update(ref.name for ref in self.manifest(entry).chunks)
                mark.refresh()
            for entry in old if not dry_run else ():
                self.store.delete(entry.name)
            chunks = size = 0
            for each in self.store.list("chunks"):
                if each.name.rpartition("/")[2] in needed or mark.now_s - each.modified_at_s < grace_s:
                    continue
                if not dry_run:
                    self.store.delete(each.name)
                    mark.refresh()
                chunks += 1
                size += each.size
        return Pruned(len(old), chunks, size, len(staying))

    # -- marks ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _mark(self, kind: str, *, unless: str) -> Generator[_Mark]:
        """Hold a mark of `kind`. Raises StoreError `busy` when a fresh one of `unless` is there."""
        mark = _Mark(self.store, f"locks/{kind}-{secrets.token_hex(8)}", self._monotonic_s)
        if not self.store.shared:
            yield mark
            return
        try:
            mark.write()
            mark.require_no(unless)
            yield mark
        finally:
            with suppress(StoreError):
                self.store.delete(mark.name)


class _Mark:
    """One process at work."""

    def __init__(self, store: SnapshotStore, name: str, monotonic_s: Callable[[], float]) -> None:
        self.name = name
        self.now_s = 0.0
        """The store's own time when this began."""
        self._store = store
        self._monotonic_s = monotonic_s
        self._written_s = 0.0

    def write(self) -> Self:
        data = self.name.encode()
        self._store.put(self.name, [data], sha256=sha256(data).hexdigest())
        self._written_s = self._monotonic_s()
        return self

    def refresh(self) -> None:
        if self._store.shared and self._monotonic_s() - self._written_s > REFRESH_S:
            self.write()

    def require_no(self, kind: str) -> None:
        marks = {each.name: each.modified_at_s for each in self._store.list("locks")}
        if self.name not in marks:
            raise StoreError("failed", f"{self._store.location}: what was just written there is not listed")
        self.now_s = marks[self.name]
        for name, at_s in marks.items():
            if not name.startswith(f"locks/{kind}-"):
                continue
            age_s = max(0.0, self.now_s - at_s)
            if age_s <= LEASE_S:
                raise StoreError(
                    "busy",
                    f"{self._store.location}: a {kind} is at work there (since or seen {age_s:.0f} s ago)",
                    hint=f"try again when it is done; one that died is ignored after {LEASE_S:.0f} s",
                )
            with suppress(StoreError):
                self._store.delete(name)


def batches(refs: Iterable[ChunkRef]) -> Iterator[list[ChunkRef]]:
    """Groups of chunks that are small enough to be held in memory."""
    batch: list[ChunkRef] = []
    size = 0
    for ref in refs:
        if batch and (len(batch) >= BATCH_CHUNKS or size + ref.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(ref)
        size += ref.size
    if batch:
        yield batch
