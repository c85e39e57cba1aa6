"""A disk that fails, is full or is slow: the node says so and stops, and what it acknowledged is there afterwards."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.faulty_disk import FaultyDisk, write_control
from unit.consensus.support import ListState, ProcessCluster, peer_settings, until

from controlplane.bootstrap import process
from controlplane.bootstrap.raft import FAILURES, REFUSALS
from controlplane.consensus import ConsensusError, RaftNode, RaftSettings
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.errors import CorruptDataError, DiskError, DiskFullError
from controlplane.ports import LogError
from controlplane.supervisor import EX_CONFIG

TIMEOUT_S = 10.0
ENTRIES = [b"%d" % i for i in range(5)]


def alone(directory: Path, **limits: Any) -> RaftSettings:
    return RaftSettings(node="n1", cluster_id="c", data_dir=directory / "data", **limits)


async def started(settings: RaftSettings, disk: FaultyDisk | None = None) -> tuple[RaftNode, ListState]:
    state = ListState()
    node = RaftNode(settings, state, disk=disk or FaultyDisk())
    await node.start()
    return node, state


async def test_a_disk_that_fails_while_a_node_starts_is_the_reason_that_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes down which cluster it belongs to when it meets the members."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "peers.json")

    with monkeypatch.context() as patched:
        patched.setattr(DataDirectory, "remember_incarnation", full)
        with pytest.raises(DiskFullError, match="disk full"):
            await started(alone(tmp_path))
    node, _ = await started(alone(tmp_path))
    await node.append(b"well", timeout_s=TIMEOUT_S)
    await node.stop()


@pytest.mark.parametrize(
    ("mode", "operation", "limits", "error_type", "said"),
    [
        ("eio", "append", {}, DiskError, r"wal/\d+\.wal: .*Input/output error"),
        ("eio", "sync", {}, DiskError, r"wal/\d+\.wal: .*Input/output error"),
        ("enospc", "append", {}, DiskFullError, r"wal/\d+\.wal: disk full \(No space left on device\); make space"),
        ("eio", "replace", {"segment_bytes": 512}, DiskError, r"wal/\d+\.wal: .*Input/output error"),
        ("enospc", "replace", {"segment_bytes": 512}, DiskFullError, r"wal/\d+\.wal: disk full"),
        ("enospc", "replace", {"snapshot_entries": 6}, DiskFullError, "disk full"),
    ],
)
async def test_a_failing_disk_stops_the_node_and_loses_nothing_acknowledged(
    tmp_path: Path, mode: str, operation: str, limits: dict[str, int], error_type: type[DiskError], said: str
) -> None:
    control = tmp_path / "control"
    settings = alone(tmp_path, **limits)
    node, _ = await started(settings, FaultyDisk(control=control))
    if "snapshot_entries" not in limits and "segment_bytes" not in limits:
        for entry in ENTRIES:
            await node.append(entry, timeout_s=TIMEOUT_S)
    acknowledged = list(ENTRIES) if not limits else []
    write_control(control, mode, operations=[operation])
    try:
        for number in range(50):
            await node.append(b"doomed %d" % number, timeout_s=TIMEOUT_S)
            acknowledged.append(b"doomed %d" % number)
    except LogError:
        pass
    with pytest.raises(error_type, match=said):
        async with asyncio.timeout(TIMEOUT_S):
            await node.wait_failed()
    await node.stop()
    assert len(acknowledged) < 50
    # The same disk again, before and after it is mended.
    if operation != "append" or mode == "eio":
        again = RaftNode(settings, ListState(), disk=FaultyDisk(control=control))
        if operation == "replace":
            with pytest.raises(DiskError, match=r"wal"):
                await again.start()
    control.unlink()
    node, state = await started(settings)
    await node.append(b"after", timeout_s=TIMEOUT_S)
    assert state.entries[: len(acknowledged)] == acknowledged
    assert state.entries[-1] == b"after"
    assert len(state.entries) - len(acknowledged) <= 2
    await node.stop()


async def test_files_that_cannot_be_removed_do_not_stop_the_node(tmp_path: Path) -> None:
    control = tmp_path / "control"
    settings = alone(tmp_path, segment_bytes=512, snapshot_entries=5, retain_entries=1)
    node, _ = await started(settings, FaultyDisk(control=control))
    write_control(control, "eio", operations=["remove"], path="wal")
    for number in range(40):
        await node.append(b"%d" % number, timeout_s=TIMEOUT_S)
    await node.stop()
    left = len(list((settings.data_dir / "wal").iterdir()))
    assert left > 20
    node, state = await started(settings)
    await node.read_index(timeout_s=TIMEOUT_S)
    assert state.entries == [b"%d" % number for number in range(40)]
    await node.stop()
    assert len(list((settings.data_dir / "wal").iterdir())) < left / 2


async def test_a_slow_disk_is_waited_for(tmp_path: Path) -> None:
    control = tmp_path / "control"
    node, state = await started(alone(tmp_path), FaultyDisk(control=control))
    write_control(control, "slow", ms=60, operations=["sync"])
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(node.append(b"%d" % number, timeout_s=TIMEOUT_S) for number in range(50)))
    # They shared the slow syncs.
    assert 0.06 <= loop.time() - began < 2.0
    assert len(state.entries) == 50
    await node.stop()


async def test_a_start_without_space_says_how_much_is_needed_and_changes_nothing(tmp_path: Path) -> None:
    class Full(FaultyDisk):
        def free_bytes(self, path: Path) -> int:
            return 100_000

    settings = alone(tmp_path)
    with pytest.raises(DiskFullError, match=r"wal: disk full: 100000 bytes are free, 4\d{6} are needed"):
        await started(settings, Full())
    node, _ = await started(settings)
    await node.append(b"kept", timeout_s=TIMEOUT_S)
    await node.stop()
    before = {p: p.read_bytes() for p in (settings.data_dir / "wal").iterdir()}
    with pytest.raises(DiskFullError, match="disk full"):
        await started(settings, Full())
    assert {p: p.read_bytes() for p in (settings.data_dir / "wal").iterdir()} == before
    node, state = await started(settings)
    await node.read_index(timeout_s=TIMEOUT_S)
    assert state.entries == [b"kept"]
    await node.stop()


@pytest.mark.parametrize("mode", ["eio", "enospc"])
async def test_the_others_go_on_without_the_leader_whose_disk_failed(tmp_path: Path, mode: str) -> None:
    settings = peer_settings(tmp_path, None, ["n1", "n2", "n3"])
    cluster = ProcessCluster(settings, tmp_path)
    for node in settings:
        (tmp_path / node).mkdir()
        write_control(tmp_path / node / "disk.json", "ok")
    try:
        await cluster.start()
        leader = await cluster.leader()
        client = cluster.clients[leader]
        for entry in ENTRIES:
            await client.append(entry, timeout_s=TIMEOUT_S)
        write_control(tmp_path / leader / "disk.json", mode, path="wal")
        with pytest.raises(LogError):
            await client.append(b"doomed", timeout_s=TIMEOUT_S)
        process_of_leader = cluster.processes.pop(leader)
        assert await asyncio.wait_for(process_of_leader.wait(), TIMEOUT_S) == 1
        log = cluster.log_file(leader).read_text()
        assert "DiskError" in log or "DiskFullError" in log
        assert "Traceback" not in log
        other = await cluster.leader()
        position = await cluster.clients[other].append(b"without it", timeout_s=TIMEOUT_S)
        write_control(tmp_path / leader / "disk.json", "ok")
        await cluster.start(leader)

        async def caught_up() -> bool:
            status = await cluster.status(leader)
            return status is not None and status.applied_index >= position.index

        await until(caught_up, "the mended node has everything")
        seen = [entry for _, entry in await cluster.entries(leader, position.index)]
        assert [entry for entry in seen if entry != b"doomed"] == [*ENTRIES, b"without it"]
    finally:
        await cluster.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DiskFullError("no space"), process.EX_IOERR),
        (DiskError("broken"), process.EX_IOERR),
        (CorruptDataError("damaged"), EX_CONFIG),
        (ConsensusError("refused"), EX_CONFIG),
    ],
)
def test_a_node_with_a_disk_that_may_be_mended_is_started_again(error: Exception, code: int) -> None:
    async def work() -> None:
        raise error

    async def stop() -> None:
        await asyncio.Event().wait()

    assert process.run(work(), stop(), REFUSALS, FAILURES) == code
