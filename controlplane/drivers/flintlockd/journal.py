"""What we asked of a Flintlock host, on disk before we ask it.

One JSON file per uid, replaced atomically and synced before `put` returns, so that after a crash at any point it is
known which creates may have happened. The namespaces ever used are kept too, because the host lists one at a time.
Reading is from memory. Methods that write block; the driver runs them one at a time on a thread of their own.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path

import msgspec

from controlplane.ports import DriverError, VMDefinition

NAMESPACES_FILE = "namespaces.json"
_UID_PATTERN = re.compile(r"[0-9A-Za-z]{1,64}")


class Phase(StrEnum):
    CREATING = "creating"
    """A create is about to be sent, or was, and nothing more is known."""
    CREATED = "created"
    """`native_id` runs `definition`."""
    DESTROYED = "destroyed"
    """Gone, and a create that was never answered may still turn up: a tombstone."""


class Record(msgspec.Struct, frozen=True):
    definition: VMDefinition
    phase: Phase
    native_id: str | None = None
    in_doubt: bool = False
    """Some create for this uid ended without an answer, so it may take effect at any time."""
    at_ms: int = 0
    """Wall clock when the phase was entered; for CREATING, when the last create was sent."""


_records = msgspec.json.Decoder(Record)
_namespaces = msgspec.json.Decoder(list[str])


class Journal:
    """Raises DriverError(`JournalUnavailable`) when the disk refuses, (`JournalCorrupt`) for what it did not write."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir / "journal"
        self._namespaces_path = state_dir / NAMESPACES_FILE
        self._records: dict[str, Record] = {}
        self._used_namespaces: frozenset[str] = frozenset()

    def load(self) -> None:
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._records = {path.stem: self._read(path) for path in sorted(self._dir.glob("*.json"))}
            if self._namespaces_path.exists():
                self._used_namespaces = frozenset(_namespaces.decode(self._namespaces_path.read_bytes()))
        except OSError as error:
            raise _unavailable(error) from error
        except (msgspec.DecodeError, ValueError) as error:
            raise DriverError(
                "JournalCorrupt", f"{self._namespaces_path} is damaged: {error}", retryable=False
            ) from error

    def _read(self, path: Path) -> Record:
        try:
            record = _records.decode(path.read_bytes())
        except (msgspec.DecodeError, ValueError) as error:
            raise DriverError(
                "JournalCorrupt",
                f"{path} is damaged ({error}); remove it only when the host shows what became of this microVM",
                retryable=False,
            ) from error
        if record.definition.uid != path.stem:
            raise DriverError("JournalCorrupt", f"{path} is about {record.definition.uid}", retryable=False)
        return record

    def get(self, uid: str) -> Record | None:
        return self._records.get(uid)

    def all(self) -> dict[str, Record]:
        """Uid to record, as of now."""
        return dict(self._records)

    @property
    def namespaces(self) -> frozenset[str]:
        """Every namespace that a create was ever sent to."""
        return self._used_namespaces

    def put(self, record: Record) -> None:
        """Durable when it returns."""
        uid = record.definition.uid
        namespaces = self._used_namespaces | {record.definition.namespace}
        path = self._path(uid)
        try:
            if namespaces != self._used_namespaces:
                _write_durably(self._namespaces_path, msgspec.json.encode(sorted(namespaces)))
                self._used_namespaces = namespaces
            _write_durably(path, msgspec.json.encode(record))
        except OSError as error:
            raise _unavailable(error) from error
        self._records[uid] = record

    def remove(self, uid: str) -> None:
        """Durable when it returns. Absent is success."""
        try:
            self._path(uid).unlink(missing_ok=True)
            _sync_dir(self._dir)
        except OSError as error:
            raise _unavailable(error) from error
        self._records.pop(uid, None)

    def _path(self, uid: str) -> Path:
        if not _UID_PATTERN.fullmatch(uid):
            raise DriverError("InvalidUid", f"{uid!r} is not a uid", retryable=False)
        return self._dir / f"{uid}.json"


def _unavailable(error: OSError) -> DriverError:
    return DriverError("JournalUnavailable", f"cannot keep the journal: {error}")


def _write_durably(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_dir(path.parent)


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
