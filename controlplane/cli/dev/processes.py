"""Processes that outlive the command which started them, known by pid and start time.

A pid alone may belong to somebody else by now; the start time (clock ticks since boot, from /proc) and the boot id
make it unique. Signals go through a pidfd that was opened before the identity was checked, so that they can never
reach another process. Each process leads a session of its own, which is how its children are found.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.identity import storage

_PROC = Path("/proc")
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    start_time: int
    """Clock ticks between boot and the process' start."""
    boot_id: str

    @property
    def alive(self) -> bool:
        return self.boot_id == boot_id() and _stat(self.pid, expected_start=self.start_time) is not None

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)


_children: list[subprocess.Popen[bytes]] = []
"""Started by this process and not seen to end: nobody else may wait for them."""


def identify(pid: int) -> ProcessId | None:
    """The identity of a process that runs now; None when there is none (a zombie is none)."""
    stat = _stat(pid)
    return None if stat is None else ProcessId(pid=pid, start_time=stat.start_time, boot_id=boot_id())


def start(command: Sequence[str], *, log: Path, run_file: Path, environ: Mapping[str, str]) -> ProcessId:
    """Start a process in its own session, with its output appended to `log`, and write its identity to `run_file`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    run_file.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(  # ends with `reap`, or outlives this command
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environ),
        )
    _children.append(child)
    stat = _stat(child.pid, zombies=True)
    started = ProcessId(pid=child.pid, start_time=stat.start_time if stat else 0, boot_id=boot_id())
    storage.replace(run_file, json.dumps(asdict(started)).encode(), mode=0o600)
    return started


def recorded(run_file: Path) -> ProcessId | None:
    """What `start` wrote, if that process still runs."""
    try:
        found = ProcessId(**json.loads(run_file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive else None


def session_of(leader: ProcessId) -> list[ProcessId]:
    """Every process in the leader's session, the leader first."""
    members = [identify(pid) for pid, stat in _all() if stat.session == leader.pid]
    found = [member for member in members if member is not None]
    return sorted(found, key=lambda member: member.pid != leader.pid)


def stop(processes: Sequence[ProcessId], *, grace_s: float) -> list[ProcessId]:
    """SIGTERM, then SIGKILL after `grace_s` to whatever is left. Gives those that had to be killed."""
    for process in processes:
        process.signal(signal.SIGTERM)
    await_end(processes, timeout_s=grace_s)
    stubborn = [process for process in processes if process.alive]
    kill(stubborn)
    return stubborn


def kill(processes: Sequence[ProcessId], *, timeout_s: float = 10.0) -> bool:
    """SIGKILL, and wait until they are gone; False when one is still there."""
    for process in processes:
        process.signal(signal.SIGKILL)
    return await_end(processes, timeout_s=timeout_s)


def await_end(processes: Sequence[ProcessId], *, timeout_s: float) -> bool:
    give_up = time.monotonic() + timeout_s
    while any(process.alive for process in processes):
        if time.monotonic() > give_up:
            return False
        reap()
        time.sleep(_POLL_S)
    reap()
    return True


def reap() -> None:
    """Take note of children of ours that ended; those of an earlier command are init's to reap."""
    _children[:] = [child for child in _children if child.poll() is None]


def mentioning(text: str) -> Iterator[tuple[ProcessId, str]]:
    """Every process but this one and its ancestors that has `text` in its command line, with that command line."""
    mine = set(_ancestors(os.getpid()))
    for pid, _ in _all():
        if pid in mine:
            continue
        try:
            command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        identity = identify(pid) if text in command else None
        if identity is not None:
            yield identity, command


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    session: int
    start_time: int


def _stat(pid: int, *, zombies: bool = False, expected_start: int | None = None) -> _Stat | None:
    try:
        content = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything, so count from the last parenthesis.
    state, parent, _, session, *rest = content.rpartition(")")[2].split()
    if state in "ZX" and not zombies:
        return None
    stat = _Stat(parent=int(parent), session=int(session), start_time=int(rest[15]))
    return stat if expected_start in (None, stat.start_time) else None


def _all() -> Iterator[tuple[int, _Stat]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            yield int(entry.name), stat


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        stat = _stat(pid)
        if stat is None:
            return
        pid = stat.parent
