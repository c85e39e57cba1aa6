"""QEMU's machine protocol: a typed face on one kept connection to one process.

The connection is opened by the first command and opened again after it broke; its events are handed to a callback that
only wakes somebody. QEMU serves one client per socket, which is why operators have `operator.sock` for themselves.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from controlplane.drivers.qemu.command import QMP_SOCKET
from controlplane.ports import DriverError

TIMEOUT_S = 5.0
_WAKING_EVENTS = ("STOP", "RESUME", "SHUTDOWN", "RESET", "POWERDOWN", "GUEST_PANICKED", "BLOCK_IO_ERROR", "WATCHDOG")


class MonitorError(Exception):
    """QEMU did not answer: it is gone, frozen, or busy with another client."""


@dataclass(frozen=True, slots=True)
class Status:
    run_state: str
    """QEMU's RunState, such as `running`, `paused` or `prelaunch`."""
    vcpu: int
    memory_in_mb: int


class Monitor:
    """Talks to the QEMU process whose folder is `folder`. Calls raise MonitorError or DriverError."""

    def __init__(self, folder: Path, on_event: Callable[[], None]) -> None:
        self._folder = folder
        self._on_event = on_event
        self._client: QMPClient | None = None
        self._events: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def status(self) -> Status:
        state = _object(await self.execute("query-status"))
        cpus = await self.execute("query-cpus-fast")
        memory = _object(await self.execute("query-memory-size-summary"))
        sizes = [memory[key] for key in ("base-memory", "plugged-memory") if key in memory]
        return Status(
            run_state=str(state["status"]),
            vcpu=len(cast("list[object]", cpus)),
            memory_in_mb=sum(cast("int", size) for size in sizes) >> 20,
        )

    async def pause(self) -> None:
        await self.execute("stop")

    async def resume(self) -> None:
        await self.execute("cont")

    async def press_power_button(self) -> None:
        await self.execute("system_powerdown")

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """One command, with a deadline; a connection that broke since the last command is opened again once."""
        async with self._lock:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    try:
                        return await self._execute(command, arguments)
                    except (QMPError, OSError, EOFError) as error:
                        if isinstance(error, ExecuteError):
                            raise
                        await self._drop()
                        return await self._execute(command, arguments)
            except ExecuteError as error:
                raise DriverError("HypervisorFailed", f"QEMU refused {command}: {error}") from error
            except asyncio.CancelledError:
                # The answer may come yet, and no later command may take it for its own.
                await self._drop()
                raise
            except (QMPError, OSError, EOFError, TimeoutError) as error:
                await self._drop()
                raise MonitorError(f"{command}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        async with self._lock:
            await self._drop()

    async def _execute(self, command: str, arguments: Mapping[str, object] | None) -> object:
        client = self._client or await self._connect()
        return await client.execute(command, dict(arguments) if arguments else None)

    async def _connect(self) -> QMPClient:
        client = QMPClient("flintlock")
        # It logs as errors what is the ordinary end of a microVM; whoever needs to know gets an exception.
        client.logger.setLevel(logging.CRITICAL)
        listener = EventListener(names=_WAKING_EVENTS)
        client.register_listener(listener)
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            # By descriptor: a unix socket's path may have 107 bytes, and the folder's own may have more.
            await client.connect(f"/proc/self/fd/{folder}/{QMP_SOCKET}")
        except BaseException:
            with suppress(Exception):
                await client.disconnect()
            raise
        finally:
            os.close(folder)
        self._client = client
        self._events = asyncio.create_task(self._forward(listener))
        return client

    async def _forward(self, listener: EventListener) -> None:
        async for _ in listener:
            self._on_event()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        events, self._events = self._events, None
        if events is not None:
            events.cancel()
            with suppress(asyncio.CancelledError):
                await events
        if client is not None:
            # It raises whatever ended the connection, which the caller has already seen.
            with suppress(Exception):
                await asyncio.wait_for(client.disconnect(), 1.0)


def _object(answer: object) -> dict[str, object]:
    if not isinstance(answer, dict):
        raise MonitorError(f"unexpected answer {answer!r}")
    return cast("dict[str, object]", answer)
