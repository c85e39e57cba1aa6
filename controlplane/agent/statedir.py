"""The agent's directory: one agent at a time, one cluster for ever, and the nodes that the cluster told of last.

The nodes are a convenience: without them the agent dials the ones of its settings, which may all be gone by then.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from controlplane.agent.held import HeldFile
from controlplane.agent.journal import Journal

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LOCK = "lock"
CLUSTER = "cluster-id"
NODES = "nodes.json"
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
        try:
            self._write(CLUSTER, f"{cluster_id}\n".encode())
        except OSError as error:
            raise StateDirError(f"state_dir: {self._path / CLUSTER}: {error}") from error

    @property
    def nodes(self) -> Mapping[str, str]:
        """HOST:PORT by node, as the cluster told last; empty where that cannot be read."""
        try:
            return msgspec.json.decode((self._path / NODES).read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("the nodes of last time cannot be read", file=str(self._path / NODES), reason=str(error))
            return {}

    def remember_nodes(self, nodes: Mapping[str, str]) -> None:
        """Where that fails, a later start has the nodes of the settings alone."""
        try:
            self._write(NODES, msgspec.json.encode(dict(nodes), order="sorted"))
        except OSError as error:
            log.warning("the nodes cannot be remembered", file=str(self._path / NODES), reason=str(error))

    def _write(self, name: str, data: bytes) -> None:
        """All of it or nothing. Raises OSError."""
        draft = self._path / f".{name}"
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path / name)
