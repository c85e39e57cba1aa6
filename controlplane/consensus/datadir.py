"""The data directory of one node: whose it is, which format, and that only one process uses it.

`identity.json` is written once, after an empty journal. From then on a missing journal means that the node forgot its
term and its vote, which could elect two leaders in one term, so the node refuses to start rather than begin anew
under the old name.

Format 1 had the journal in one file. Such a directory is converted when it is opened: first the new journal, whole,
then the identity with its new format, then the old file goes. A program of format 1 refuses the result by its format.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from pathlib import Path

import msgspec

from controlplane.consensus.configuration import Configuration
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import (
    CorruptDataError,
    DataDirectoryLockedError,
    DivergedError,
    IdentityMismatchError,
)
from controlplane.consensus.framing import DECODE_ERRORS
from controlplane.consensus.journal import SEGMENT_BYTES, Journal
from controlplane.consensus.replay import LogState, Replay, segment_numbers
from controlplane.consensus.snapshot import SnapshotDirectory

_log = logging.getLogger(__name__)

_FORMAT = 2
_FILE_JOURNAL_FORMAT = 1


class _Identity(msgspec.Struct, frozen=True):
    """`store` tells this disk from any other that carries the same node's name. `founding` is the configuration the
    log begins with, None for a node that joined. Format 1 had neither.
    """

    format: int
    node: str
    cluster_id: str
    store: str = ""
    founding: Configuration | None = None


class _Known(msgspec.Struct):
    """What `peers.json` holds: the disk each peer was met with, and the incarnation of the cluster they belong to."""

    incarnation: int = 0
    stores: dict[str, str] = msgspec.field(default_factory=dict[str, str])


def holds_store(path: Path) -> bool:
    """Whether the directory was made, or converted, by a program that knows `store` and `founding`."""
    try:
        return bool(msgspec.json.decode((path / "identity.json").read_bytes(), type=_Identity).store)
    except (OSError, *DECODE_ERRORS):
        return False


class DataDirectory:
    """Holds the lock from construction to `close`. Raises ConsensusError subclasses that say what to do.

    `founding` is used by the first start only, and by that not with `join`; and once by a start that finds a directory
    of format 1, whose nodes were all founders. From then on the directory remembers it.
    """

    def __init__(
        self,
        path: Path,
        node: str,
        cluster_id: str,
        disk: Disk,
        *,
        founding: Configuration | None = None,
        join: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._path = path
        self._disk = disk
        self._join = join
        self._segment_bytes = segment_bytes
        self._directory_journal = path / "wal"
        self._file_journal = path / "journal"
        disk.make_directory(path)
        self._lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            self._refuse_diverged()
            self.journal = self._open_journal(_Identity(_FORMAT, node, cluster_id, secrets.token_hex(16), founding))
            self._known = self._read_known()
            self.snapshots = SnapshotDirectory(path / "snapshots", disk, cluster_id)
        except BaseException:
            os.close(self._lock_fd)
            raise

    @property
    def store(self) -> str:
        """The id of this disk."""
        return self._identity.store

    @property
    def founding(self) -> Configuration | None:
        """The configuration the log began with; None on a node that joined."""
        return self._identity.founding

    @property
    def stores(self) -> dict[str, str]:
        """The disks of the peers that were met."""
        return dict(self._known.stores)

    @property
    def incarnation(self) -> int:
        """That of the cluster this node belongs to; 0 before it met one."""
        return self._known.incarnation

    def remember_store(self, peer: str, store: str) -> None:
        """Durable when this returns: `peer` was met with the disk `store`. Raises OSError."""
        self._known.stores[peer] = store
        self._write_known()

    def remember_incarnation(self, incarnation: int) -> None:
        """Durable when this returns: this node belongs to that one. Raises OSError."""
        self._known.incarnation = incarnation
        self._write_known()

    def _write_known(self) -> None:
        self._disk.replace(self._path / "peers.json", msgspec.json.encode(self._known) + b"\n")

    def close(self) -> None:
        try:
            self.journal.close()
        finally:
            os.close(self._lock_fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryLockedError(f"{self._path}: in use by another process") from None

    def mark_diverged(self, reason: str) -> None:
        """Refuse to start with this directory from now on. Raises OSError."""
        self._disk.replace(self._path / "diverged", reason.encode() + b"\n")

    def _refuse_diverged(self) -> None:
        mark = self._path / "diverged"
        try:
            reason = mark.read_text(errors="replace").strip()
        except FileNotFoundError:
            return
        raise DivergedError(
            f"{self._path}: {reason}. Remove this node from the cluster and add it under a new id. If the cause was "
            f"outside of the disk (memory, a faulty build), deleting {mark.name} lets the node build its state anew "
            "from its own snapshot and log; it is compared with the others again."
        )

    def _open_journal(self, identity: _Identity) -> Journal:
        identity_path = self._path / "identity.json"
        # What a rename shows may not be on the disk yet, when the process before this one failed at its sync.
        self._disk.sync_directory(self._path)
        try:
            raw = identity_path.read_bytes()
        except FileNotFoundError:
            return self._initialise(identity_path, identity)
        try:
            found = msgspec.json.decode(raw, type=_Identity)
        except DECODE_ERRORS as error:
            raise CorruptDataError(f"{identity_path}: not readable ({error})") from error
        convert = found.format == _FILE_JOURNAL_FORMAT
        for name in ("node", "cluster_id") if convert else ("format", "node", "cluster_id"):
            if getattr(found, name) != getattr(identity, name):
                raise IdentityMismatchError(
                    f"{self._path}: belongs to {name} {getattr(found, name)!r}, this process is {name} "
                    f"{getattr(identity, name)!r}; a data directory is never reused by another node"
                )
        present = self._file_journal if convert else self._directory_journal
        if not present.exists():
            raise CorruptDataError(
                f"{present}: missing from an initialised data directory. Without its term and vote this node must "
                "not take part under its old id; remove it from the cluster and add it under a new one."
            )
        if convert:
            _log.info("%s: converting the journal to segments", self._path)
            journal = Journal.convert(present, self._directory_journal, self._disk, segment_bytes=self._segment_bytes)
        else:
            journal = Journal.open(present, self._disk, segment_bytes=self._segment_bytes)
        if convert or not found.store:
            found = identity
            self._write_identity(found)
        self._identity = found
        self._disk.remove(self._file_journal)
        return journal

    def _initialise(self, identity_path: Path, identity: _Identity) -> Journal:
        snapshots = [self._path / "snapshot", *(self._path / "snapshots").glob("*")]
        if any(each.exists() for each in snapshots) or not self._is_fresh():
            raise CorruptDataError(f"{identity_path}: missing, although the directory holds a log")
        self._disk.remove(self._file_journal)
        journal = Journal.create(self._directory_journal, self._disk, segment_bytes=self._segment_bytes)
        self._identity = msgspec.structs.replace(identity, founding=None) if self._join else identity
        self._write_identity(self._identity)
        return journal

    def _read_known(self) -> _Known:
        path = self._path / "peers.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Known)
        except FileNotFoundError:
            return _Known()
        except DECODE_ERRORS as error:
            raise CorruptDataError(f"{path}: not readable ({error})") from error

    def _write_identity(self, identity: _Identity) -> None:
        self._disk.replace(self._path / "identity.json", msgspec.json.encode(identity) + b"\n")

    def _is_fresh(self) -> bool:
        """Whether there is no journal, or the empty one of a first start that was interrupted before the identity."""
        states: list[LogState] = []
        if self._file_journal.exists():
            states.append(Replay.of_format_1(self._file_journal).state)
        if self._directory_journal.exists() and segment_numbers(self._directory_journal):
            states.append(Replay.of_directory(self._directory_journal).state)
        return all(len(state.entries) == 1 and state.current_term == 0 for state in states)
