"""The driver's side of the watchdog: one is there, it knows every guest that it must, and it holds the lease.

The watchdog outlives the driver and is found again by its socket; when there is none it is started. Whatever it must
guard is told to it in one piece with the lease right after connecting, before anything else is asked, so a watchdog
that had to be replaced never answers for less than the one before. It is asked for a sign of life every PING_S, and
one that does not answer within ANSWER_S is killed and replaced: nobody else would notice that it is frozen.

What counts is the lease that the watchdog told last. A driver that was started again learns it from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import structlog

from controlplane.drivers.common import no_lease
from controlplane.drivers.qemu import watchdog
from controlplane.ports import DriverError, Lease

SOCKET = "watchdog.sock"
STATE = "watchdog.json"
OUTPUT = "watchdog.log"
PING_S = 0.5
ANSWER_S = 1.5
START_S = 10.0
TRIES = 3
"""One that was frozen and is killed may seem to listen for a moment longer."""
_RETRY_S = 0.1
_RETRY_CAP_S = 2.0

_log = structlog.get_logger(__name__)
_Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Guarded:
    """A process that may run only under a lease."""

    uid: str
    pid: int
    start: int
    action: Literal["pause", "stop"]
    folder: str | None
    """The microVM's, relative to the state folder: where the watchdog leaves its mark."""

    @property
    def key(self) -> watchdog.Key:
        return self.pid, self.start


@dataclass(frozen=True, slots=True)
class Present:
    """What runs now, and how what needs a lease is to be guarded."""

    running: Sequence[watchdog.Key]
    guarded: Sequence[Guarded]


