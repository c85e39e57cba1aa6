"""The lease and real guests: whoever is killed or frozen beside them, they do not run on without one.

The guest counts on its console, so that its progress can be seen from outside. The agent is another Python process with
a driver, which renews until the test freezes or kills it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from acceptance.drivers.conformance import definition, existing, is_running, new_uid, of
from acceptance.drivers.lease_conformance import boottime_s, ended, leased, needing_a_lease
from acceptance.qemu.guests import CALL_S, INSTANCE, READY_S, in_power, pid_of, watchdogs_of

from controlplane.drivers.qemu import QemuDriver, process
from controlplane.drivers.qemu.fence import ANSWER_S, PING_S, STATE
from controlplane.drivers.qemu.watchdog import TICK_S, process_stat
from controlplane.images import cpio
from controlplane.images.demo import INITRD_IMAGE
from controlplane.images.store import LocalImageStore
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Initrd, MicroVMSpec
from controlplane.ports import VMDefinition

pytestmark = [pytest.mark.qemu, pytest.mark.xdist_group("guests"), pytest.mark.timeout(600)]

FENCE_S = 3.0
"""What the control plane allows a host for acting at the end of a lease."""
SLACK_S = 0.5
"""A busy machine may be late with anything."""
COUNTING = b"""#!/bin/sh
i=0
echo "flintlock: ready"
while true; do
    echo "tick $i"
    i=$((i + 1))
    /bin/busybox usleep 20000
done
"""

AGENT = textwrap.dedent("""
    import asyncio, os, sys, time
    from pathlib import Path
    import msgspec
    from controlplane.drivers.qemu import QemuDriver, fence, guest, process
    from controlplane.images.store import LocalImageStore
    from controlplane.ports import Lease, VMDefinition

    state, images, instance, ttl_s, grace_s, crash_after = sys.argv[1:7]
    vm = msgspec.json.decode(sys.stdin.buffer.read(), type=VMDefinition)

    def crash_after_spawn(*args, **kwargs):
        spawn(*args, **kwargs)
        os._exit(42)

    async def crash_after_guard(self, guarded):
        await guard(self, guarded)
        os._exit(42)

    spawn, guard = process.spawn, fence.Fence.guard
    if crash_after == "spawn":
        process.spawn = crash_after_spawn
    if crash_after == "guard":
        fence.Fence.guard = crash_after_guard

    async def renew(driver):
        while True:
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            await driver.renew(Lease(now + float(ttl_s), float(grace_s)))
            await asyncio.sleep(float(ttl_s) / 8)

    async def main():
        driver = QemuDriver(Path(state), LocalImageStore(Path(images)), instance, "tcg")
        await driver.start()
        renewing = asyncio.create_task(renew(driver))
        await asyncio.sleep(0.2)
        await driver.create(vm)
        print("up", flush=True)
        await renewing

    asyncio.run(main())
""")


@dataclass
class Console:
    """What a guest has counted so far."""

    path: Path

    @property
    def ticks(self) -> int:
        return self.path.read_bytes().count(b"tick ") if self.path.exists() else 0

    async def counts(self) -> None:
        before = self.ticks
        await until(lambda: self.ticks >= before + 3, "counting", within_s=READY_S)


async def until(holds: Callable[[], bool], what: str, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not {what} within {within_s} s"
        await asyncio.sleep(0.01)


def state_of(pid: int) -> str:
    """`running`, `halted` or `gone`."""
    try:
        state, _ = process_stat(pid)
    except OSError:
        return "gone"
    return {"T": "halted", "t": "halted", "Z": "gone", "X": "gone"}.get(state, "running")


def ends_s(state_dir: Path) -> float:
    """The end of the lease that the watchdog holds."""
    return float(json.loads((state_dir / STATE).read_text())["ends"])


async def until_end(state_dir: Path, *, plus_s: float = 0.0) -> None:
    await asyncio.sleep(max(ends_s(state_dir) + plus_s - boottime_s(), 0.0))


@pytest.fixture
def counting(store: LocalImageStore, sample: MicroVMSpec, tmp_path: Path) -> MicroVMSpec:
    """A guest that counts on its console: the demo's initrd, with another first process."""
    demo = store.resolve(INITRD_IMAGE, None, role="initrd").read_bytes()
    path = tmp_path / "initrd"
    # The kernel unpacks one archive after another, and a later file replaces an earlier one.
    path.write_bytes(demo + b"\0" * (-len(demo) % 512) + cpio.archive([cpio.file("init", COUNTING, 0o755)]))
    store.add("test/counting:1", {"initrd": path}, {"initrd": "initrd"})
    return needing_a_lease(replace(sample, initrd=Initrd(image="test/counting:1"), root_volume=None))


