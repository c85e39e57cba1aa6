"""The exporter beside a replica: nothing is lost, doubled or dropped too early, restores and gaps included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support.builders import declare_namespace
from support.harness import Replica

from controlplane.audit import exporter
from controlplane.audit.exporter import Exporter
from controlplane.audit.files import ExportFiles
from controlplane.audit.keeper import Keeper, droppable
from controlplane.machine.audit import PATIENCE_MS
from controlplane.model.audit import AuditRecord, followed, read_lines
from controlplane.model.commands import BeginAudit, ExportedAudit


def exported(directory: Path) -> list[AuditRecord]:
    lines = [line for path in sorted(directory.glob("audit-*.jsonl")) for line in path.read_bytes().splitlines(True)]
    return list(followed(read_lines(lines)))


def undone(directory: Path) -> list[Path]:
    return list(directory.glob("undone-*"))


@contextlib.asynccontextmanager
async def exporting(replica: Replica, directory: Path) -> AsyncIterator[None]:
    running = asyncio.create_task(Exporter(replica, replica, replica.clock, node="n1", directory=directory).run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


async def until_written(replica: Replica, directory: Path) -> list[AuditRecord]:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(FileNotFoundError):
                if (found := exported(directory)) and found[-1] == replica.state.audit_at(replica.state.audit_head):
                    return found
            await asyncio.sleep(0.01)


async def test_it_follows_the_chain_across_restarts_and_tells_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "TELL_RECORDS", 5)
    replica = Replica()
    await replica.accept(BeginAudit(node="n1"))
    for round_ in range(3):
        async with exporting(replica, tmp_path):
            for number in range(20):
                await replica.accept(declare_namespace(f"n{round_}-{number}"))
            await until_written(replica, tmp_path)
        # It is down, and the chain goes on.
        await replica.accept(declare_namespace(f"down-{round_}"))
    async with exporting(replica, tmp_path):
        found = await until_written(replica, tmp_path)
        assert await replica.until(
            lambda state: any(each.through > state.audit_head - 5 for each in state.audit_exports.values()),
            timeout_s=20,
        )
    assert [each.sequence for each in found] == list(range(1, replica.state.audit_head + 1))
    told = [command.through for command in replica.commands if isinstance(command, ExportedAudit)]
    assert told == sorted(told)
    assert told[-1] > replica.state.audit_head - 5


async def test_what_comes_after_a_write_is_gathered_and_written_by_one_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    append = ExportFiles.append

    def counted(files: ExportFiles, records: Sequence[AuditRecord]) -> None:
        written.append(len(records))
        append(files, records)

    monkeypatch.setattr(ExportFiles, "append", counted)
    replica = Replica()
    await replica.accept(BeginAudit(node="n1"))
    async with exporting(replica, tmp_path):
        await until_written(replica, tmp_path)
        for number in range(50):
            await replica.accept(declare_namespace(f"n{number}"))
            # Long enough for a write of what there is.
            await asyncio.sleep(0.002)
        await until_written(replica, tmp_path)
    assert sum(written) == 51
    # One for the first record, and one for each quarter of a second; on a machine that stands still, a few more.
    assert len(written) < 20


async def test_after_a_restore_the_files_of_the_undone_history_are_set_aside(tmp_path: Path) -> None:
    replica = Replica()
    await replica.accept(BeginAudit(node="n1"))
    await replica.accept(declare_namespace("kept"))
    backup = replica.state
    async with exporting(replica, tmp_path):
        await replica.accept(declare_namespace("undone"))
        await until_written(replica, tmp_path)
    replica._state = backup  # pyright: ignore[reportPrivateUsage]
    await replica.accept(declare_namespace("other"))
    async with exporting(replica, tmp_path):
        found = await until_written(replica, tmp_path)
    assert [each.name for each in found] == ["test", "kept", "other"]
    (aside,) = undone(tmp_path)
    assert [each.name for each in exported(aside)] == ["test", "kept", "undone"]


async def test_a_replica_that_is_not_loaded_yet_is_no_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "RETRY_S", 0.05)
    replica = Replica()
    await replica.accept(BeginAudit(node="n1"))
    async with exporting(replica, tmp_path):
        await until_written(replica, tmp_path)
    loaded = replica.state
    replica.reset()
    replica.leaderless = True
    async with exporting(replica, tmp_path):
        await asyncio.sleep(0.1)
        replica._state, replica.leaderless = loaded, False  # pyright: ignore[reportPrivateUsage]
        await replica.accept(declare_namespace("next"))
        assert len(await until_written(replica, tmp_path)) == 2
    assert not undone(tmp_path)


async def test_the_leader_begins_the_chain_and_drops_what_everybody_has() -> None:
    replica = Replica()
    leads = False
    keeper = Keeper(replica, replica, replica.clock, node="n1", is_leader=lambda: leads, keep_records=20)
    await keeper.round()
    assert not replica.state.audit_head
    leads = True
    await keeper.round()
    assert replica.state.audit_head == 1
    for number in range(29):
        await replica.accept(declare_namespace(f"n{number}"))
    await replica.accept(ExportedAudit(node="n1", through=30))
    await replica.accept(ExportedAudit(node="n2", through=4))
    await keeper.round()
    assert (replica.state.audit_first, replica.state.audit_head) == (5, 31)
    now_ms = replica.clock.now_ms()
    assert droppable(replica.state, 20, now_ms=now_ms) is None
    assert droppable(replica.state, 20, now_ms=now_ms + PATIENCE_MS) == 11
