"""Sending a snapshot to a lagging follower and receiving one, a chunk at a time with an acknowledgement for each.

Pure bookkeeping. A lost chunk is sent again after `RESEND_AFTER_S`; a chunk that does not continue what is here is
answered with how much is, so both sides agree again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controlplane.consensus.messages import InstallSnapshot
from controlplane.consensus.snapshot import SnapshotMeta, matches

CHUNK_BYTES = 1 << 20
RESEND_AFTER_S = 2.0
MAX_SNAPSHOT_BYTES = 4 << 30


@dataclass(slots=True)
class Outgoing:
    """One snapshot on its way to one follower."""

    meta: SnapshotMeta
    data: bytes
    offset: int = 0
    sent_at_s: float | None = None

    def due(self, now_s: float) -> bool:
        return self.sent_at_s is None or now_s - self.sent_at_s > RESEND_AFTER_S

    def chunk(self, term: int, now_s: float) -> InstallSnapshot:
        self.sent_at_s = now_s
        return InstallSnapshot(term, self.meta, self.offset, self.data[self.offset : self.offset + CHUNK_BYTES])

    def acknowledged(self, offset: int) -> None:
        self.offset = min(offset, self.meta.size)
        self.sent_at_s = None


@dataclass(slots=True)
class Incoming:
    """The snapshot being received. Holds at most what its header announces."""

    meta: SnapshotMeta | None = None
    data: bytearray = field(default_factory=bytearray)

    def accept(self, message: InstallSnapshot) -> bool:
        """Take a chunk; True when the snapshot is complete and matches its checksum."""
        if message.meta.size > MAX_SNAPSHOT_BYTES:
            raise ValueError(f"snapshot of {message.meta.size} bytes, at most {MAX_SNAPSHOT_BYTES} are accepted")
        if message.meta != self.meta:
            self.meta = message.meta
            self.data = bytearray()
        if message.offset != len(self.data) or len(self.data) + len(message.data) > message.meta.size:
            return False
        self.data += message.data
        if len(self.data) < message.meta.size:
            return False
        if matches(message.meta, self.data):
            return True
        self.clear()
        return False

    @property
    def offset(self) -> int:
        return len(self.data)

    def clear(self) -> None:
        self.meta = None
        self.data = bytearray()