class _Line:
    """One connection: requests out, answers in, one after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pidfd: int) -> None:
        self._writer = writer
        self._pidfd = pidfd
        self._waiting: asyncio.Future[_Answer] | None = None
        self.lost = asyncio.Event()
        self._receiving = asyncio.create_task(self._receive(reader))

    async def ask(self, request: Mapping[str, object]) -> _Answer:
        """Raises OSError or TimeoutError; the line is of no use then."""
        if self.lost.is_set():
            raise ConnectionResetError("the watchdog ended")
        self._waiting = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(ANSWER_S):
            self._writer.write(json.dumps(request).encode() + b"\n")
            await self._writer.drain()
            return await self._waiting

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                if self._waiting is not None and not self._waiting.done():
                    self._waiting.set_result(json.loads(line))
        except (OSError, ValueError) as error:
            _log.warning("the watchdog cannot be understood", error=str(error))
        finally:
            self.lost.set()
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_exception(ConnectionResetError("the watchdog ended"))

    def kill(self) -> None:
        """End a watchdog that does not answer."""
        with suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def close(self) -> None:
        self._receiving.cancel()
        await asyncio.wait([self._receiving])
        if self._waiting is not None and self._waiting.done() and not self._waiting.cancelled():
            self._waiting.exception()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        os.close(self._pidfd)


class Fence:
    """`boottime_s` reads CLOCK_BOOTTIME. Calls raise DriverError(`FenceUnavailable`) when no watchdog answers."""

    def __init__(self, state_dir: Path, *, boottime_s: Callable[[], float] = watchdog.boottime_s) -> None:
        self._state_dir = state_dir
        self._now = boottime_s
        self._line: _Line | None = None
        self._known: dict[watchdog.Key, Guarded] = {}
        """What we want guarded."""
        self._told: frozenset[watchdog.Key] = frozenset()
        """What the watchdog says that it guards."""
        self._ends: float | None = None
        self._grace = 0.0
        self._ttl: float | None = None
        self._lock = asyncio.Lock()
        self._tending: asyncio.Task[None] | None = None

    async def start(self, guarded: Iterable[Guarded]) -> None:
        """Have `guarded` watched over, and from now on see to it that they are.

        Without a watchdog nothing is renewed and nothing started that needs a lease; all else goes on.
        """
        self._known = {each.key: each for each in guarded}
        with suppress(DriverError):  # tending it says so
            await self._ask({})
        self._tending = asyncio.create_task(self._tend())

    async def stop(self) -> None:
        """Let go of the watchdog, which goes on."""
        task, self._tending = self._tending, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        async with self._lock:
            await self._drop()

    def live(self) -> bool:
        """Whether guests that need a lease may run now, as far as the watchdog told."""
        return self._ends is not None and self._now() < self._ends

    def require(self, uid: str) -> None:
        """Raises DriverError(`NoLease`)."""
        if not self.live():
            raise no_lease(uid)

    def guards(self, key: watchdog.Key) -> bool:
        return key in self._known or key in self._told

    async def guard(self, guarded: Guarded) -> None:
        """Returns once the process runs only under the lease. Where there is none it is halted or killed by then."""
        async with self._lock:
            self._known[guarded.key] = guarded
            await self._ask_alone({"guard": [asdict(guarded)]})

    async def release(self, key: watchdog.Key) -> None:
        """Let it run without a lease."""
        async with self._lock:
            self._known.pop(key, None)
            await self._ask_alone({"release": [key]})

    async def resume(self, key: watchdog.Key) -> None:
        """SIGCONT, unless the lease has ended: only who holds the deadline can tell."""
        await self._ask({"resume": [key]})

    async def renew(self, lease: Lease, look: Callable[[], Awaitable[Present]]) -> None:
        """Returns once everything that runs and needs a lease may run until this one ends, and not longer.

        `look` finds that out from the definitions. It is called while nothing else is told to the watchdog: what a
        microVM's own order tells comes after it has written the definition, and so is never undone by an older look.
        """
        async with self._lock:
            present = await look()
            guard = [
                each for each in present.guarded if each.key not in self._told or self._known.get(each.key) != each
            ]
            wanted = {each.key for each in present.guarded}
            release = [key for key in present.running if key in self._told and key not in wanted]
            self._known = {key: each for key, each in self._known.items() if _exists(key) and key not in release}
            self._known |= {each.key: each for each in guard}
            terms = {"ends": lease.ends_s, "grace": lease.grace_s, "ttl": lease.ttl_s or None}
            await self._ask_alone({"guard": [asdict(each) for each in guard], "release": release, "lease": terms})

    async def held(self) -> Lease | None:
        """What the watchdog holds. It is asked: a longer lease of an earlier agent may be there."""
        await self._ask({})
        if self._ends is None or not self.live():
            return None
        return Lease(ends_s=self._ends, grace_s=self._grace, ttl_s=self._ttl or 0.0)

    # -- the line to the watchdog

    async def _ask(self, request: Mapping[str, object]) -> None:
        async with self._lock:
            await self._ask_alone(request)

    async def _ask_alone(self, request: Mapping[str, object]) -> None:
        failure: OSError | None = None
        for _ in range(TRIES):
            try:
                return await self._tell(request)
            except (ConnectionError, TimeoutError) as error:  # it has ended by now: the next one is told everything
                failure = error
            except OSError as error:
                failure = error
                break
        raise DriverError("FenceUnavailable", f"no watchdog answers: {failure}") from failure

    async def _tell(self, request: Mapping[str, object]) -> None:
        """Everything first where the watchdog may not know it. Raises DriverError, OSError or TimeoutError."""
        told = False
        try:
            if self._line is None or self._line.lost.is_set():
                await self._drop()
                self._line = await self._open()
                self._take(self._line, await self._line.ask(self._everything()))
            self._take(self._line, await self._line.ask(request))
            told = True
        except TimeoutError:
            if self._line is not None:
                _log.error("the watchdog is frozen; it is replaced")
                self._line.kill()
            raise
        finally:
            if not told:  # what was refused is told anew, and an answer that comes late belongs to no other question
                await self._drop()

    def _take(self, line: _Line, answer: _Answer) -> None:
        if answer.get("protocol", watchdog.PROTOCOL) != watchdog.PROTOCOL:
            _log.info("the watchdog is of another version; it is replaced")
            line.kill()
            raise ConnectionResetError("the watchdog is of another version")
        if "error" in answer:
            raise DriverError("FenceUnavailable", f"the watchdog refused: {answer['error']}")
        self._ends, self._grace, self._ttl = answer["ends"], answer["grace"], answer.get("ttl")
        self._told = frozenset((pid, start) for pid, start in answer["guards"])

    def _everything(self) -> Mapping[str, object]:
        """What a watchdog must know that may know nothing."""
        everything: dict[str, object] = {"guard": [asdict(each) for each in self._known.values()]}
        if self.live():
            everything["lease"] = {"ends": self._ends, "grace": self._grace, "ttl": self._ttl}
        return everything

    async def _open(self) -> _Line:
        deadline = time.monotonic() + START_S
        while True:
            try:
                return await self._connect()
            except (FileNotFoundError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
            # It returns when one serves, whether it was started here or by somebody else just now.
            code = await asyncio.to_thread(self._launch)
            if code not in (0, watchdog.IN_USE):
                raise ConnectionError(f"it does not start ({code}); see {self._state_dir / OUTPUT}")
            await asyncio.sleep(0 if code == 0 else _RETRY_S)

    async def _connect(self) -> _Line:
        folder = os.open(self._state_dir, os.O_PATH | os.O_DIRECTORY)
        try:
            # By descriptor: a unix socket's path may have 107 bytes.
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
        connected = cast(socket.socket, writer.get_extra_info("socket"))
        pid, _, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            return _Line(reader, writer, os.pidfd_open(pid))
        except ProcessLookupError as error:
            writer.close()
            raise ConnectionResetError("the watchdog ended") from error

    def _launch(self) -> int:
        """Start one, by its file and without the site's packages: it needs none and is there in an instant."""
        # Names relative to its working directory, for the same 107 bytes.
        argv = [sys.executable, "-I", "-S", watchdog.__file__, "--socket", SOCKET, "--state", STATE]
        with (self._state_dir / OUTPUT).open("wb") as output:
            try:
                done = subprocess.run(
                    argv,
                    cwd=self._state_dir,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    timeout=START_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise ConnectionError(f"it did not start within {START_S:g} s") from error
        return done.returncode

    async def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _tend(self) -> None:
        """See to it that a watchdog is there, whether or not anything is asked of it."""
        retry_s = 0.0
        while True:
            try:
                await self._ask({})
                retry_s = 0.0
            except DriverError as error:
                if not retry_s:
                    _log.error("no watchdog answers", error=error.message)
                retry_s = min(2 * retry_s or _RETRY_S, _RETRY_CAP_S)
            except Exception:
                _log.exception("tending the watchdog failed; it goes on")
                retry_s = _RETRY_CAP_S
            if retry_s or self._line is None:
                await asyncio.sleep(retry_s or _RETRY_S)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._line.lost.wait(), PING_S)


def _exists(key: watchdog.Key) -> bool:
    pid, start = key
    try:
        return watchdog.process_stat(pid)[1] == start
    except OSError:
        return False
