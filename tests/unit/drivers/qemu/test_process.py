"""Finding, holding and ending processes, with stand-ins that are called as QEMU is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane.drivers.qemu import process

INSTANCE = f"unit-{os.getpid()}"
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"

Start = Callable[..., process.Handle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python under the name of QEMU, with a mark."""
    program = tmp_path / "qemu-system-test"
    program.symlink_to(sys.executable)
    started: list[process.Handle] = []

    def start(name: str, code: str = SLEEP) -> process.Handle:
        lock = process.lock(tmp_path / "run.lock")
        assert lock is not None
        argv = [str(program), "-c", code, "-name", f"guest={name}"]
        handle = process.Handle(process.spawn(argv, folder=tmp_path, lock_fd=lock, output=tmp_path / "output")[1])
        process.unlock(lock)
        started.append(handle)
        return handle

    yield start
    for handle in started:
        handle.send(signal.SIGKILL)
        handle.exit_status()
        handle.close()


async def found(name: str) -> process.Found:
    """Wait until the stand-in has become its program."""
    await until(lambda: any(item.name == name for item in process.scan(INSTANCE)))
    return next(item for item in process.scan(INSTANCE) if item.name == name)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_process_is_found_by_its_mark_and_its_folder(start: Start, tmp_path: Path) -> None:
    name = f"flintlock/{INSTANCE}/c/u/7/ns/n"
    start(name)
    item = await found(name)
    assert item.tag is not None
    assert (item.tag.uid, item.tag.epoch, item.stopped, item.folder) == ("u", 7, False, str(tmp_path))
    assert process.scan(f"{INSTANCE}x") == []
    assert os.getsid(item.pid) == item.pid, "it would get the agent's signals"
    os.kill(item.pid, signal.SIGSTOP)
    await until(lambda: process.scan(INSTANCE)[0].stopped)


async def test_the_lock_lives_as_long_as_the_process(start: Start, tmp_path: Path) -> None:
    handle = start(f"flintlock/{INSTANCE}/c/u/1/ns/n")
    assert process.lock(tmp_path / "run.lock") is None, "free between fork and exec"
    await found(f"flintlock/{INSTANCE}/c/u/1/ns/n")
    assert process.lock(tmp_path / "run.lock") is None
    await handle.kill()
    lock = process.lock(tmp_path / "run.lock")
    assert lock is not None
    process.unlock(lock)


async def test_how_a_child_ended_is_known_and_zombies_do_not_count(start: Start) -> None:
    name = f"flintlock/{INSTANCE}/c/u/1/ns/n"
    handle = start(name)
    assert handle.running
    assert handle.exit_status() is None
    item = await found(name)
    os.kill(item.pid, signal.SIGKILL)
    # Not reaped yet: a zombie, which is found neither by its mark nor as running.
    await until(lambda: not handle.running)
    assert process.scan(INSTANCE) == []
    assert handle.exit_status() == "signal 9"
    assert handle.exit_status() == "signal 9"
    assert process.Handle.open(item) is None
    handle.send(signal.SIGTERM)
    assert await handle.wait(0)


async def test_exit_codes(start: Start) -> None:
    handle = start(f"flintlock/{INSTANCE}/c/u/1/ns/n", "raise SystemExit(3)")
    assert await handle.wait(20)
    assert handle.exit_status() == "status 3"


async def test_waiting_has_a_deadline_and_killing_has_none(start: Start, tmp_path: Path) -> None:
    name = f"flintlock/{INSTANCE}/c/u/1/ns/n"
    handle = start(name, STUBBORN)
    await until(lambda: b"up" in (tmp_path / "output").read_bytes())
    handle.send(signal.SIGTERM)
    assert not await handle.wait(0.1)
    await handle.kill()
    assert not handle.running


async def test_a_pid_with_another_mark_is_not_touched(start: Start) -> None:
    name = f"flintlock/{INSTANCE}/c/u/1/ns/n"
    start(name)
    item = await found(name)
    other = process.Found(item.pid, f"{name}-earlier", None, False, item.folder, item.start)
    assert process.Handle.open(other) is None
    opened = process.Handle.open(item)
    assert opened is not None
    opened.close()
    assert not opened.running
    opened.send(signal.SIGKILL)
    assert await found(name) == item


def test_a_program_that_does_not_exist_ends_at_once(tmp_path: Path) -> None:
    lock = process.lock(tmp_path / "run.lock")
    assert lock is not None
    handle = process.Handle(
        process.spawn(["/absent/qemu"], folder=tmp_path, lock_fd=lock, output=tmp_path / "output")[1]
    )
    process.unlock(lock)
    os.waitid(os.P_PIDFD, handle.fd, os.WEXITED | os.WNOWAIT)
    assert handle.exit_status() == "status 127"
    assert b"/absent/qemu" in (tmp_path / "output").read_bytes()
    handle.close()
