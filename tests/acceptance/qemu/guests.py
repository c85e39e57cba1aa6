"""What the tests with real guests share: the names, the patience, and ways to look."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from acceptance.drivers.conformance import eventually, is_ready

from controlplane.drivers.qemu import network, process
from controlplane.drivers.qemu.driver import instance_mark
from controlplane.model.resources import ObservedPower
from controlplane.ports import HostDriver, Instance

READY_S = 90.0
"""A guest is up in two seconds; a machine shared with other test runs is slower."""
CALL_S = 60.0
INSTANCE = f"test-{os.getpid()}"


def require(condition: bool, reason: str) -> None:
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def leftovers_in(state_dir: Path, uid: str) -> list[str]:
    mark = instance_mark(INSTANCE, state_dir)
    found = [f"process {item.pid}" for item in process.scan(mark) if item.tag is not None and item.tag.uid == uid]
    found += [f"file {path}" for path in state_dir.rglob("*") if uid in str(path)]
    prefix = network.tap_prefix(mark, uid)
    return found + [f"tap {name}" for _, name in socket.if_nameindex() if name.startswith(prefix)]


def pid_of(instance: Instance) -> int:
    return int(instance.details["pid"])


async def eventually_listed(driver: HostDriver, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(listed := await driver.list()) != count:
        assert time.monotonic() < deadline, f"not {count} listed: {listed}"
        await asyncio.sleep(0.02)


async def ready(driver: HostDriver, uid: str) -> Instance:
    instance = await eventually(driver, uid, is_ready, within_s=READY_S, what="ready")
    assert instance is not None
    return instance


async def in_power(driver: HostDriver, uid: str, power: ObservedPower) -> Instance:
    instance = await eventually(
        driver, uid, lambda seen: seen is not None and seen.power is power, within_s=READY_S, what=str(power)
    )
    assert instance is not None
    return instance


async def console_of(driver: HostDriver, uid: str) -> str:
    _, text = await driver.console(uid, offset=0, limit=1 << 20)
    return text.decode(errors="replace").replace("\r\n", "\n")


def watchdogs_of(state_dir: Path) -> list[int]:
    """The pids of the watchdogs that serve a state folder."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            here = entry.name.isdecimal() and (entry / "cwd").readlink() == state_dir
            if here and b"watchdog.py" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
