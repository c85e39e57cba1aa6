"""The snapshot on disk: one checksummed file, replaced atomically, holding the state's own encoding and where it
stands.

The file is a small msgpack header and the bytes of `ReplicatedState.dump()`. It is written by a thread from bytes
that no longer change, so no fork and no pickle are involved. A snapshot that cannot be read stops the node: the log
below it is gone.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import time
import zlib
from pathlib import Path

import msgspec

from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.framing import DECODE_ERRORS

_MAGIC = b"FLSNAPSH"
_FORMAT = 1
_PREFIX = struct.Struct("<8sIII")


class SnapshotMeta(msgspec.Struct, array_like=True, frozen=True):
    """Where a snapshot stands. `entry_index` is the last index at or below `index` whose entry the state applied."""

    cluster_id: str
    index: int
    term: int
    entry_index: int
    size: int
    sha256: bytes
    configuration: bytes = b""
    """The membership that counts at `index`, and where it stands; empty in snapshots from before it was in the log."""
    configuration_index: int = 0


_meta_decoder = msgspec.msgpack.Decoder(SnapshotMeta)
_meta_encoder = msgspec.msgpack.Encoder()


class SnapshotFile:
    """The newest snapshot of one node."""

    def __init__(self, path: Path, disk: Disk, cluster_id: str) -> None:
        self._path = path
        self._disk = disk
        self._cluster_id = cluster_id
        self._lock = threading.Lock()
        self._saved_index = 0

    def describe(
        self,
        index: int,
        term: int,
        entry_index: int,
        data: bytes,
        configuration: bytes = b"",
        configuration_index: int = 0,
    ) -> SnapshotMeta:
        digest = hashlib.sha256(data).digest()
        return SnapshotMeta(
            self._cluster_id, index, term, entry_index, len(data), digest, configuration, configuration_index
        )

    def save(self, meta: SnapshotMeta, data: bytes | bytearray) -> None:
        """Durable and complete when this returns; an older snapshot never replaces a newer one. Raises OSError."""
        header = _meta_encoder.encode(meta)
        with self._lock:
            # A snapshot from the leader may arrive while a thread still writes our own.
            if meta.index > self._saved_index:
                self._disk.replace(
                    self._path, _PREFIX.pack(_MAGIC, _FORMAT, len(header), zlib.crc32(header)), header, data
                )
                self._saved_index = meta.index

    def load(self) -> tuple[SnapshotMeta, bytes] | None:
        """The snapshot, verified; None when there is none. Raises CorruptDataError."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        if len(raw) < _PREFIX.size:
            raise self._corrupt("it is cut short")
        magic, version, header_bytes, header_crc = _PREFIX.unpack_from(raw)
        if magic != _MAGIC:
            raise self._corrupt("it does not begin as a snapshot does")
        if version != _FORMAT:
            raise self._corrupt(f"it has format {version}, this program reads {_FORMAT}")
        data_at = _PREFIX.size + header_bytes
        header = raw[_PREFIX.size : data_at]
        if len(header) != header_bytes or zlib.crc32(header) != header_crc:
            raise self._corrupt("its header's checksum does not match")
        try:
            meta = _meta_decoder.decode(header)
        except DECODE_ERRORS as error:
            raise self._corrupt(f"its header is not readable ({error})") from error
        data = raw[data_at:]
        if not matches(meta, data):
            raise self._corrupt("its checksum does not match")
        if meta.cluster_id != self._cluster_id:
            raise self._corrupt(f"it belongs to cluster {meta.cluster_id!r}, not {self._cluster_id!r}")
        self._saved_index = max(self._saved_index, meta.index)
        return meta, data

    def age_s(self) -> float:
        """Since it was written, by the wall clock: for people to read. Raises OSError when there is none."""
        return max(0.0, time.time() - self._path.stat().st_mtime)

    def _corrupt(self, what: str) -> CorruptDataError:
        return CorruptDataError(f"{self._path}: the snapshot cannot be used: {what}")


def matches(meta: SnapshotMeta, data: bytes | bytearray) -> bool:
    """Whether `data` is exactly what `meta` describes."""
    return len(data) == meta.size and hashlib.sha256(data).digest() == meta.sha256
