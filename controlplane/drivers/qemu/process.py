"""QEMU processes: started so that they outlive the agent, found again by their tag, killed by pidfd only.

/proc is the truth about what runs; no pid is ever stored. A pid that was found is opened as a pidfd and its tag read
again through /proc before a signal is sent, so a reused pid is never hit. Each process inherits a locked file of its
folder: the kernel drops that lock when the last holder is gone, so nobody starts a second QEMU on the same disks, even
when the agent died between fork and exec.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from controlplane.drivers.qemu.tag import Tag, instance_of, parse
from controlplane.drivers.qemu.watchdog import Key, process_stat
from controlplane.ports import DriverError

KILL_TIMEOUT_S = 10.0
_LOCK_FD = 3
_NAME_PREFIX = "guest="


@dataclass(frozen=True, slots=True)
class Found:
    """A running QEMU process with the mark of one instance."""

    pid: int
    name: str
    """The whole mark."""
    tag: Tag | None
    stopped: bool
    """Halted by a signal (`kill -STOP`) or a tracer."""
    folder: str
    """Working directory: the microVM's folder for processes that we started."""
    start: int
    """When it was started, in the kernel's ticks."""

    @property
    def key(self) -> Key:
        """Names this one process for as long as the machine is up."""
        return self.pid, self.start


def scan(instance: str) -> list[Found]:
    """Every live process marked for `instance`, in the order of their pids; zombies do not count."""
    found: list[Found] = []
    for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208 (hot path)
        process = inspect(entry)
        if process is not None and instance_of(process.name) == instance:
            found.append(process)
    return found


def inspect(pid: int) -> Found | None:
    """The process if it is a live, marked QEMU."""
    folder = Path(f"/proc/{pid}")
    try:
        if not (folder / "comm").read_bytes().startswith(b"qemu-system"):
            return None
        arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        state, start = process_stat(pid)
        directory = str((folder / "cwd").readlink())
    except OSError:
        return None
    name = _name(arguments)
    if name is None or state in "ZX":
        return None
    return Found(pid, name, parse(name), state in "Tt", directory, start)


def is_halted(found: Found) -> bool:
    """Whether it is halted by a signal by now."""
    try:
        state, start = process_stat(found.pid)
    except OSError:
        return False
    return start == found.start and state in "Tt"


def _name(arguments: Sequence[str]) -> str | None:
    for option, value in pairwise(arguments):
        if option == "-name":
            return value.split(",")[0].removeprefix(_NAME_PREFIX)
    return None


def lock(path: Path) -> int | None:
    """A descriptor that holds the exclusive lock on `path`, or None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def unlock(descriptor: int) -> None:
    """Let go of a lock; a process that was started with it keeps it."""
    os.close(descriptor)


def spawn(argv: Sequence[str], *, folder: Path, lock_fd: int, output: Path) -> tuple[int, int]:
    """Start `argv` in `folder`, in a session of its own, its output going to `output`; gives its pid and a pidfd.

    The lock stays with the process. `env -C` changes the directory and then becomes QEMU; it keeps the pid.
    """
    pid = os.posix_spawn(
        "/usr/bin/env",
        ["env", "-C", str(folder), *argv],
        {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, lock_fd, _LOCK_FD),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM],
        setsigmask=[],
    )
    return pid, os.pidfd_open(pid)


class Handle:
    """A pidfd on one process. Close it when done; the process does not notice."""

    def __init__(self, pidfd: int) -> None:
        self._fd = pidfd
        self._status: str | None = None

    @classmethod
    def open(cls, found: Found) -> Handle | None:
        """None when the process is gone, or when its pid belongs to another one by now."""
        try:
            handle = cls(os.pidfd_open(found.pid))
        except ProcessLookupError:
            return None
        again = inspect(found.pid)
        if again is None or again.name != found.name:
            handle.close()
            return None
        return handle

    @property
    def fd(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def running(self) -> bool:
        """False once the process ended, and once this handle is closed. A zombie does not run."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that is gone is no error."""
        if self.running:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def exit_status(self) -> str | None:
        """How our own child ended, `signal 9` or `status 1`; None while it runs and for other parents' children."""
        if self._fd < 0:
            return self._status
        try:
            result = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return self._status
        if result is not None:
            how = "status" if result.si_code == os.CLD_EXITED else "signal"
            self._status = f"{how} {result.si_status}"
        return self._status

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False when the process still runs after `timeout_s`."""
        if not self.running:
            self.exit_status()
            return True
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        # A descriptor of its own: an event loop takes one reader per descriptor, and others may watch this one.
        watched = os.dup(self._fd)
        loop.add_reader(watched, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), max(timeout_s, 0))
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        self.exit_status()
        return True

    async def kill(self) -> None:
        """SIGKILL, and see that it is gone. Raises DriverError(`HypervisorStuck`)."""
        self.send(signal.SIGKILL)
        if not await self.wait(KILL_TIMEOUT_S):
            raise DriverError("HypervisorStuck", f"a QEMU process did not end within {KILL_TIMEOUT_S:.0f} s of SIGKILL")
