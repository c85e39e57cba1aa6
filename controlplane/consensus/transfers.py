"""Bringing a snapshot to a lagging follower: the leader offers it, the follower fetches what it lacks of it.

The follower drives: it asks for the manifest piece by piece, then for the chunks it does not have, never more at a time
than a window, and writes them to disk as they come. So memory is bounded on both sides, and whatever interrupts a
transfer (a lost connection, another leader with another snapshot), what is here already is not fetched again. A leader
that hears nothing for a while repeats its offer, and the follower then repeats what it asked for.

Pure bookkeeping but for the chunks' own disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from controlplane.consensus.messages import SnapshotData, SnapshotFetch, SnapshotOffer
from controlplane.consensus.packs import PackWriter
from controlplane.consensus.stored import SnapshotReader
from controlplane.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    ManifestError,
    decode_manifest,
    manifest_hash,
    verify_chunk,
)

PIECE_BYTES = 512 << 10
"""What one message asks for; one chunk may be larger."""
WINDOW_BYTES = 4 * PIECE_BYTES
"""What a follower has asked for and not got yet."""
MAX_ASKED = 4096
"""Chunks in one message."""
REPEAT_AFTER_S = 2.0


@dataclass(slots=True)
class Outgoing:
    """One snapshot that a follower is offered."""

    reader: SnapshotReader
    offered_at_s: float | None = None
    """When the follower was last offered it or last asked for something."""

    @property
    def hash(self) -> bytes:
        return manifest_hash(self.reader.encoded)

    @property
    def index(self) -> int:
        return self.reader.manifest.index

    def due(self, now_s: float) -> bool:
        return self.offered_at_s is None or now_s - self.offered_at_s > REPEAT_AFTER_S

    def offer(self, term: int, now_s: float) -> SnapshotOffer:
        self.offered_at_s = now_s
        return SnapshotOffer(term, self.index, self.hash, len(self.reader.encoded))

    def answer(self, term: int, asked: SnapshotFetch, now_s: float) -> SnapshotData | None:
        """What was asked for; None when nothing was. Raises CorruptDataError, OSError."""
        self.offered_at_s = now_s
        if asked.chunks:
            return SnapshotData(term, self.hash, 0, b"", list(self._chunks(asked.chunks)))
        piece = self.reader.encoded[asked.offset : asked.offset + PIECE_BYTES]
        return SnapshotData(term, self.hash, asked.offset, piece, []) if piece else None

    def _chunks(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        size = 0
        for position in positions:
            # Whoever asks for more than a follower of ours does gets the rest when it asks again.
            if position < len(self.reader.manifest.chunks) and size < PIECE_BYTES:
                data = self.reader.read(position)
                size += len(data)
                yield position, data


class Incoming:
    """The snapshot being fetched. Holds its manifest; its chunks lie in `pack`."""

    def __init__(self, offer: SnapshotOffer, pack: PackWriter, has: Callable[[bytes], bool]) -> None:
        """`has` says whether a chunk is on this disk already. Raises ManifestError."""
        if offer.size > MAX_MANIFEST_BYTES:
            raise ManifestError(f"a manifest of {offer.size} bytes; at most {MAX_MANIFEST_BYTES} are accepted")
        self.hash = offer.hash
        self.index = offer.index
        self.pack = pack
        self.manifest: Manifest | None = None
        self.fetched_bytes = 0
        self._has = has
        self._size = offer.size
        self._encoded = bytearray()
        self._asked_manifest = False
        self._missing: deque[int] = deque()
        self._asked: dict[int, int] = {}
        """Positions on their way, with their sizes."""

    @property
    def encoded(self) -> bytes:
        return bytes(self._encoded)

    @property
    def complete(self) -> bool:
        return self.manifest is not None and not self._missing and not self._asked

    def repeat(self) -> None:
        """What was asked for may be lost: ask again."""
        self._asked_manifest = False
        self._missing.extendleft(reversed(self._asked))
        self._asked.clear()

    def lack(self, positions: Iterable[int]) -> None:
        """Chunks that were here are gone: fetch them, too."""
        self._missing.extend(positions)

    def requests(self, term: int) -> Iterator[SnapshotFetch]:
        """What to ask for now."""
        if self.manifest is None:
            if not self._asked_manifest:
                self._asked_manifest = True
                yield SnapshotFetch(term, self.index, self.hash, len(self._encoded), [], installed=False)
            return
        while self._missing and sum(self._asked.values()) < WINDOW_BYTES:
            wanted: list[int] = []
            size = 0
            while self._missing and size < PIECE_BYTES and len(wanted) < MAX_ASKED:
                position = self._missing.popleft()
                self._asked[position] = self.manifest.chunks[position].size
                size += self._asked[position]
                wanted.append(position)
            yield SnapshotFetch(term, self.index, self.hash, 0, wanted, installed=False)

    def accept(self, message: SnapshotData) -> None:
        """Take what came. Raises ManifestError when it is not what was asked for, OSError."""
        if self.manifest is None:
            if message.offset == len(self._encoded) and message.data:
                self._encoded += message.data
                self._asked_manifest = False
                if len(self._encoded) >= self._size:
                    self._read_manifest()
            return
        for position, data in message.chunks:
            if self._asked.pop(position, None) is None:
                continue
            ref = self.manifest.chunks[position]
            try:
                verify_chunk(ref, data)
            except ManifestError:
                self._missing.append(position)
                raise
            self.pack.add(ref.sha256, data)
            self.fetched_bytes += len(data)

    def _read_manifest(self) -> None:
        if manifest_hash(self._encoded) != self.hash:
            raise ManifestError("the manifest is not the one that was offered")
        self.manifest = decode_manifest(self._encoded)
        if self.manifest.index != self.index:
            raise ManifestError(f"a snapshot at {self.manifest.index} was offered as one at {self.index}")
        self._missing.extend(
            position
            for position, ref in enumerate(self.manifest.chunks)
            if ref.sha256 not in self.pack.places and not self._has(ref.sha256)
        )
