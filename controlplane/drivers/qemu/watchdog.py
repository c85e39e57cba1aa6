"""Ends the right to run: a small process beside the agent that halts guests when the host's lease is over.

    python -m controlplane.drivers.qemu.watchdog --socket watchdog.sock --state watchdog.json

The agent may hang, crash or be stopped, and the control plane still has to know that guests which it may start
elsewhere run here no more (docs/adr/0100, 0102). So this process is told which QEMU processes it guards and until when
they may run, and it needs nobody to act: at the end of the lease it halts (SIGSTOP) or kills (SIGKILL) them, through
pidfds and never through QEMU's own monitor. It forks once and goes on in the background when it is ready.

*Threads.* The main one only looks at the clock and sends signals: it never touches a disk or a socket, so a disk that
hangs does not keep a guest running. The other one answers the driver and writes the state. They share one lock, which
nobody holds while he waits for anything. Every answer needs that lock, so a driver that gets answers knows that the
clock is looked at.

*Time* is CLOCK_BOOTTIME, which goes on while the machine is suspended. No timer is trusted: the clock is read at least
every TICK_S, which is also how soon after a resume an end that was slept through is noticed.

*Memory.* The guarded set, the lease and the boot id are in `--state`, replaced in one step before an answer is given;
without fsync, because a loss of power ends the guests too. A watchdog that is started again reads it, and acts at once
when the end has passed. What it did to a guest is told by a file `lease-ended` in the guest's folder.

*One request is one line of JSON*, all of its parts optional, and taken as a whole:

    {"guard": [{"uid", "pid", "start", "action", "folder"}], "release": [[pid, start]], "resume": [[pid, start]],
     "lease": {"ends", "grace", "ttl"}}

`start` is the process's start time in /proc/PID/stat: with the pid it names one process for as long as the machine is
up. `action` is `pause` (SIGSTOP at the end, SIGKILL `grace` seconds later) or `stop` (SIGKILL at the end). A guard
stands until it is released or the process is gone, whatever becomes of the driver. A lease never gets shorter. `resume`
lets a guest go on that somebody else halted, if the lease is live: SIGCONT to a guarded guest comes from here alone.
`ttl` is only remembered: an agent that lost everything asks here how long a lease it may still hold. The answer tells
the protocol, the lease, everything that is guarded, and which processes of `guard` are gone.

*What it does not do.* It does not use /dev/watchdog. When this process and the agent are both killed or frozen, nobody
ends the guests: that, and a host that freezes as a whole and thaws, needs a hardware watchdog and is outside of what
the control plane guarantees. While the agent lives, it replaces a watchdog that died or does not answer.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

TICK_S = 0.2
LINGER_S = 5.0
"""With nothing to guard and nobody connected, it ends after this long."""
UNGRANTED_GRACE_S = 60.0
"""How long a guest to be paused is kept halted where no lease is known at all: the first grant may be on its way."""
LONGEST_S = 3600.0
"""No lease reaches further; a number that says so is damaged."""
MARK = "lease-ended"
IN_USE = 3
"""Exit code: another watchdog serves this state."""
PROTOCOL = 1
"""Raised with every change that the other side would misunderstand: a driver replaces a watchdog of another one."""
_MAX_REQUEST_BYTES = 4 << 20
_MCL_CURRENT = 1

Key = tuple[int, int]
"""(pid, start time): one process."""
Request = dict[str, Any]


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 (pathlib is slow to import)
        return file.read().strip()


def process_stat(pid: int) -> tuple[str, int]:
    """(state, start time) of a process. Raises OSError when there is none."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return fields[0], int(fields[19])


