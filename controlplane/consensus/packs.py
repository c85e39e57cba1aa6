"""Writing a pack: the chunks that this node does not have yet, behind each other in one new file.

The file is synced every few MiB, so that the sync at the end, and a journal's sync behind it on the same disk, find
little to wait for.
"""

from __future__ import annotations

from pathlib import Path

from controlplane.consensus.disk import Disk
from controlplane.consensus.stored import Place, pack_path

SYNC_BYTES = 4 << 20


class PackWriter:
    """One new pack; the file appears with the first chunk. All methods raise OSError."""

    def __init__(self, directory: Path, number: int, disk: Disk) -> None:
        self.number = number
        self.size = 0
        self.path = pack_path(directory, number)
        self.places: dict[bytes, Place] = {}
        """What was written, by SHA-256."""
        self._disk = disk
        self._fd = -1
        self._unsynced = 0
        self._created = False

    def add(self, sha256: bytes, data: bytes) -> Place:
        if not self._created:
            self._disk.replace(self.path, b"")
            self._fd = self._disk.open_append(self.path)
            self._created = True
        place = Place(self.number, self.size)
        self._disk.append(self._fd, data)
        self.size += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self._disk.sync(self._fd)
            self._unsynced = 0
        self.places[sha256] = place
        return place

    def read(self, place: Place, size: int) -> bytes:
        """What was written at `place`."""
        with self.path.open("rb") as file:
            file.seek(place.offset)
            return file.read(size)

    def finish(self) -> None:
        """Durable when this returns. Idempotent."""
        if self._fd >= 0:
            self._disk.sync(self._fd)
            self._close()

    def discard(self) -> None:
        """Nothing will ever refer to it."""
        self._close()
        if self._created:
            self._disk.remove(self.path)

    def _close(self) -> None:
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
