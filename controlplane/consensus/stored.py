"""One snapshot as it lies on this node's disk: its manifest, and where in which pack each of its chunks begins.

A pack is chunks behind each other and nothing else; the snapshot's file is what gives it meaning. That file is written
whole after its packs are durable, so what it names is there, and anything missing or different is damage.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import msgspec

from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.framing import DECODE_ERRORS
from controlplane.manifest import ChunkRef, Manifest, ManifestError, decode_manifest, verify_chunk

_MAGIC = b"FLSNAP02"
_PREFIX_BYTES = len(_MAGIC) + 32
SUFFIX = ".snapshot"

_At = Annotated[int, msgspec.Meta(ge=0)]


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where a chunk lies: the number of its pack and the byte it begins at."""

    pack: _At
    offset: _At


class _File(msgspec.Struct, array_like=True, frozen=True):
    manifest: bytes
    places: list[Place]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_File)


class Stored:
    """A published snapshot. `places` go with `manifest.chunks`."""

    def __init__(self, manifest: Manifest, encoded: bytes, places: list[Place]) -> None:
        """`encoded` is the manifest as it is sent."""
        self.manifest = manifest
        self.encoded = encoded
        self.places = places
        self.pack_ends = _pack_ends(manifest.chunks, places)
        """How long each pack has to be at least, by its number."""

    def file(self) -> bytes:
        """The content of its file."""
        body = _encoder.encode(_File(self.encoded, self.places))
        return _MAGIC + hashlib.sha256(body).digest() + body


def pack_path(directory: Path, number: int) -> Path:
    return directory / f"{number:012d}.pack"


def _pack_ends(refs: Sequence[ChunkRef], places: Sequence[Place]) -> dict[int, int]:
    ends: dict[int, int] = {}
    for ref, place in zip(refs, places, strict=True):
        ends[place.pack] = max(ends.get(place.pack, 0), place.offset + ref.size)
    return ends


def read_stored(path: Path) -> Stored:
    """The snapshot whose file is `path`, its packs not looked at. Raises CorruptDataError, OSError."""
    raw = path.read_bytes()
    if len(raw) < _PREFIX_BYTES or not raw.startswith(_MAGIC):
        raise unusable(path, "it does not begin as a snapshot does")
    body = raw[_PREFIX_BYTES:]
    if hashlib.sha256(body).digest() != raw[len(_MAGIC) : _PREFIX_BYTES]:
        raise unusable(path, "its checksum does not match")
    try:
        read = _decoder.decode(body)
        manifest = decode_manifest(read.manifest)
    except DECODE_ERRORS as error:
        raise unusable(path, str(error)) from error
    if len(read.places) != len(manifest.chunks):
        raise unusable(path, f"it has {len(manifest.chunks)} chunks and {len(read.places)} places")
    return Stored(manifest, read.manifest, read.places)


def unusable(path: Path, what: str) -> CorruptDataError:
    return CorruptDataError(
        f"{path}: the snapshot cannot be used: {what}. The log below it is gone, so the node will not start without "
        "it. Restore the disk, or remove this node and add it under a new id."
    )


class ChunkReader:
    """Reads chunks from packs and verifies them. Holds packs open and locked: no clean-up takes them away."""

    def __init__(
        self,
        directory: Path,
        refs: Sequence[ChunkRef],
        places: Sequence[Place],
        pack_ends: Mapping[int, int] | None = None,
    ) -> None:
        """`places` go with `refs`. Raises CorruptDataError when a pack is missing or too short."""
        self._directory = directory
        self._refs = refs
        self._places = places
        self._fds: dict[int, int] = {}
        try:
            self._open(_pack_ends(refs, places) if pack_ends is None else pack_ends)
        except BaseException:
            self.close()
            raise

    def _open(self, pack_ends: Mapping[int, int]) -> None:
        for number, end in sorted(pack_ends.items()):
            path = pack_path(self._directory, number)
            try:
                self._fds[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise unusable(path, "it is missing") from None
            # Waits for nobody: what is being given back is named by no snapshot that is still read (`Disk.shrink`).
            fcntl.flock(self._fds[number], fcntl.LOCK_SH)
            if (size := os.fstat(self._fds[number]).st_size) < end:
                raise unusable(path, f"it has {size} bytes, {end} are needed")

    def read(self, position: int) -> bytes:
        """The chunk at `position`. Raises CorruptDataError, OSError."""
        ref, place = self._refs[position], self._places[position]
        data = os.pread(self._fds[place.pack], ref.size, place.offset)
        try:
            verify_chunk(ref, data)
        except ManifestError as error:
            raise unusable(pack_path(self._directory, place.pack), f"{error} at byte {place.offset}") from None
        return data

    def chunks(self) -> Iterator[bytes]:
        """All of them, in order."""
        for position in range(len(self._refs)):
            yield self.read(position)

    def close(self) -> None:
        """Idempotent."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class SnapshotReader(ChunkReader):
    """The chunks of one snapshot."""

    def __init__(self, directory: Path, stored: Stored) -> None:
        super().__init__(directory, stored.manifest.chunks, stored.places, stored.pack_ends)
        self.manifest = stored.manifest
        self.encoded = stored.encoded