class Right(NamedTuple):
    """What a host's guests may do until when. What follows from it is here, and needs no process and no clock."""

    ends: float
    grace: float
    ttl: float | None
    """How long the lease lives from when it was asked for; None where nobody told."""

    @classmethod
    def renewed(cls, held: Right | None, told: Request, now: float) -> Right:
        """It never gets shorter. Raises ValueError where `told` is no lease; KeyError and TypeError likewise."""
        ends, grace = float(told["ends"]), float(told["grace"])
        ttl = float(told["ttl"]) if told.get("ttl") is not None else None
        if not (ends < now + LONGEST_S and 0 <= grace <= LONGEST_S):
            raise ValueError(f"a lease until {ends} (grace {grace}) at {now} is not possible")
        return cls(ends, grace, ttl) if held is None or ends >= held.ends else held


def verdict(held: Right | None, action: str, since: float, now: float) -> tuple[str, float]:
    """What is to become of a guest that is guarded since `since`: `run`, `halt` or `kill`; and until when that holds.

    Where no lease is known, the right to run ended when the guest was first guarded.
    """
    ends, grace = (held.ends, held.grace) if held is not None else (since, UNGRANTED_GRACE_S)
    killed = ends + (grace if action == "pause" else 0.0)
    if now < ends:
        return "run", ends
    return ("halt", killed) if now < killed else ("kill", math.inf)


class Guard:
    """One process that may run only under the lease."""

    __slots__ = ("action", "folder", "halted", "pid", "pidfd", "since", "start", "uid")

    def __init__(self, told: Request, pidfd: int, now: float) -> None:
        self.pidfd = pidfd
        self.pid, self.start = int(told["pid"]), int(told["start"])
        self.uid = str(told["uid"])
        self.halted = bool(told.get("halted", False))
        """By us: then a renewal lets it go on."""
        self.since = float(told.get("since", now))
        """When it was first guarded."""
        self.take(told)

    def take(self, told: Request) -> None:
        """What may change while it is guarded."""
        self.action = str(told["action"])
        self.folder = str(told["folder"]) if told.get("folder") else None

    def send(self, number: signal.Signals) -> None:
        with suppress(OSError):  # it is gone, which the next look shows
            signal.pidfd_send_signal(self.pidfd, number)

    def told(self) -> Request:
        return {name: getattr(self, name) for name in self.__slots__ if name != "pidfd"}


