"""Simulated microVMs on disk: one SQLite file per host, shared by the agent's driver and the tampering command.

SQLite in WAL mode gives cheap atomic changes, many processes at once, and a counter (`data_version`) that tells when
somebody else changed something. `synchronous=NORMAL` survives the death of every process; after a loss of power the
newest changes may be missing, as the guests of a real host would be.

Time passes without anyone writing: a row holds when its guest will be ready, and console lines carry the time from
which they can be seen. A guest that stops or pauses before that loses its future lines.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec

from controlplane.model.gc import LeftoverKind
from controlplane.model.resources import ObservedPower
from controlplane.ports import DriverError, Remains

DRIVER = "simulated"
FILE_NAME = "simulated.db"
BUSY_TIMEOUT_S = 5.0
CONSOLE_LINES_MAX = 256
"""Lines kept per microVM; older ones go, and offsets keep counting from creation."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS microvm (
  native_id TEXT PRIMARY KEY, uid TEXT UNIQUE, cluster_id TEXT, namespace TEXT, name TEXT, epoch INTEGER,
  generation INTEGER, power TEXT NOT NULL, vcpu INTEGER NOT NULL, memory_in_mb INTEGER NOT NULL, cause TEXT,
  ready_at_ms INTEGER, boot_left_ms INTEGER NOT NULL, interfaces BLOB NOT NULL, definition BLOB
);
CREATE TABLE IF NOT EXISTS console (
  native_id TEXT NOT NULL, start INTEGER NOT NULL, visible_at_ms INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY (native_id, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fault (
  call TEXT NOT NULL, target TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, pointer TEXT,
  retryable INTEGER NOT NULL, times INTEGER, PRIMARY KEY (call, target)
);
CREATE TABLE IF NOT EXISTS lease (
  only INTEGER PRIMARY KEY CHECK (only = 1), boot_id TEXT NOT NULL, ends_s REAL NOT NULL, grace_s REAL NOT NULL,
  ttl_s REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS remains (
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, uid TEXT, cluster_id TEXT, microvm TEXT, epoch INTEGER,
  bytes INTEGER NOT NULL, marked INTEGER NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class Row(msgspec.Struct, frozen=True):
    """One simulated microVM, field by field as it is stored."""

    native_id: str
    uid: str | None
    cluster_id: str | None
    namespace: str | None
    name: str | None
    epoch: int | None
    generation: int | None
    power: ObservedPower
    vcpu: int
    memory_in_mb: int
    cause: str | None = None
    ready_at_ms: int | None = None
    """Wall clock, milliseconds: when the guest says that it is ready; None while it does not boot."""
    boot_left_ms: int = 0
    """What was left of the boot when it was paused."""
    interfaces: bytes = b"{}"
    """JSON object: device id to [host device, mac address]."""
    definition: bytes | None = None
    """JSON of the VMDefinition; None for one that no control plane made."""


class HeldLease(msgspec.Struct, frozen=True):
    """The host's lease that ends last."""

    boot_id: str
    ends_s: float
    """CLOCK_BOOTTIME of that boot."""
    grace_s: float
    ttl_s: float = 0.0
    """0: not known."""


class Fault(msgspec.Struct, frozen=True):
    """A refusal that a driver call is to give, for rehearsals. `times` None: until it is cleared."""

    call: str
    target: str
    """A uid, or `*` for every one."""
    code: str
    message: str
    pointer: str | None = None
    retryable: bool = True
    times: int | None = None


_COLUMNS = ", ".join(Row.__struct_fields__)
# Built from our own field names alone; every value travels as a parameter.
_SELECT = f"SELECT {_COLUMNS} FROM microvm"  # noqa: S608  # nosec B608
_REPLACE = f"INSERT OR REPLACE INTO microvm ({_COLUMNS}) VALUES ({', '.join('?' * len(Row.__struct_fields__))})"  # noqa: S608
_FAULT_COLUMNS = ", ".join(Fault.__struct_fields__)


def _row(values: tuple[Any, ...]) -> Row:
    row = Row(*values)
    return msgspec.structs.replace(row, power=ObservedPower(row.power))


class Store:
    """One open connection. Every method raises DriverError(`StateUnavailable`) when the file cannot be used."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE_NAME
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            with self._errors():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(_SCHEMA)
                self._add_what_is_missing()
        except (OSError, sqlite3.Error) as error:
            raise self._unavailable(error) from error

    def _add_what_is_missing(self) -> None:
        """In a file that an older version made."""
        columns = {str(each[1]) for each in self._db.execute("PRAGMA table_info(lease)")}
        if "ttl_s" not in columns:
            self._db.execute("ALTER TABLE lease ADD COLUMN ttl_s REAL NOT NULL DEFAULT 0")

    def close(self) -> None:
        self._db.close()

    def _unavailable(self, error: Exception) -> DriverError:
        return DriverError("StateUnavailable", f"cannot use {self._path}: {error}")

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All of what is done inside, or nothing of it, and alone."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def foreign_version(self) -> int:
        """Changes whenever another connection changed the file."""
        with self._errors():
            return int(cast(tuple[int], self._db.execute("PRAGMA data_version").fetchone())[0])

    def all(self) -> list[Row]:
        with self._errors():
            return [_row(values) for values in self._db.execute(_SELECT)]

    def get(self, uid: str) -> Row | None:
        with self._errors():
            values = self._db.execute(f"{_SELECT} WHERE uid = ?", (uid,)).fetchone()
            return None if values is None else _row(values)

    def find(self, which: str) -> Row | None:
        """By uid, native id or `namespace/name`."""
        with self._errors():
            query = f"{_SELECT} WHERE uid = ?1 OR native_id = ?1 OR namespace || '/' || name = ?1"
            values = self._db.execute(query, (which,)).fetchone()
            return None if values is None else _row(values)

    def put(self, row: Row) -> None:
        with self._errors():
            self._db.execute(_REPLACE, msgspec.structs.astuple(row))

    def delete(self, native_id: str) -> None:
        with self._errors():
            self._db.execute("DELETE FROM microvm WHERE native_id = ?", (native_id,))
            self._db.execute("DELETE FROM console WHERE native_id = ?", (native_id,))

    # -- the lease

    def lease(self) -> HeldLease | None:
        with self._errors():
            query = "SELECT boot_id, ends_s, grace_s, ttl_s FROM lease"
            values = cast(tuple[str, float, float, float] | None, self._db.execute(query).fetchone())
            return None if values is None else HeldLease(*values)

    def put_lease(self, lease: HeldLease) -> None:
        with self._errors():
            query = "INSERT OR REPLACE INTO lease VALUES (1, ?, ?, ?, ?)"
            self._db.execute(query, (lease.boot_id, lease.ends_s, lease.grace_s, lease.ttl_s))

    # -- console

    def print(self, native_id: str, lines: Iterable[tuple[int, str]], *, now_ms: int) -> None:
        """Append lines, each with the time from which it is seen; what was still to come is forgotten."""
        with self._errors():
            self._db.execute("DELETE FROM console WHERE native_id = ? AND visible_at_ms > ?", (native_id, now_ms))
            query = "SELECT start + length(data) FROM console WHERE native_id = ? ORDER BY start DESC LIMIT 1"
            last = cast(tuple[int] | None, self._db.execute(query, (native_id,)).fetchone())
            start = last[0] if last else 0
            for visible_at_ms, line in lines:
                data = f"{line}\r\n".encode()
                self._db.execute("INSERT INTO console VALUES (?, ?, ?, ?)", (native_id, start, visible_at_ms, data))
                start += len(data)
            self._db.execute(
                "DELETE FROM console WHERE native_id = ?1 AND start <= (SELECT start FROM console WHERE native_id = ?1"
                " ORDER BY start DESC LIMIT 1 OFFSET ?2)",
                (native_id, CONSOLE_LINES_MAX),
            )

    def console(self, native_id: str, *, now_ms: int) -> tuple[int, bytes]:
        """Offset of the oldest byte kept, and every byte from there that can be seen now."""
        with self._errors():
            query = "SELECT start, data FROM console WHERE native_id = ? AND visible_at_ms <= ? ORDER BY start"
            lines = cast(list[tuple[int, bytes]], self._db.execute(query, (native_id, now_ms)).fetchall())
            return (lines[0][0] if lines else 0), b"".join(data for _, data in lines)

    # -- what is left of microVMs that are gone, for rehearsals

    def leave(self, left: Remains) -> None:
        with self._errors():
            values = (
                left.name, left.kind.value, left.uid, left.cluster_id, left.microvm, left.epoch, left.bytes, left.marked
            )  # fmt: skip
            self._db.execute("INSERT OR REPLACE INTO remains VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def remains(self) -> list[Remains]:
        with self._errors():
            rows = self._db.execute("SELECT * FROM remains ORDER BY name").fetchall()
        return [
            Remains(
                driver=DRIVER,
                name=name,
                kind=LeftoverKind(kind),
                uid=uid,
                cluster_id=cluster_id,
                microvm=microvm,
                epoch=epoch,
                bytes=taken,
                marked=bool(marked),
            )
            for name, kind, uid, cluster_id, microvm, epoch, taken, marked in rows
        ]

    def clear(self, name: str) -> None:
        with self._errors():
            self._db.execute("DELETE FROM remains WHERE name = ?", (name,))

    # -- faults

    def set_fault(self, fault: Fault) -> None:
        with self._errors():
            marks = ", ".join("?" * len(Fault.__struct_fields__))
            query = f"INSERT OR REPLACE INTO fault ({_FAULT_COLUMNS}) VALUES ({marks})"  # noqa: S608
            self._db.execute(query, msgspec.structs.astuple(fault))

    def clear_faults(self) -> None:
        with self._errors():
            self._db.execute("DELETE FROM fault")

    def take_fault(self, call: str, target: str) -> Fault | None:
        """The fault for this call, counted down."""
        with self._errors():
            query = f"SELECT {_FAULT_COLUMNS} FROM fault WHERE call = ? AND target IN (?, '*') LIMIT 1"  # noqa: S608  # nosec B608
            values = cast(tuple[Any, ...] | None, self._db.execute(query, (call, target)).fetchone())
            if values is None:
                return None
            fault = Fault(*values)
            if fault.times is not None:
                key = (fault.call, fault.target)
                self._db.execute("UPDATE fault SET times = times - 1 WHERE call = ? AND target = ?", key)
                self._db.execute("DELETE FROM fault WHERE call = ? AND target = ? AND times <= 0", key)
            return fault
