"""The agent's directory: one agent at a time, one cluster for ever."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from controlplane.agent.held import HeldFile
from controlplane.agent.journal import Journal

LOCK = "lock"
CLUSTER = "cluster-id"
JOURNAL = "journal"


class StateDirError(Exception):
    """The directory cannot be used; the message names the file."""


class StateDir:
    """Locked from opening to closing; the lock goes with the process, however it ends."""

    def __init__(self, path: Path, lock: int) -> None:
        self._path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> StateDir:
        """Raises StateDirError when another agent has it, or it cannot be made."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirError(f"state_dir: {path}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise StateDirError(f"state_dir: {path} is in use by another agent (pid {holder})") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return cls(path, lock)

    def close(self) -> None:
        # A child that a thread is just forking still has the descriptor: closing ours alone would not let go.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)

    def journal(self) -> Journal:
        """Raises JournalError."""
        return Journal.open(self._path / JOURNAL)

    def held(self, boot_id: str) -> HeldFile:
        """Raises StateDirError."""
        file = HeldFile(self._path, boot_id)
        try:
            file.remove_others()
        except OSError as error:
            raise StateDirError(f"state_dir: {self._path}: {error}") from error
        return file

    @property
    def cluster_id(self) -> str | None:
        """The cluster that this host has served before."""
        try:
            return (self._path / CLUSTER).read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StateDirError(f"state_dir: {self._path / CLUSTER}: {error}") from error

    def remember_cluster(self, cluster_id: str) -> None:
        """Raises StateDirError."""
        path = self._path / CLUSTER
        draft = path.with_name(f".{CLUSTER}")
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(f"{cluster_id}\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise StateDirError(f"state_dir: {path}: {error}") from error
