"""The data directory of one node: whose it is, which format, and that only one process uses it.

`identity.json` is written once, after an empty journal. From then on a missing journal means that the node forgot its
term and its vote, which could elect two leaders in one term, so the node refuses to start rather than begin anew
under the old name.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import CorruptDataError, DataDirectoryLockedError, IdentityMismatchError
from controlplane.consensus.framing import DECODE_ERRORS
from controlplane.consensus.journal import Journal
from controlplane.consensus.snapshot import SnapshotFile

_FORMAT = 1


class _Identity(msgspec.Struct, frozen=True):
    format: int
    node: str
    cluster_id: str


class DataDirectory:
    """Holds the lock from construction to `close`. Raises ConsensusError subclasses that say what to do."""

    def __init__(self, path: Path, node: str, cluster_id: str, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            self.journal = self._open_journal(_Identity(_FORMAT, node, cluster_id))
            self.snapshots = SnapshotFile(path / "snapshot", disk, cluster_id)
        except BaseException:
            os.close(self._lock_fd)
            raise

    def close(self) -> None:
        self.journal.close()
        os.close(self._lock_fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryLockedError(f"{self._path}: in use by another process") from None

    def _open_journal(self, identity: _Identity) -> Journal:
        identity_path = self._path / "identity.json"
        journal_path = self._path / "journal"
        try:
            raw = identity_path.read_bytes()
        except FileNotFoundError:
            return self._initialise(identity_path, journal_path, identity)
        try:
            found = msgspec.json.decode(raw, type=_Identity)
        except DECODE_ERRORS as error:
            raise CorruptDataError(f"{identity_path}: not readable ({error})") from error
        for name in ("format", "node", "cluster_id"):
            if getattr(found, name) != getattr(identity, name):
                raise IdentityMismatchError(
                    f"{self._path}: belongs to {name} {getattr(found, name)!r}, this process is {name} "
                    f"{getattr(identity, name)!r}; a data directory is never reused by another node"
                )
        if not journal_path.exists():
            raise CorruptDataError(
                f"{journal_path}: missing from an initialised data directory. Without its term and vote this node must "
                "not take part under its old id; remove it from the cluster and add it under a new one."
            )
        return Journal.open(journal_path, self._disk)

    def _initialise(self, identity_path: Path, journal_path: Path, identity: _Identity) -> Journal:
        if (self._path / "snapshot").exists() or (journal_path.exists() and not self._is_fresh(journal_path)):
            raise CorruptDataError(f"{identity_path}: missing, although the directory holds a log")
        journal = Journal.create(journal_path, self._disk)
        self._disk.replace(identity_path, msgspec.json.encode(identity) + b"\n")
        return journal

    def _is_fresh(self, journal_path: Path) -> bool:
        """Whether a first start was interrupted between creating the journal and the identity."""
        journal = Journal.open(journal_path, self._disk)
        try:
            return len(journal) == 1 and journal.current_term == 0
        finally:
            journal.close()
