"""The parent of a node's processes: starts them, starts them again when they die, and ends them with itself.

Each child holds the read end of a pipe as its standard input and shuts down cleanly at its end, so that children go
when their parent goes, however it went. In the other direction each child beats on a pipe of its own; one that hangs
(see `liveness`) is ended and started again. A child that ends with EX_CONFIG refuses to run (corrupt data, another
node's directory, an entry of a newer version): starting it again would change nothing, so the whole node stops and says
so.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from controlplane import liveness

EX_CONFIG = 78
"""sysexits.h: what a child answers when an operator has to act."""
STOP_GRACE_S = 10.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
STABLE_S = 30.0
"""A child that ran this long starts again without delay."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Supervisor:
    commands: Mapping[str, Sequence[str]]
    """Argument vectors by the child's name, in the order in which they are started; ended in reverse."""

    async def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a child refuses to run. Gives the exit code."""
        refused = asyncio.Event()
        keepers = [asyncio.create_task(self._keep(name, command, refused)) for name, command in self.commands.items()]
        ends = [asyncio.create_task(told_to_stop()), asyncio.create_task(refused.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        for keeper in reversed(keepers):
            keeper.cancel()
            await asyncio.wait([keeper])
        return EX_CONFIG if refused.is_set() else 0

    async def _keep(self, name: str, command: Sequence[str], refused: asyncio.Event) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                code = await self._run_once(name, command)
            except OSError as error:
                # No memory, process or descriptor left: that may pass, and a node without this child is of no use.
                _log.error("supervisor.start_failed", child=name, error=str(error))
                code = None
            if code == EX_CONFIG:
                _log.error("supervisor.refused", child=name, hint="see its last message above; the node stops")
                refused.set()
                return
            failures = 0 if loop.time() - started > STABLE_S else failures + 1
            delay_s = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1] if failures else 0.0
            _log.warning("supervisor.died", child=name, code=code, restart_in_s=delay_s)
            await asyncio.sleep(delay_s)

    async def _run_once(self, name: str, command: Sequence[str]) -> int:
        """Start the child and give its exit code; cancelled, end it first. Raises OSError when it cannot be started."""
        pulse = liveness.Pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, pass_fds=(pulse.inherited,), env=pulse.environment
            )
            pulse.listen()
            _log.info("supervisor.started", child=name, pid=process.pid)
            watching = asyncio.create_task(self._end_hung(name, process, pulse))
            try:
                return await process.wait()
            except asyncio.CancelledError:
                await self._end(name, process)
                raise
            finally:
                watching.cancel()
                await asyncio.wait([watching])
        finally:
            pulse.close()

    async def _end_hung(self, name: str, process: asyncio.subprocess.Process, pulse: liveness.Pipe) -> None:
        """Kill the child if it hangs. It cannot end in order, but may still be able to say where it hangs."""
        reason = await pulse.watch(process.pid)
        _log.error("supervisor.hung", child=name, pid=process.pid, reason=reason)
        with suppress(ProcessLookupError):
            process.send_signal(liveness.DUMP_SIGNAL)
            await asyncio.sleep(liveness.DUMP_S)
            process.kill()

    async def _end(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_GRACE_S)
        except TimeoutError:
            _log.warning("supervisor.killed", child=name, pid=process.pid, after_s=STOP_GRACE_S)
            process.kill()
            await process.wait()


async def told_to_stop() -> None:
    """Returns on SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def parent_is_gone() -> None:
    """For a child: returns when the parent closed its end of the pipe, or on SIGTERM."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    # The parent decides when to end; a terminal's Ctrl-C reaches the whole group, and would skip its order.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, gone.set)
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ended = asyncio.create_task(reader.read())
    stopped = asyncio.create_task(gone.wait())
    await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    stopped.cancel()
    transport.close()