@dataclass
class RunningAgent:
    process: asyncio.subprocess.Process

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


Agents = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
async def agents(state_dir: Path, store: LocalImageStore) -> AsyncIterator[Agents]:
    """Starts an agent that creates one microVM and renews; it is killed in the end."""
    started: list[asyncio.subprocess.Process] = []

    async def start(vm: VMDefinition, *, ttl_s: float, grace_s: float, crash_after: str = "") -> RunningAgent:
        agent = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", AGENT, str(state_dir), str(store.root), INSTANCE, str(ttl_s), str(grace_s), crash_after),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(agent)
        assert agent.stdin is not None
        agent.stdin.write(msgspec.json.encode(vm))
        agent.stdin.close()
        assert agent.stdout is not None
        line = await asyncio.wait_for(agent.stdout.readline(), CALL_S)
        assert line == (b"" if crash_after else b"up\n")
        if crash_after:
            assert await asyncio.wait_for(agent.wait(), CALL_S) == 42
        return RunningAgent(agent)

    yield start
    for agent in started:
        with suppress(ProcessLookupError):
            agent.send_signal(signal.SIGCONT)
            agent.kill()
        await agent.wait()


@asynccontextmanager
async def another(new_driver: Callable[[], QemuDriver]) -> AsyncIterator[QemuDriver]:
    """The agent that comes back. In the end it destroys what is there."""
    driver = new_driver()
    await driver.start()
    try:
        yield driver
    finally:
        for instance in await driver.list():
            if instance.uid is not None:
                await driver.destroy(instance.uid, grace_s=0)
        await driver.stop()


async def test_a_frozen_agents_guest_is_halted_at_the_end_and_killed_after_the_grace(
    agents: Agents, new_driver: Callable[[], QemuDriver], counting: MicroVMSpec, state_dir: Path, mark: str
) -> None:
    vm = definition(counting, uid=new_uid())
    console = Console(state_dir / "vms" / vm.uid / "console.log")
    agent = await agents(vm, ttl_s=3.0, grace_s=2.0)
    await console.counts()
    (guest,) = process.scan(mark)
    agent.send(signal.SIGSTOP)
    await until_end(state_dir, plus_s=-0.5)
    assert state_of(guest.pid) == "running"
    before = console.ticks
    await until_end(state_dir, plus_s=SLACK_S)
    at_end = console.ticks
    assert at_end > before, "it did not run until the end"
    assert state_of(guest.pid) == "halted"
    await until_end(state_dir, plus_s=1.5)
    assert (state_of(guest.pid), console.ticks) == ("halted", at_end)
    await until_end(state_dir, plus_s=2.0 + SLACK_S)
    assert (state_of(guest.pid), console.ticks) == ("gone", at_end)
    # The agent that is thawed finds out, and may start it again.
    agent.send(signal.SIGCONT)
    agent.process.kill()
    await agent.process.wait()
    async with another(new_driver) as driver:
        assert ended(ObservedPower.STOPPED)(await of(driver, vm.uid))
        async with leased(driver, 3.0):
            await driver.create(vm)
            await console.counts()


async def test_a_killed_agents_guest_is_let_go_by_the_next_one_within_the_grace(
    agents: Agents, new_driver: Callable[[], QemuDriver], counting: MicroVMSpec, state_dir: Path, mark: str
) -> None:
    vm = definition(counting, uid=new_uid())
    console = Console(state_dir / "vms" / vm.uid / "console.log")
    agent = await agents(vm, ttl_s=2.0, grace_s=60.0)
    await console.counts()
    (guest,) = process.scan(mark)
    agent.process.kill()
    await agent.process.wait()
    await until_end(state_dir, plus_s=SLACK_S)
    at_end = console.ticks
    async with another(new_driver) as driver:
        seen = await existing(driver, vm.uid)
        assert ended(ObservedPower.PAUSED)(seen)
        assert (pid_of(seen), console.ticks) == (guest.pid, at_end)
        async with leased(driver, 2.0):
            await console.counts()
            assert pid_of(await existing(driver, vm.uid)) == guest.pid


