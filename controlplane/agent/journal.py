"""What the agent has done, durable: one small file per microVM.

A record is on disk before the driver is called, so that an agent that dies in the middle of a create or a destroy knows
that it may have happened. Each file is JSON with a checksum, replaced whole (write, fsync, rename, fsync of the
directory). A file that does not read is never guessed at: opening the journal refuses and names it, because a lost
record could turn a restart into a second guest.
"""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from controlplane.model.types import DECODE_ERRORS

_UID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUFFIX = ".json"
_MAX_BYTES = 64 * 1024
_VERSION = 1


class JournalError(Exception):
    """The journal cannot be used; the message names the file and says what may be done about it."""


class RecordPhase(StrEnum):
    CREATING = "creating"
    """A create was begun: it may or may not have happened."""
    ACTIVE = "active"
    DESTROYING = "destroying"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What this host did for one microVM."""

    uid: str
    epoch: int
    phase: RecordPhase
    driver: str
    generation: int
    """Put into effect; while `creating`, the one that is attempted."""
    repair_seq: int = 0
    restart_seq: int = 0
    shut_down: bool = False
    """It was asked to power off because the lease was about to end."""


@dataclass(frozen=True, slots=True)
class _Stored:
    v: int
    crc32: int
    record: msgspec.Raw


_decoder = msgspec.json.Decoder(_Stored)
_record_decoder = msgspec.json.Decoder(Record)


class Journal:
    """The records by uid, in memory and on disk. Writers of one uid must not overlap; the runner sees to that."""

    def __init__(self, directory: Path, records: dict[str, Record]) -> None:
        self._directory = directory
        self._records = records

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """Read every record. Raises JournalError."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            paths = sorted(directory.iterdir())
        except OSError as error:
            raise JournalError(f"{directory}: the journal cannot be opened: {error}") from error
        records: dict[str, Record] = {}
        for path in paths:
            if path.name.startswith("."):
                path.unlink(missing_ok=True)  # a write that a crash cut short; the record itself was not replaced
            elif path.suffix == _SUFFIX:
                record = _read(path)
                records[record.uid] = record
            else:
                raise JournalError(f"{path}: not a file of the journal; move it elsewhere")
        return cls(directory, records)

    @property
    def records(self) -> Mapping[str, Record]:
        return self._records

    async def put(self, record: Record) -> None:
        """Returns when the record would survive a power failure. Raises JournalError."""
        if self._records.get(record.uid) == record:
            return
        await asyncio.to_thread(self._write, record)
        self._records[record.uid] = record

    async def remove(self, uid: str) -> None:
        """Forget a microVM; absent is success. Raises JournalError."""
        if uid not in self._records:
            return
        await asyncio.to_thread(self._unlink, uid)
        self._records.pop(uid, None)

    def _path(self, uid: str) -> Path:
        if _UID.fullmatch(uid) is None:
            raise JournalError(f"{uid!r} cannot be a microVM's uid")
        return self._directory / f"{uid}{_SUFFIX}"

    def _write(self, record: Record) -> None:
        path = self._path(record.uid)
        data = msgspec.json.encode(record)
        stored = msgspec.json.encode(_Stored(v=_VERSION, crc32=zlib.crc32(data), record=msgspec.Raw(data)))
        draft = path.with_name(f".{path.name}")
        try:
            with draft.open("wb") as file:
                file.write(stored)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            self._sync_directory()
        except OSError as error:
            raise JournalError(f"{path}: cannot be written: {error}") from error

    def _unlink(self, uid: str) -> None:
        path = self._path(uid)
        try:
            path.unlink(missing_ok=True)
            self._sync_directory()
        except OSError as error:
            raise JournalError(f"{path}: cannot be removed: {error}") from error

    def _sync_directory(self) -> None:
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read(path: Path) -> Record:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {error}") from error
    hint = "restore it, or move it away to have the microVM found by its driver alone"
    try:
        stored = _decoder.decode(data)
        if stored.v != _VERSION:
            raise JournalError(f"{path}: format {stored.v}; this agent knows {_VERSION}")
        if zlib.crc32(bytes(stored.record)) != stored.crc32:
            raise JournalError(f"{path}: the journal's record is damaged (checksum); {hint}")
        record = _record_decoder.decode(stored.record)
    except DECODE_ERRORS as error:
        raise JournalError(f"{path}: the journal's record is damaged ({error}); {hint}") from error
    if path.name != f"{record.uid}{_SUFFIX}":
        raise JournalError(f"{path}: holds the record of {record.uid}; {hint}")
    return record
