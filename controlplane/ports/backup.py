"""Snapshots that can be read from outside, and the stores that keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.manifest import Manifest


class SnapshotGoneError(Exception):
    """The snapshot, or the chunk of it, that was asked for is not held here: take another snapshot."""


class SnapshotsBusyError(Exception):
    """Too many snapshots are being read already."""


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A point of the state that is held so that its chunks can be read."""

    id: str
    encoded: bytes
    """The manifest as it is stored and sent."""
    manifest: Manifest
    revision: int
    idle_s: float
    """It is let go when nobody asked for anything of it for so long."""


class SnapshotSource(Protocol):
    """Snapshots of the replicated state, as of now."""

    async def take(self, *, timeout_s: float) -> HeldSnapshot:
        """A snapshot that includes every write acknowledged before the call. Raises LogError, SnapshotsBusyError."""
        ...

    async def manifest(self, id_: str) -> bytes:
        """Raises SnapshotGoneError."""
        ...

    async def chunks(self, id_: str, names: Sequence[str]) -> Sequence[bytes]:
        """The chunks of these names, in their order. Raises SnapshotGoneError."""
        ...

    async def release(self, id_: str) -> None:
        """It is not needed any more; unknown is success."""
        ...


class StoreError(Exception):
    """A snapshot store could not do what was asked.

    `code` is stable: `not_found`, `no_bucket`, `denied`, `unreachable`, `damaged` (what is there is not what was put),
    `busy` (somebody else is at work there), `too_large`, `invalid` (the caller's or the settings' fault) or `failed`.
    Message and `hint` hold no credential.
    """

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class StoredObject:
    name: str
    size: int
    modified_at_s: float
    """Seconds since the Unix epoch by the store's own clock: to be compared with other objects of the store only."""


class SnapshotStore(Protocol):
    """Objects by name, each there whole or not at all.

    Names are relative paths of safe segments (`chunks/ab/abcd...`). Every call blocks, is bounded in time and memory,
    may be made from several threads at once, and raises StoreError.
    """

    @property
    def location(self) -> str:
        """Where this is, for people; without credentials."""
        ...

    @property
    def shared(self) -> bool:
        """It holds many snapshots and others may use it at the same time; False for a file with one snapshot."""
        ...

    def put(self, name: str, data: Iterable[bytes], *, sha256: str) -> None:
        """Keep `data` under `name`, replacing what was there. When this returns, what is stored was compared with
        `sha256` (hex); when it raises, no altered or shortened object stays under `name`."""
        ...

    def get(self, name: str, *, sha256: str | None = None) -> bytes:
        """The object; with `sha256`, an altered or truncated one is refused (`damaged`)."""
        ...

    def exists(self, name: str) -> bool: ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below the folder `prefix`, in any order."""
        ...

    def delete(self, name: str) -> None:
        """Absent is success."""
        ...


@dataclass(frozen=True, slots=True)
class BackupStatus:
    """The scheduled backups as one node sees them: by what is in the store, and what it last tried itself."""

    location: str
    every_s: float
    last_saved_at_ms: int | None
    """When the newest snapshot in the store was taken; None when there is none or the store was not read yet."""
    last_index: int | None
    error: str
    """Why the last look or save of this node failed; empty when it did not."""
    error_at_ms: int | None
    overdue: bool
    """The newest snapshot is older than two periods, or there is none after that time."""
