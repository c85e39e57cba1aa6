"""The driver's side of the watchdog, over stand-in processes: no loss of a watchdog loses anything that it guards."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from controlplane.agent.held import HeldFile
from controlplane.agent.lease import HostLease
from controlplane.drivers.qemu.fence import SOCKET, STATE, Fence, Guarded, Present
from controlplane.drivers.qemu.watchdog import boottime_s, process_stat
from controlplane.ports import DriverError, DriverInfo, HostDriver, Lease
from controlplane.system import SystemClock

WAIT_S = 20.0


class Host:
    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.fence = Fence(state_dir)
        self.needs = True
        self.child = subprocess.Popen(["sleep", "600"])

    def guarded(self, action: str = "pause") -> Guarded:
        start = process_stat(self.child.pid)[1]
        return Guarded("U", self.child.pid, start, "stop" if action == "stop" else "pause", None)

    def halted(self) -> bool:
        return process_stat(self.child.pid)[0] == "T"

    def dead(self) -> bool:
        return self.child.poll() is not None

    async def dog(self) -> int:
        """The watchdog's pid, from its socket."""
        _, writer = await asyncio.open_unix_connection(str(self.state_dir / SOCKET))
        peer = writer.get_extra_info("socket").getsockopt(1, 17, 12)  # SOL_SOCKET, SO_PEERCRED
        writer.close()
        await writer.wait_closed()
        return struct.unpack("3i", peer)[0]

    async def renew(self, ttl_s: float, *, grace_s: float = 60.0) -> None:
        await self.fence.renew(Lease(boottime_s() + ttl_s, grace_s), self.look)

    async def look(self) -> Present:
        return Present([self.guarded().key], [self.guarded()] if self.needs else [])

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"not {what}"
            await asyncio.sleep(0.01)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    # Short enough for the tests to connect by path, which the driver does not.
    host = Host(tmp_path)
    await host.fence.start([])
    yield host
    with suppress(OSError):
        os.kill(await host.dog(), signal.SIGKILL)
    await host.fence.stop()
    host.child.kill()
    host.child.wait(WAIT_S)


async def test_a_replaced_watchdog_knows_everything_even_if_its_memory_is_gone(host: Host) -> None:
    await host.renew(2.0)
    dog = await host.dog()
    (host.state_dir / STATE).write_text("garbage")
    os.kill(dog, signal.SIGKILL)
    await asyncio.sleep(0.5)
    assert not host.halted(), "the lease that it held was lost"
    await host.until(host.halted, "halted")
    assert await host.dog() != dog
    await host.renew(5.0)
    await host.until(lambda: not host.halted(), "let go")


async def test_what_a_frozen_watchdog_was_asked_its_successor_does(host: Host) -> None:
    await host.renew(30.0)
    dog = await host.dog()
    os.kill(dog, signal.SIGSTOP)
    await host.fence.guard(host.guarded("stop"))
    assert await host.dog() != dog
    assert host.fence.guards(host.guarded().key)
    assert host.fence.live()
    assert not host.halted()


async def test_it_is_not_live_before_and_after(host: Host) -> None:
    assert not host.fence.live()
    with pytest.raises(DriverError) as refusal:
        host.fence.require("U")
    assert refusal.value.code == "NoLease"
    await host.renew(0.3)
    assert host.fence.live()
    await asyncio.sleep(0.35)
    assert not host.fence.live()


async def test_the_next_driver_learns_the_lease_from_the_watchdog(host: Host) -> None:
    await host.renew(30.0)
    await host.fence.stop()
    other = Fence(host.state_dir)
    await other.start([host.guarded()])
    assert other.live()
    assert other.guards(host.guarded().key)
    await other.stop()


class Holder:
    """A driver as the agent's lease meets it when it asks what is held."""

    info = DriverInfo(name="qemu", version="1", simulated=False, accelerator=None, fences=True)

    def __init__(self, fence: Fence) -> None:
        self.held = fence.held


def agent_lease(fence: Fence, directory: Path) -> HostLease:
    directory.mkdir(exist_ok=True)
    drivers = cast("dict[str, HostDriver]", {"qemu": Holder(fence)})
    return HostLease(
        drivers=drivers,
        file=HeldFile(directory, "boot-1"),
        clock=SystemClock(),
        on_change=lambda: None,
        renew_timeout_s=5.0,
    )


