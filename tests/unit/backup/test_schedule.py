"""Scheduled backups over a real directory and a real state; time is handed in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.builders import declare_namespace
from support.harness import Replica
from support.members import Members

from controlplane.backup import schedule
from controlplane.backup.contents import load_state
from controlplane.backup.directory import DirectoryStore
from controlplane.backup.repository import Repository
from controlplane.backup.schedule import BackupSchedule
from controlplane.consensus.configuration import encode
from controlplane.machine.state import State
from controlplane.replica.snapshots import Snapshots


@dataclass
class SteppedClock:
    s: float = 1_769_860_800.0

    def now_ms(self) -> int:
        return round(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s


class World:
    def __init__(self, root: Path) -> None:
        self.clock = SteppedClock()
        self.replica = Replica()
        self.root = root
        self.repository = Repository(DirectoryStore(root))
        self.leads = True
        self.broken = False

        async def fresh(timeout_s: float) -> tuple[State, int, int]:
            return await self.replica.fresh(timeout_s=timeout_s), (await self.replica.status()).applied_index, 1

        self.source = Snapshots(
            fresh=fresh,
            status=self.replica.status,
            configuration=lambda _: encode(Members().configuration),
            clock=self.clock,
            ids=self.replica.ids,
        )

    def schedule(self, *, every_s: float = 3600, keep: int = 2) -> BackupSchedule:
        return BackupSchedule(
            cluster_id="test",
            source=self.source,
            open_store=lambda: DirectoryStore(self.root / "not-a-directory" if self.broken else self.root),
            location=str(self.root),
            leading=lambda: self.leads,
            clock=self.clock,
            every_s=every_s,
            keep=keep,
        )

    def indexes(self) -> list[int]:
        return [entry.index for entry in self.repository.entries()]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(tmp_path / "backups")
    await made.replica.accept(declare_namespace("one"))
    return made


async def test_saves_when_it_is_due(world: World) -> None:
    backups = world.schedule()
    await backups.look()
    assert world.indexes() == [1]
    await world.replica.accept(declare_namespace("two"))
    world.clock.s += 3599
    await backups.look()
    assert world.indexes() == [1]
    world.clock.s += 1
    await backups.look()
    assert world.indexes() == [1, 2]
    status = backups.status()
    assert (status.last_index, status.last_saved_at_ms, status.error, status.overdue) == (
        2,
        world.clock.now_ms(),
        "",
        False,
    )
    assert not world.source.held
    entry = world.repository.find()
    state = load_state(world.repository, entry, world.repository.manifest(entry))
    assert state.digest == world.replica.state.digest


async def test_a_new_leader_goes_on_from_what_is_there(world: World) -> None:
    await world.schedule().look()
    world.clock.s += 60
    await world.schedule().look()
    assert world.indexes() == [1]


async def test_a_follower_only_looks(world: World) -> None:
    world.leads = False
    backups = world.schedule()
    await backups.look()
    assert world.indexes() == []
    assert not backups.status().overdue
    world.clock.s += 7201
    assert backups.status().overdue


async def test_keeps_as_many_as_asked(world: World) -> None:
    backups = world.schedule(keep=2)
    for number in range(4):
        await world.replica.accept(declare_namespace(f"n-{number}"))
        await backups.look()
        world.clock.s += 3600
    assert world.indexes() == [4, 5]


async def test_a_failure_is_shown_and_mended(world: World) -> None:
    (world.root).mkdir()
    (world.root / "not-a-directory").write_text("")
    world.broken = True
    backups = world.schedule()
    await backups.look()
    status = backups.status()
    assert "a file is where a directory is needed" in status.error or "Not a directory" in status.error
    assert status.error_at_ms == world.clock.now_ms()
    world.clock.s += 7201
    assert backups.status().overdue
    world.broken = False
    await backups.look()
    assert (backups.status().error, backups.status().overdue, world.indexes()) == ("", False, [1])


async def test_without_a_leader(world: World) -> None:
    world.replica.leaderless = True
    backups = world.schedule()
    await backups.look()
    assert backups.status().error == "no leader is known"


async def test_a_clock_that_was_ahead_does_not_stop_backups(world: World) -> None:
    backups = world.schedule()
    world.clock.s += 10 * 86_400
    await backups.look()
    world.clock.s -= 10 * 86_400
    await world.replica.accept(declare_namespace("two"))
    await backups.look()
    assert 2 in world.indexes()


async def test_runs_until_it_is_cancelled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LOOK_S", 0.01)
    running = asyncio.create_task(world.schedule().run())
    async with asyncio.timeout(10):
        while not world.indexes():  # noqa: ASYNC110 - polls another task
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
