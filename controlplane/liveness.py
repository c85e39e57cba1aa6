"""Whether a child process still does anything: it beats on a pipe, and its parent listens.

A child beats from its event loop, so a loop that hangs is silent like a stopped process. The parent judges silence with
care, because killing a healthy child is worse than waiting: time in which the parent itself did not run (a stopped
tree, a suspended machine) does not count, and a silent child that uses the processor is given much longer than one that
does not, because a machine under load starves both of time but never of all of it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from contextlib import suppress
from pathlib import Path

BEAT_S = 1.0
LOOK_S = 1.0
STALLED_S = 3.0
"""A parent that comes this much later than it wanted was itself stopped or starved: what it knows is out of date."""
HUNG_S = 30.0
"""Silent and not one clock tick (10 ms) of processor used for this long: stopped, or waiting for ever."""
RUNAWAY_S = 120.0
"""Silent although it runs: longer than the loading of the largest state in one go on a busy machine."""
DUMP_SIGNAL = signal.SIGUSR2
"""Makes a child that can still handle a signal write the stacks of its threads to standard error."""
DUMP_S = 1.0

_VARIABLE = "FLINTLOCK_HEARTBEAT_FD"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Silence:
    """How long one child has been silent, as far as this process can tell. Times are monotonic seconds."""

    def __init__(self, now_s: float, used_s: float) -> None:
        """`used_s` here and below: processor time that the child has used so far."""
        self._looked_s = now_s
        self._heard_s = now_s
        self._ran_s = now_s
        self._used_s = used_s

    def heard(self, now_s: float) -> None:
        self._heard_s = self._ran_s = now_s

    def look(self, now_s: float, used_s: float) -> str | None:
        """To be called every `LOOK_S`: why the child is to be ended, or None."""
        late = now_s - self._looked_s > LOOK_S + STALLED_S
        self._looked_s = now_s
        if late:
            self.heard(now_s)
        if used_s > self._used_s:
            self._ran_s = now_s
        self._used_s = used_s
        if now_s - self._ran_s > HUNG_S:
            return f"silent and not running for {now_s - self._ran_s:.0f} s"
        if now_s - self._heard_s > RUNAWAY_S:
            return f"silent for {now_s - self._heard_s:.0f} s, although it runs"
        return None


class Pipe:
    """The parent's side: make it, start the child with `inherited` and `environment`, `listen`, then `watch`."""

    def __init__(self) -> None:
        self._read, self.inherited = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self.inherited, False)
        self.environment = {**os.environ, _VARIABLE: str(self.inherited)}

    def listen(self) -> None:
        """The child has its end: let go of ours."""
        os.close(self.inherited)
        self.inherited = -1

    def close(self) -> None:
        os.close(self._read)
        if self.inherited >= 0:
            os.close(self.inherited)

    async def watch(self, pid: int) -> str:
        """Returns why the child `pid` is to be ended, once it is hung."""
        loop = asyncio.get_running_loop()
        silence = Silence(loop.time(), processor_s(pid))
        while True:
            await asyncio.sleep(LOOK_S)
            if self._beaten():
                silence.heard(loop.time())
            reason = silence.look(loop.time(), processor_s(pid))
            if reason is not None:
                return reason

    def _beaten(self) -> bool:
        try:
            return bool(os.read(self._read, 65536))
        except BlockingIOError:
            return False


async def beat() -> None:
    """The child's side: beat until cancelled. Without a listening parent it returns at once."""
    descriptor = os.environ.pop(_VARIABLE, None)
    if descriptor is None:
        return
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    while True:
        # A full pipe is one that the parent has not read for hours; a broken one is noticed by other means.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(int(descriptor), b".")
        await asyncio.sleep(BEAT_S)


def processor_s(pid: int) -> float:
    """Seconds of processor time used by all threads of `pid`; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
