"""The snapshots of one node: the newest few, sharing their chunks in pack files.

Saving goes through the parts of an immutable view, in a thread and in small steps. A part made of the very objects of
the last save keeps its chunks; of the others, the chunks that no retained snapshot has go into one new pack. The pack
is durable before the snapshot's file is published, and what nothing refers to any more is removed only after that, so a
crash at any point leaves the old snapshot or the new one. A pack of which little is still in use, and small packs when
there are many, are copied into the new one.

A snapshot that cannot be read stops the node: the log below it is gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.consensus.configuration import decode
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.pacing import Pace, unhurried
from controlplane.consensus.packs import PackWriter
from controlplane.consensus.snapshot_format_1 import read_format_1
from controlplane.consensus.stored import (
    SUFFIX,
    ChunkReader,
    Place,
    SnapshotReader,
    Stored,
    pack_path,
    read_stored,
    unusable,
)
from controlplane.manifest import FORMAT, ChunkRef, Manifest, chunk_ref, encode_manifest
from controlplane.ports import ReplicatedState, StateView

_log = logging.getLogger(__name__)

RETAINED = 2
"""Snapshots that are kept. The older one serves transfers that began before the newer was taken."""
MAX_PACKS = 16

Adopt = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Capture:
    """A state and where it stands, to be saved."""

    index: int
    term: int
    entry_index: int
    configuration: bytes
    """The membership that counts at `index`, encoded, and where it stands."""
    configuration_index: int
    view: StateView


@dataclass(frozen=True, slots=True)
class _Known:
    """A part as it was saved last."""

    identity: tuple[object, ...]
    refs: tuple[ChunkRef, ...]


class SnapshotDirectory:
    """The snapshots below one directory. `save`, `receive` and `load` may each run in a thread; the rest is quick."""

    def __init__(self, path: Path, disk: Disk, cluster_id: str) -> None:
        self._path = path
        self._disk = disk
        self._cluster_id = cluster_id
        self._lock = threading.Lock()
        self._stored: tuple[Stored, ...] = ()
        """Oldest first."""
        self._places: dict[bytes, Place] = {}
        """Where every chunk of the retained snapshots lies, by SHA-256."""
        self._known: dict[str, _Known] = {}
        self._last_pack = 0

    # -- opening -------------------------------------------------------------------------------------------------------

    @property
    def newest(self) -> Manifest | None:
        return self._stored[-1].manifest if self._stored else None

    def recover(self, state: ReplicatedState) -> Manifest | None:
        """Load the newest snapshot into `state`; None when there is none. Raises CorruptDataError, OSError."""
        self.open()
        self._take_over_format_1(state)
        if not self._stored:
            return None
        stored = self._stored[-1]
        self._load(stored, state, unhurried)()
        self._remember(stored.manifest, state.view())
        return stored.manifest

    def open(self) -> Manifest | None:
        """Find what is here, and remove what a crash left; the newest snapshot. Raises CorruptDataError, OSError."""
        self._disk.make_directory(self._path)
        # What a rename shows may not be on the disk yet, when the process before this one failed at its sync.
        self._disk.sync_directory(self._path)
        files = sorted(self._path.glob("*" + SUFFIX))
        stored: list[Stored] = []
        for path in files:
            try:
                stored.append(self._checked(read_stored(path), path))
            except CorruptDataError as error:
                if path == files[-1]:
                    raise
                _log.warning("an older snapshot is of no use and is removed: %s", error)
                self._disk.remove(path)
        self._stored = tuple(stored)
        self._locate_chunks()
        needed = {pack_path(self._path, number) for each in stored for number in each.pack_ends}
        for path in self._path.iterdir():
            if path.suffix == ".pack":
                self._last_pack = max(self._last_pack, int(path.stem))
            if path.suffix in (".pack", ".tmp") and path not in needed:
                self._disk.remove(path)
        return self.newest

    def _checked(self, stored: Stored, path: Path) -> Stored:
        if stored.manifest.cluster_id != self._cluster_id:
            raise unusable(path, f"it belongs to cluster {stored.manifest.cluster_id!r}, not {self._cluster_id!r}")
        SnapshotReader(self._path, stored).close()
        return stored

    def _take_over_format_1(self, state: ReplicatedState) -> None:
        """Save the snapshot that an older program left in the new form, then remove it."""
        path = self._path.with_name("snapshot")
        found = read_format_1(path)
        if found is None:
            return
        meta, data = found
        if meta.cluster_id != self._cluster_id:
            raise unusable(path, f"it belongs to cluster {meta.cluster_id!r}, not {self._cluster_id!r}")
        if self.newest is None or self.newest.index < meta.index:
            try:
                state.load_format_1(data)()
            except ValueError as error:
                raise unusable(path, str(error)) from error
            self.save(Capture(meta.index, meta.term, meta.entry_index, b"", 0, state.view()))
            _log.info("%s: the snapshot at %d is now in the form of this program", path, meta.index)
        self._disk.remove(path)
        self._disk.sync_directory(path.parent)

    # -- reading -------------------------------------------------------------------------------------------------------

    def reader(self) -> SnapshotReader | None:
        """The newest snapshot; None when there is none. To be closed. Raises CorruptDataError, OSError."""
        return SnapshotReader(self._path, self._stored[-1]) if self._stored else None

    def age_s(self) -> float:
        """Since the newest one was written, by the wall clock: for people to read. Raises OSError without one."""
        return max(0.0, time.time() - self._file(self._stored[-1].manifest).stat().st_mtime)

    def has(self, sha256: bytes) -> bool:
        """Whether a retained snapshot has this chunk."""
        return sha256 in self._places

    def _load(self, stored: Stored, state: ReplicatedState, pace: Pace) -> Adopt:
        """Build the state of `stored` beside the present one. Raises CorruptDataError, OSError."""
        what = f"snapshot at {stored.manifest.index}"
        with SnapshotReader(self._path, stored) as reader:
            try:
                loader = state.begin_load(stored.manifest.header)
                for chunk in reader.chunks():
                    loader.add(chunk)
                    pace()
                return loader.finish()
            except ValueError as error:
                raise unusable(self._file(stored.manifest), f"the {what} is not a state: {error}") from error

    def _remember(self, manifest: Manifest, view: StateView) -> None:
        """Note which parts of `view` have which chunks of `manifest`, which was loaded as `view`."""
        refs: defaultdict[str, list[ChunkRef]] = defaultdict(list)
        for ref in manifest.chunks:
            refs[ref.key].append(ref)
        self._known = {
            part.key: _Known(part.identity, tuple(refs[part.key])) for part in view.parts() if part.key in refs
        }

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, capture: Capture, pace: Pace = unhurried) -> Manifest:
        """Durable and complete when this returns; gives the newest snapshot, which may be a newer one than asked for.

        Raises OSError, CorruptDataError, or what `pace` raises; nothing has changed then.
        """
        with self._lock:
            if self.newest is not None and self.newest.index >= capture.index:
                return self.newest
            pack = self._new_pack()
            try:
                refs, places = self._write_parts(capture.view, pack, pace)
                manifest = Manifest(
                    format=FORMAT,
                    cluster_id=self._cluster_id,
                    incarnation=_incarnation(capture.configuration),
                    index=capture.index,
                    term=capture.term,
                    entry_index=capture.entry_index,
                    configuration=capture.configuration,
                    configuration_index=capture.configuration_index,
                    header=capture.view.header(),
                    chunks=tuple(refs),
                    size=sum(ref.size for ref in refs),
                )
                self._gather(refs, places, pack, pace)
                pack.finish()
            except BaseException:
                with suppress(OSError):
                    pack.discard()
                raise
            self._publish(Stored(manifest, encode_manifest(manifest), places))
            return manifest

    def _write_parts(self, view: StateView, pack: PackWriter, pace: Pace) -> tuple[list[ChunkRef], list[Place]]:
        refs: list[ChunkRef] = []
        places: list[Place] = []
        gone = set(self._known)
        for part in view.parts():
            gone.discard(part.key)
            known = self._known.get(part.key)
            if known is None or not self._unchanged(known, part.identity):
                written: list[ChunkRef] = []
                for data in part.encode():
                    ref = chunk_ref(part.key, data)
                    written.append(ref)
                    if ref.sha256 not in self._places and ref.sha256 not in pack.places:
                        pack.add(ref.sha256, data)
                # One part's old objects are let go here, not those of a whole state at once.
                known = self._known[part.key] = _Known(part.identity, tuple(written))
            for ref in known.refs:
                refs.append(ref)
                places.append(self._places.get(ref.sha256) or pack.places[ref.sha256])
            pace()
        for key in gone:
            del self._known[key]
            pace()
        return refs, places

    def _unchanged(self, known: _Known, identity: tuple[object, ...]) -> bool:
        return (
            len(known.identity) == len(identity)
            and all(map(_is, known.identity, identity))
            # A save that failed may have left a note of chunks that were never published.
            and all(ref.sha256 in self._places for ref in known.refs)
        )

    def _gather(self, refs: list[ChunkRef], places: list[Place], pack: PackWriter, pace: Pace) -> None:
        """Copy what is left of worn packs into the new one; changes `places`."""
        live: defaultdict[int, int] = defaultdict(int)
        for ref, place in zip(refs, places, strict=True):
            live[place.pack] += ref.size
        live.pop(pack.number, None)
        worn = {number for number, size in live.items() if 2 * size < pack_path(self._path, number).stat().st_size}
        kept = sorted(live.keys() - worn, key=lambda number: live[number])
        if len(kept) >= MAX_PACKS:
            worn.update(kept[: len(kept) - MAX_PACKS // 2])
        if not worn:
            return
        chosen = [position for position, place in enumerate(places) if place.pack in worn]
        worn_refs = [refs[position] for position in chosen]
        with ChunkReader(self._path, worn_refs, [places[position] for position in chosen]) as reader:
            for number, position in enumerate(chosen):
                sha256 = refs[position].sha256
                places[position] = pack.places.get(sha256) or pack.add(sha256, reader.read(number))
                pace()

    def _publish(self, stored: Stored) -> None:
        """Make a snapshot whose packs are durable the newest one, and remove what is no longer retained."""
        self._disk.replace(self._file(stored.manifest), stored.file())
        before = (*self._stored, stored)
        self._stored = before[-RETAINED:]
        self._locate_chunks()
        dropped = before[:-RETAINED]
        for each in dropped:
            self._disk.remove(self._file(each.manifest))
        needed = {number for each in self._stored for number in each.pack_ends}
        unneeded = {number for each in dropped for number in each.pack_ends} - needed
        if unneeded:
            # A snapshot's file must not come back without its packs.
            self._disk.sync_directory(self._path)
        for number in sorted(unneeded):
            self._disk.shrink(pack_path(self._path, number))
            self._disk.remove(pack_path(self._path, number))

    def _locate_chunks(self) -> None:
        self._places = {
            ref.sha256: place
            for each in self._stored
            for ref, place in zip(each.manifest.chunks, each.places, strict=True)
        }

    def _new_pack(self) -> PackWriter:
        self._last_pack += 1
        return PackWriter(self._path, self._last_pack, self._disk)

    def _file(self, manifest: Manifest) -> Path:
        return self._path / f"{manifest.index:020d}{SUFFIX}"

    # -- receiving -----------------------------------------------------------------------------------------------------

    def begin_receiving(self) -> PackWriter:
        """Where the chunks of another node's snapshot go that are not here yet."""
        return self._new_pack()

    def receive(
        self, encoded: bytes, manifest: Manifest, pack: PackWriter, state: ReplicatedState, pace: Pace = unhurried
    ) -> Adopt | Iterable[int]:
        """Load a snapshot whose chunks are here or in `pack` and publish it.

        Gives how to adopt the loaded state, or the positions of chunks that are missing after all; nothing has happened
        then. Raises CorruptDataError, OSError.
        """
        with self._lock:
            if self.newest is not None and self.newest.index >= manifest.index:
                pack.discard()
                return _nothing
            found = [self._places.get(ref.sha256) or pack.places.get(ref.sha256) for ref in manifest.chunks]
            places = [place for place in found if place is not None]
            if len(places) < len(found):
                return [position for position, place in enumerate(found) if place is None]
            stored = Stored(manifest, encoded, places)
            adopt = self._load(stored, state, pace)
            pack.finish()
            self._publish(stored)
            # What was remembered holds on to the old state, which goes now, bit by bit.
            while self._known:
                self._known.popitem()
                pace()
            return adopt


def _incarnation(configuration: bytes) -> int:
    """1 when the membership is still that of the settings."""
    return decode(configuration).incarnation if configuration else 1


def _nothing() -> None:
    """The state is as new as the snapshot."""


def _is(one: object, other: object) -> bool:
    return one is other