async def test_an_agent_that_lost_its_directory_tells_the_longer_lease_that_the_watchdog_holds(
    host: Host, tmp_path: Path
) -> None:
    """A leader that was told less, because its own leases are shorter, would wait too short."""
    await host.fence.renew(Lease(boottime_s() + 60.0, 2.0, ttl_s=60.0), host.look)
    await host.fence.stop()
    # Nothing of the agent's own is left; the watchdog's socket is.
    host.fence = Fence(host.state_dir)
    await host.fence.start([host.guarded()])
    assert await agent_lease(host.fence, tmp_path / "agent").held_ttl_s() == 60.0
    os.kill(await host.dog(), signal.SIGKILL)
    assert await agent_lease(host.fence, tmp_path / "agent").held_ttl_s() == 60.0, "its successor knows as well"
    await host.fence.renew(Lease(boottime_s() + 10.0, 2.0, ttl_s=10.0), host.look)
    assert await agent_lease(host.fence, tmp_path / "agent").held_ttl_s() == 60.0, "what is held never gets shorter"


async def test_without_the_watchdogs_folder_nothing_runs_by_the_time_that_nothing_is_told(tmp_path: Path) -> None:
    host = Host(tmp_path / "first")
    host.state_dir.mkdir()
    await host.fence.start([])
    dogs: list[int] = []
    try:
        await host.fence.renew(Lease(boottime_s() + 60.0, 2.0, ttl_s=60.0), host.look)
        dogs.append(await host.dog())
        await host.fence.stop()
        shutil.rmtree(host.state_dir)
        host.state_dir.mkdir()
        host.fence = Fence(host.state_dir)
        await host.fence.start([host.guarded()])
        assert await agent_lease(host.fence, tmp_path / "agent").held_ttl_s() == 0.0
        # The signal is sent; the kernel shows it once the process was scheduled. Another watchdog, of which nobody can
        # hear any more, would let it run for a minute.
        await host.until(host.halted, "halted")
        await asyncio.sleep(0.5)
        assert host.halted()
        dogs.append(await host.dog())
        assert dogs[0] != dogs[1]
    finally:
        for dog in dogs:
            with suppress(OSError):
                os.kill(dog, signal.SIGKILL)
        await host.fence.stop()
        host.child.kill()
        host.child.wait(WAIT_S)


async def test_a_renewal_makes_the_guards_what_the_definitions_say(host: Host) -> None:
    await host.renew(30.0)
    assert host.fence.guards(host.guarded().key)
    host.needs = False
    await host.renew(30.0)
    assert not host.fence.guards(host.guarded().key)
    await host.fence.guard(host.guarded("stop"))
    host.needs = True
    await host.renew(30.0)
    (kept,) = json.loads((host.state_dir / STATE).read_text())["guards"]
    assert kept["action"] == "pause"


async def test_a_look_never_undoes_what_was_told_after_it_began(host: Host) -> None:
    """The definition changes while the look is under way, and its order tells the watchdog at once."""
    looking, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Present:
        present = await host.look()
        looking.set()
        await go.wait()
        return present

    for needs in (True, False):
        host.needs = needs
        renewing = asyncio.create_task(host.fence.renew(Lease(boottime_s() + 30, 1.0), slow))
        await looking.wait()
        key = host.guarded().key
        order = asyncio.create_task(host.fence.release(key) if needs else host.fence.guard(host.guarded()))
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.gather(renewing, order)
        assert host.fence.guards(key) is not needs
        looking.clear()
        go.clear()


async def test_a_cancelled_question_spoils_no_later_one(host: Host) -> None:
    for delay_s in (0.0, 0.0001, 0.001):
        asking = asyncio.create_task(host.renew(30.0))
        await asyncio.sleep(delay_s)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    await host.renew(31.0)
    await host.fence.release(host.guarded().key)
    assert json.loads((host.state_dir / STATE).read_text())["guards"] == []


async def test_a_refusal_is_an_error_and_does_not_count(host: Host) -> None:
    with pytest.raises(DriverError) as refusal:
        await host.renew(1e9)
    assert refusal.value.code == "FenceUnavailable"
    assert not host.fence.live()


async def test_without_a_watchdog_nothing_counts(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    monkeypatch.setattr("controlplane.drivers.qemu.fence.watchdog.__file__", "/nonexistent/watchdog.py")
    fence = Fence(folder)
    await fence.start([])
    with pytest.raises(DriverError, match="does not start") as refusal:
        await fence.renew(Lease(boottime_s() + 5, 1.0), host.look)
    assert refusal.value.code == "FenceUnavailable"
    assert not fence.live()
    await fence.stop()


async def test_a_watchdog_of_another_version_is_replaced(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    await host.renew(30.0)
    dog = await host.dog()
    monkeypatch.setattr("controlplane.drivers.qemu.fence.watchdog.PROTOCOL", 2)
    with pytest.raises(DriverError):  # and so is the next one, which is of this version too
        await host.renew(31.0)
    monkeypatch.undo()
    await host.renew(32.0)
    assert await host.dog() != dog
    assert not host.halted()