class Watchdog:
    """The guarded set and the lease. `act` and `handle` are for different threads."""

    def __init__(self, state: str, now: Callable[[], float] = boottime_s) -> None:
        self._state = state
        self._now = now
        self._lock = threading.Lock()
        self._guards: dict[Key, Guard] = {}
        self._held: Right | None = None
        self._marks: dict[str, str | None] = {}
        """Folder to what its mark is to say, None for no mark: still to be written."""
        self.acted = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when something was done that is not written down yet."""
        self.poked = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when the main thread has something new to wait for."""

    # -- acting: memory and signals only

    def act(self) -> float:
        """Do what is due. Gives the seconds after which to look again."""
        with self._lock:
            return self._act()

    def wait(self, seconds: float) -> None:
        """Until `seconds` passed, a guarded process ended, or something new was told."""
        poll = select.poll()
        poll.register(self.poked, select.POLLIN)
        with self._lock:
            for guard in self._guards.values():
                poll.register(guard.pidfd, select.POLLIN)
        poll.poll(max(seconds, 0.0) * 1000 + 1)
        with suppress(BlockingIOError):
            os.eventfd_read(self.poked)

    @property
    def idle(self) -> bool:
        with self._lock:
            return not self._guards

    def _act(self) -> float:
        self._forget_ended()
        now = self._now()
        next_s = TICK_S
        for guard in self._guards.values():
            what, until = verdict(self._held, guard.action, guard.since, now)
            next_s = min(next_s, until - now)
            if what == "run" and guard.halted:
                guard.halted = False
                guard.send(signal.SIGCONT)
                self._mark(guard, None)
            elif what == "halt":
                self._halt(guard)
            elif what == "kill":
                guard.send(signal.SIGKILL)
                self._mark(guard, "killed")
        return next_s

    def _halt(self, guard: Guard) -> None:
        """Again with every look: whoever lets it go on behind our back gains nothing."""
        with suppress(OSError):
            if not guard.halted and process_stat(guard.pid)[0] not in "Tt":
                guard.halted = True
                self._mark(guard, "halted")
        guard.send(signal.SIGSTOP)

    def _mark(self, guard: Guard, what: str | None) -> None:
        if guard.folder is not None:
            self._marks[guard.folder] = what
        os.eventfd_write(self.acted, 1)

    def _forget_ended(self) -> None:
        poll = select.poll()
        by_pidfd = {guard.pidfd: key for key, guard in self._guards.items()}
        for pidfd in by_pidfd:
            poll.register(pidfd, select.POLLIN)
        for pidfd, _ in poll.poll(0):
            self._forget(by_pidfd[pidfd])

    def _forget(self, key: Key) -> None:
        os.close(self._guards.pop(key).pidfd)
        os.eventfd_write(self.acted, 1)

    # -- being told

    def handle(self, request: Request) -> Request:
        """Take a request, write it down, answer. Raises OSError, KeyError, TypeError or ValueError."""
        guards = [(told, (int(told["pid"]), int(told["start"]))) for told in request.get("guard", ())]
        for told, _ in guards:
            if told["action"] not in ("pause", "stop"):
                raise ValueError(f"action {told['action']!r} is neither pause nor stop")
        with self._lock:
            now = self._now()
            if (lease := request.get("lease")) is not None:
                self._held = Right.renewed(self._held, lease, now)
            gone = [key for told, key in guards if not self._guard(told, key, now)]
            for pid, start in request.get("release", ()):
                self._release((pid, start))
            self._act()
            held = self._held
            live = held is not None and now < held.ends
            for pid, start in request.get("resume", ()):
                if live and (guard := self._guards.get((pid, start))) is not None:
                    guard.send(signal.SIGCONT)
            guards = list(self._guards)
            answer: Request = {"protocol": PROTOCOL, "gone": gone, "guards": guards, **_told(held)}
        os.eventfd_write(self.poked, 1)
        if request:
            self.save()
        return answer

    def _guard(self, told: Request, key: Key, now: float) -> bool:
        """False when there is no such process any more."""
        known = self._guards.get(key)
        if known is not None:
            known.take(told)
            return True
        pid, start = key
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        # Looked at after it was opened: whoever has the pid now is whom the descriptor means.
        try:
            if process_stat(pid)[1] == start:
                self._guards[key] = Guard(told, pidfd, now)
                return True
        except OSError:
            pass
        os.close(pidfd)
        return False

    def _release(self, key: Key) -> None:
        guard = self._guards.get(key)
        if guard is None:
            return
        if guard.halted:
            guard.send(signal.SIGCONT)
            self._mark(guard, None)
        self._forget(key)

    # -- remembering

    def save(self) -> None:
        """Write down how things are. Raises OSError."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.acted)
        boot = boot_id()
        with self._lock:
            guards = [guard.told() for guard in self._guards.values()]
            state = {"protocol": PROTOCOL, "boot": boot, "guards": guards, **_told(self._held)}
            marks, self._marks = self._marks, {}
        try:
            draft = f"{self._state}.new"
            with open(draft, "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump(state, file)
            os.replace(draft, self._state)  # noqa: PTH105
            for folder, what in marks.items():
                _write_mark(folder, what)
        except OSError:
            with self._lock:
                self._marks = {**marks, **self._marks}
            os.eventfd_write(self.acted, 1)
            raise

    def load(self) -> None:
        """Go on from what another one wrote. What cannot be read is worth nothing: the driver tells everything anew."""
        try:
            with open(self._state, encoding="utf-8") as file:  # noqa: PTH123
                state = cast(Request, json.load(file))
            if (state["boot"], state["protocol"]) != (boot_id(), PROTOCOL):
                return
            with self._lock:
                now = self._now()
                for told in state["guards"]:
                    self._guard(told, (int(told["pid"]), int(told["start"])), now)
                if state["ends"] is not None:
                    self._held = Right.renewed(self._held, state, now)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            traceback.print_exc()


def _told(held: Right | None) -> Request:
    return held._asdict() if held is not None else {"ends": None, "grace": 0.0, "ttl": None}


class Server:
    """Answers the drivers that connect, and writes down what was done meanwhile."""

    def __init__(self, watchdog: Watchdog, listener: socket.socket) -> None:
        self._watchdog = watchdog
        self._listener = listener
        self._connections: dict[int, tuple[socket.socket, bytearray]] = {}
        self.alone_since = time.monotonic()

    @property
    def alone_s(self) -> float:
        """For how long nobody is connected."""
        return 0.0 if self._connections else time.monotonic() - self.alone_since

    def run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:
                traceback.print_exc()
                time.sleep(TICK_S)

    def _turn(self) -> None:
        poll = select.poll()
        for fd in (self._listener.fileno(), self._watchdog.acted, *self._connections):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll():
            if fd == self._watchdog.acted:
                self._watchdog.save()
            elif fd == self._listener.fileno():
                connection, _ = self._listener.accept()
                connection.settimeout(1.0)
                self._connections[connection.fileno()] = (connection, bytearray())
            else:
                self._read(fd)

    def _read(self, fd: int) -> None:
        connection, pending = self._connections[fd]
        try:
            data = connection.recv(1 << 16)
            pending += data
            while data and (end := pending.find(b"\n")) >= 0:
                line = bytes(pending[:end])
                del pending[: end + 1]
                connection.sendall(self._answer(line))
        except OSError:
            data = b""
        if not data or len(pending) > _MAX_REQUEST_BYTES:
            connection.close()
            del self._connections[fd]
            self.alone_since = time.monotonic()

    def _answer(self, line: bytes) -> bytes:
        try:
            answer = self._watchdog.handle(json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode() + b"\n"


def _write_mark(folder: str, what: str | None) -> None:
    path = os.path.join(folder, MARK)  # noqa: PTH118
    with suppress(FileNotFoundError):  # a guest whose folder is gone needs no mark
        if what is None:
            os.unlink(path)  # noqa: PTH108
        else:
            with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(f"{what}\n")


def _come_first() -> None:
    """Before the guests, in memory, and not chosen when memory runs out; as far as we may."""
    # Else a disk that hangs could keep from us what of our own program was never read or was pushed out.
    ctypes.CDLL(None).mlockall(_MCL_CURRENT)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("-1000")


def _listen(path: str) -> socket.socket:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(8)
    return listener


def _serve(options: argparse.Namespace, ready: int) -> None:
    os.umask(0o077)
    lock = os.open(f"{options.state}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(IN_USE)
    watchdog = Watchdog(options.state)
    watchdog.load()
    watchdog.act()
    _come_first()
    server = Server(watchdog, _listen(options.socket))
    threading.Thread(target=server.run, daemon=True).start()
    os.write(ready, b"\0")
    os.close(ready)
    while not (watchdog.idle and server.alone_s > LINGER_S):
        try:
            watchdog.wait(watchdog.act())
        except Exception:
            traceback.print_exc()
            time.sleep(TICK_S)
    os._exit(0)


def main() -> int:
    """Gives 0 once the watchdog serves in the background, IN_USE when another one does, 1 when it cannot."""
    parser = argparse.ArgumentParser(prog="watchdog", description="Halts guests when the host's lease ends.")
    parser.add_argument("--socket", required=True, help="where it is told whom to guard, and until when")
    parser.add_argument("--state", required=True, help="its memory; one watchdog at a time")
    options = parser.parse_args()
    readable, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        try:
            _serve(options, ready)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(ready)
    if os.read(readable, 1):
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