async def test_a_watchdog_that_is_killed_is_replaced_and_the_deadline_stands(
    driver: QemuDriver, counting: MicroVMSpec, state_dir: Path
) -> None:
    vm = definition(counting, uid=new_uid())
    async with leased(driver, 3.0):
        await driver.create(vm)
        guest = pid_of(await existing(driver, vm.uid))
    (dog,) = watchdogs_of(state_dir)
    os.kill(dog, signal.SIGKILL)
    await until(lambda: watchdogs_of(state_dir) not in ([], [dog]), "replaced", within_s=2.0)
    assert state_of(guest) == "running"
    await until_end(state_dir, plus_s=-0.2)
    assert state_of(guest) == "running"
    await until(lambda: state_of(guest) == "halted", "halted", within_s=0.2 + SLACK_S)


async def test_a_watchdog_that_is_killed_right_before_the_end_makes_it_late_by_no_more_than_its_start(
    driver: QemuDriver, counting: MicroVMSpec, state_dir: Path
) -> None:
    vm = definition(counting, uid=new_uid())
    async with leased(driver, 2.0):
        await driver.create(vm)
        guest = pid_of(await existing(driver, vm.uid))
    (dog,) = watchdogs_of(state_dir)
    end = ends_s(state_dir)
    await until_end(state_dir, plus_s=-0.02)
    os.kill(dog, signal.SIGKILL)
    await until(lambda: state_of(guest) == "halted", "halted", within_s=FENCE_S)
    assert boottime_s() - end < 1.0 + SLACK_S


async def test_a_watchdog_that_is_frozen_is_killed_and_replaced_before_the_fence_is_over(
    driver: QemuDriver, counting: MicroVMSpec, state_dir: Path
) -> None:
    vm = definition(counting, uid=new_uid())
    async with leased(driver, 2.0):
        await driver.create(vm)
        guest = pid_of(await existing(driver, vm.uid))
    (dog,) = watchdogs_of(state_dir)
    end = ends_s(state_dir)
    await until_end(state_dir, plus_s=-TICK_S)
    os.kill(dog, signal.SIGSTOP)
    try:
        await until(lambda: state_of(guest) == "halted", "halted", within_s=FENCE_S + SLACK_S)
        assert boottime_s() - end < PING_S + ANSWER_S + SLACK_S
        assert watchdogs_of(state_dir) != [dog]
    finally:
        with suppress(ProcessLookupError):
            os.kill(dog, signal.SIGKILL)


async def test_when_both_were_killed_the_agent_that_comes_back_ends_it_at_once(
    agents: Agents, new_driver: Callable[[], QemuDriver], counting: MicroVMSpec, state_dir: Path, mark: str
) -> None:
    """In between nobody does: that is what needs a hardware watchdog."""
    vm = definition(counting, uid=new_uid())
    agent = await agents(vm, ttl_s=2.0, grace_s=0.0)
    (guest,) = process.scan(mark)
    agent.process.kill()
    await agent.process.wait()
    for dog in watchdogs_of(state_dir):
        os.kill(dog, signal.SIGKILL)
    await until_end(state_dir, plus_s=SLACK_S)
    assert state_of(guest.pid) == "running"
    async with another(new_driver) as driver:
        await until(lambda: state_of(guest.pid) == "gone", "killed", within_s=FENCE_S)
        assert ended(ObservedPower.STOPPED)(await of(driver, vm.uid))


@pytest.mark.parametrize("crash_after", ["spawn", "guard"])
async def test_an_agent_that_dies_while_it_starts_a_guest_leaves_none_that_runs(
    agents: Agents,
    new_driver: Callable[[], QemuDriver],
    counting: MicroVMSpec,
    state_dir: Path,
    mark: str,
    crash_after: str,
) -> None:
    vm = definition(counting, uid=new_uid())
    console = Console(state_dir / "vms" / vm.uid / "console.log")
    await agents(vm, ttl_s=30.0, grace_s=60.0, crash_after=crash_after)
    await until(lambda: len(process.scan(mark)) == 1, "started", within_s=CALL_S)
    (guest,) = process.scan(mark)
    async with another(new_driver) as driver:
        # A hypervisor that does not answer yet counts as running.
        assert pid_of(await in_power(driver, vm.uid, ObservedPower.PAUSED)) == guest.pid
        guarded = json.loads((state_dir / STATE).read_text())["guards"]
        assert [each["pid"] for each in guarded] == [guest.pid], "who comes back has it guarded first of all"
        assert console.ticks == 0
        async with leased(driver, 30.0):
            await driver.create(vm)
            assert is_running(await of(driver, vm.uid))
            await console.counts()
            assert pid_of(await existing(driver, vm.uid)) == guest.pid
