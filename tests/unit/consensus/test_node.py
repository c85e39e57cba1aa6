"""The Log port of whole nodes: alone, three in one event loop, and behind the unix socket."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
from unit.consensus.support import ListState, LoopCluster, add, peer_settings, until

from controlplane.consensus import ConsensusError, CorruptDataError, LogClient, RaftNode, RaftSettings, serve
from controlplane.consensus.disk import Disk
from controlplane.consensus.server import LogServer
from controlplane.identity.files import TlsFiles
from controlplane.ports import (
    EntryTooLargeError,
    Led,
    Log,
    LogStatus,
    NoLeaderError,
    OutcomeUnknownError,
    Reign,
    SnapshotInstalled,
)

TIMEOUT_S = 10.0


def alone(directory: Path, **limits: Any) -> RaftSettings:
    return RaftSettings(node="n1", cluster_id="c", data_dir=directory / "data", **limits)


async def collect(log: Log, after: int, up_to: int) -> list[tuple[int, bytes]]:
    """The followed entries above `after` up to index `up_to`, snapshots unpacked."""
    seen: list[tuple[int, bytes]] = []
    async with asyncio.timeout(TIMEOUT_S), aclosing(log.follow(after)) as stream:
        async for item in stream:
            await add(seen, item)
            if item.index >= up_to:
                break
    return seen


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[RaftNode]:
    node = RaftNode(alone(tmp_path), ListState())
    await node.start()
    yield node
    await node.stop()


# -- alone -------------------------------------------------------------------------------------------------------------


async def test_entries_are_committed_followed_and_kept(tmp_path: Path) -> None:
    node = RaftNode(alone(tmp_path), ListState())
    await node.start()
    positions = [await node.append(b"%d" % i, timeout_s=TIMEOUT_S) for i in range(5)]
    assert await node.read_index(timeout_s=TIMEOUT_S) == positions[-1].index
    expected = [(p.index, b"%d" % i) for i, p in enumerate(positions)]
    assert await collect(node, 0, positions[-1].index) == expected
    assert await collect(node, positions[2].index, positions[-1].index) == expected[3:]
    await node.stop()
    state = ListState()
    node = RaftNode(alone(tmp_path), state)
    await node.start()
    # The new leader's own no-op is above, yet the read index is one that a follower of the log gets to see.
    assert await node.read_index(timeout_s=TIMEOUT_S) == positions[-1].index
    assert state.entries == [b"0", b"1", b"2", b"3", b"4"]
    await node.stop()


async def test_concurrent_appends_come_out_once_each_and_in_order(one: RaftNode) -> None:
    positions = await asyncio.gather(*(one.append(b"%d" % i, timeout_s=TIMEOUT_S) for i in range(500)))
    assert [p.index for p in positions] == sorted({p.index for p in positions})
    seen = await collect(one, 0, positions[-1].index)
    assert seen == [(p.index, b"%d" % i) for i, p in enumerate(positions)]


async def test_an_empty_entry_and_the_largest_one(tmp_path: Path) -> None:
    node = RaftNode(alone(tmp_path, max_entry_bytes=100_000), ListState())
    await node.start()
    await node.append(b"", timeout_s=TIMEOUT_S)
    last = await node.append(b"x" * 100_000, timeout_s=TIMEOUT_S)
    with pytest.raises(EntryTooLargeError, match="100001 bytes; at most 100000"):
        await node.append(b"x" * 100_001, timeout_s=TIMEOUT_S)
    assert [len(data) for _, data in await collect(node, 0, last.index)] == [0, 100_000]
    await node.stop()


async def test_compaction_keeps_the_state_and_a_late_follower_gets_it_whole(tmp_path: Path) -> None:
    settings = alone(tmp_path, snapshot_entries=50, retain_entries=5, segment_bytes=4096)
    state = ListState()
    node = RaftNode(settings, state)
    await node.start()
    for _ in range(20):
        last = (await asyncio.gather(*(node.append(b"x" * 100, timeout_s=TIMEOUT_S) for _ in range(20))))[-1]

    async def compacted() -> bool:
        return (await node.status()).snapshot_index > last.index - 60

    await until(compacted, "a snapshot near the end")
    assert (await node.status()).log_bytes < 400 * 100
    async with aclosing(node.follow(0)) as stream:
        first = await anext(stream)
    assert isinstance(first, SnapshotInstalled)
    assert first.index > last.index - 60
    digest = state.digest()
    await node.stop()
    again = ListState()
    node = RaftNode(settings, again)
    await node.start()
    await node.read_index(timeout_s=TIMEOUT_S)
    assert again.digest() == digest
    await node.stop()


async def test_too_much_pending_is_refused_not_queued(tmp_path: Path) -> None:
    node = RaftNode(alone(tmp_path, max_pending_bytes=1000, max_entry_bytes=600), ListState())
    await node.start()
    await node.append(b"x", timeout_s=TIMEOUT_S)
    results = await asyncio.gather(
        *(node.append(b"x" * 600, timeout_s=TIMEOUT_S) for _ in range(3)), return_exceptions=True
    )
    assert [type(r).__name__ for r in results] == ["Position", "NoLeaderError", "NoLeaderError"]
    await node.append(b"x" * 600, timeout_s=TIMEOUT_S)
    await node.stop()


class BadDisk(Disk):
    broken = False

    def sync(self, fd: int) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")


async def test_a_failing_disk_stops_the_node_and_acknowledges_nothing(tmp_path: Path) -> None:
    disk = BadDisk(durable=True)
    node = RaftNode(alone(tmp_path), ListState(), disk=disk)
    await node.start()
    await node.append(b"good", timeout_s=TIMEOUT_S)
    disk.broken = True
    with pytest.raises(OutcomeUnknownError):
        await node.append(b"bad", timeout_s=TIMEOUT_S)
    with pytest.raises(ConsensusError, match="Input/output error"):
        await node.wait_failed()
    with pytest.raises(NoLeaderError, match="Input/output error"):
        await node.append(b"more", timeout_s=TIMEOUT_S)
    with pytest.raises(NoLeaderError):
        await anext(node.follow(99))
    await node.stop()


async def test_a_damaged_disk_refuses_to_start(tmp_path: Path) -> None:
    settings = alone(tmp_path)
    node = RaftNode(settings, ListState())
    await node.start()
    for _ in range(3):
        await node.append(b"x" * 300, timeout_s=TIMEOUT_S)
    await node.stop()
    (journal,) = (settings.data_dir / "wal").iterdir()
    raw = bytearray(journal.read_bytes())
    raw[len(raw) // 2] ^= 1
    journal.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(CorruptDataError, match="at byte"):
            await RaftNode(settings, ListState()).start()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node": "N1"}, "node: 'N1' is not a node id"),
        ({"node": ""}, "node: ''"),
        ({"cluster_id": ""}, "cluster_id"),
        ({"peers": {"n1": "h:1"}}, "peers: must not contain this node"),
        ({"peers": {"n2": "nowhere"}}, r"peers\[n2\]: 'nowhere' is not host:port"),
        ({"peers": {"n2": "h:99999"}}, r"peers\[n2\]"),
        ({"peers": {"n2": "h:1"}, "listen": ""}, "listen: '' is not host:port"),
        ({"peers": {"n2": "h:1"}, "listen": "h:2"}, "tls: peers need mutual TLS"),
        (
            {"peers": {"n2": "10.0.0.1:1"}, "listen": "127.0.0.1:2", "plaintext_peers_for_tests": True},
            "10.0.0.1:1 is not a loopback address",
        ),
        ({"fsync": "sometimes"}, "fsync: 'sometimes'"),
        ({"election_min_s": 0.2}, "election_min_s"),
        ({"election_max_s": 0.5}, "election_min_s"),
        ({"max_entry_bytes": 0}, "max_entry_bytes"),
        ({"max_entry_bytes": 1 << 30}, "max_entry_bytes: at most 64 MiB"),
        ({"retain_entries": -1}, "retain_entries"),
        ({"snapshot_entries": 0}, "snapshot_entries"),
    ],
)
def test_bad_settings_name_the_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaftSettings(**{"node": "n1", "cluster_id": "c", "data_dir": tmp_path, **change})


async def test_missing_certificates_are_reported_before_anything_is_written(tmp_path: Path) -> None:
    nowhere = tmp_path / "nope"
    tls = TlsFiles(nowhere, nowhere, nowhere)
    settings = alone(tmp_path, peers={"n2": "h:1"}, listen="127.0.0.1:1", tls=tls)
    with pytest.raises(FileNotFoundError):
        await RaftNode(settings, ListState()).start()
    assert not settings.data_dir.exists()


# -- three in one loop -------------------------------------------------------------------------------------------------


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[LoopCluster]:
    trio = LoopCluster(peer_settings(tmp_path, None, ["n1", "n2", "n3"], snapshot_entries=100, retain_entries=10))
    await trio.start()
    yield trio
    await trio.stop()


async def test_every_member_takes_writes_and_sees_the_same_log(trio: LoopCluster) -> None:
    names = sorted(trio.nodes) * 20
    positions = await asyncio.gather(
        *(trio.nodes[name].append(b"%d" % i, timeout_s=TIMEOUT_S) for i, name in enumerate(names))
    )
    last = max(p.index for p in positions)
    logs = [await collect(node, 0, last) for node in trio.nodes.values()]
    assert logs[0] == logs[1] == logs[2]
    assert sorted(logs[0]) == sorted((p.index, b"%d" % i) for i, p in enumerate(positions))


async def test_a_read_through_any_member_reflects_what_was_acknowledged(trio: LoopCluster) -> None:
    nodes = list(trio.nodes.values())
    for i in range(20):
        position = await nodes[i % 3].append(b"x", timeout_s=TIMEOUT_S)
        assert await nodes[(i + 1) % 3].read_index(timeout_s=TIMEOUT_S) >= position.index


async def test_only_the_leader_itself_is_confirmed(trio: LoopCluster) -> None:
    leader = await trio.leader()
    written = await trio.nodes[leader].append(b"x", timeout_s=TIMEOUT_S)
    confirmed = await asyncio.gather(
        *(trio.nodes[leader].confirm_leadership(timeout_s=TIMEOUT_S) for _ in range(20)),
    )
    assert set(confirmed) == {Led(written.index, Reign(written.term, 1))}
    for name in set(trio.nodes) - {leader}:
        with pytest.raises(NoLeaderError, match=f"{name} does not lead"):
            await trio.nodes[name].confirm_leadership(timeout_s=TIMEOUT_S)


async def test_the_next_leader_is_confirmed_in_its_own_term(trio: LoopCluster) -> None:
    old = await trio.leader()
    before = await trio.nodes[old].confirm_leadership(timeout_s=TIMEOUT_S)
    new = await trio.nodes[old].transfer_leadership(None, timeout_s=TIMEOUT_S)
    assert await trio.leader() == new
    assert (await trio.nodes[new].confirm_leadership(timeout_s=TIMEOUT_S)).reign.term > before.reign.term
    with pytest.raises(NoLeaderError):
        await trio.nodes[old].confirm_leadership(timeout_s=TIMEOUT_S)


async def test_sizes_around_multiples_of_64_kib_replicate(trio: LoopCluster) -> None:
    leader = trio.nodes[await trio.leader()]
    for size in (65536 * k + d for k in (1, 2, 3) for d in (-20, -1, 0, 1)):
        position = await leader.append(b"x" * size, timeout_s=TIMEOUT_S)
        for node in trio.nodes.values():
            assert await collect(node, position.index - 1, position.index) == [(position.index, b"x" * size)]


async def test_a_member_that_was_away_gets_a_snapshot_then_the_rest(trio: LoopCluster) -> None:
    leader = await trio.leader()
    away = next(name for name in trio.nodes if name != leader)
    await trio.stop(away)
    for _ in range(30):
        await asyncio.gather(*(trio.nodes[leader].append(b"x" * 50, timeout_s=TIMEOUT_S) for _ in range(20)))
    await trio.start(away)
    last = await trio.nodes[leader].append(b"last", timeout_s=TIMEOUT_S)

    async def caught_up() -> bool:
        return trio.states[away].digest() == trio.states[leader].digest()

    await until(caught_up, "the same state")
    status = await trio.nodes[away].status()
    assert status.snapshot_index > 100, "it came by snapshot, not entry by entry"
    assert len(await collect(trio.nodes[away], 0, last.index)) == 601


async def test_nothing_is_ever_pickled(trio: LoopCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "dump", "dumps", "_load", "_loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    leader = await trio.leader()
    follower = next(name for name in trio.nodes if name != leader)
    for _ in range(15):
        await asyncio.gather(*(trio.nodes[follower].append(b"x", timeout_s=TIMEOUT_S) for _ in range(10)))
    await trio.stop(leader)
    await trio.start(leader)
    position = await trio.nodes[leader].append(b"y", timeout_s=TIMEOUT_S)
    assert await trio.nodes[follower].read_index(timeout_s=TIMEOUT_S) >= position.index


async def test_a_minority_neither_writes_nor_reads(trio: LoopCluster) -> None:
    leader = await trio.leader()
    rest = [name for name in trio.nodes if name != leader]
    await trio.nodes[leader].append(b"x", timeout_s=TIMEOUT_S)
    await trio.stop(*rest)
    with pytest.raises((NoLeaderError, OutcomeUnknownError)):
        await trio.nodes[leader].append(b"lost", timeout_s=0.5)
    with pytest.raises(NoLeaderError):
        await trio.nodes[leader].read_index(timeout_s=0.5)
    with pytest.raises(NoLeaderError):
        await trio.nodes[leader].confirm_leadership(timeout_s=0.5)

    async def stepped_down() -> bool:
        status = await trio.nodes[leader].status()
        return status.role != "leader" and not status.has_quorum

    await until(stepped_down, "the leader steps down")
    with pytest.raises(NoLeaderError):
        await trio.nodes[leader].append(b"refused", timeout_s=0.3)
    await trio.start(*rest)
    position = await trio.nodes[leader].append(b"after", timeout_s=TIMEOUT_S)
    logs = [await collect(node, 0, position.index) for node in trio.nodes.values()]
    assert logs[0] == logs[1] == logs[2]
    assert b"refused" not in [data for _, data in logs[0]]


async def test_a_member_that_comes_back_does_not_disturb_the_leader(trio: LoopCluster) -> None:
    leader = await trio.leader()
    away = next(name for name in trio.nodes if name != leader)
    before = (await trio.nodes[leader].status()).term
    await trio.stop(away)
    await trio.start(away)

    async def back() -> bool:
        return (await trio.nodes[away].status()).leader == leader

    await until(back, "it follows again")
    assert (await trio.nodes[leader].status()).term == before


# -- behind the socket -------------------------------------------------------------------------------------------------

Serve = Callable[[], Awaitable["asyncio.Task[None]"]]


@pytest.fixture
async def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "raft.sock"


@pytest.fixture
async def serving(tmp_path: Path, socket_path: Path) -> AsyncIterator[Serve]:
    tasks: list[asyncio.Task[None]] = []

    async def start() -> asyncio.Task[None]:
        node = RaftNode(alone(tmp_path, snapshot_entries=200, retain_entries=20), ListState())
        await node.start()
        tasks.append(asyncio.create_task(serve(node, socket_path)))
        return tasks[-1]

    yield start
    for task in tasks:
        await ended(task)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def client(socket_path: Path) -> AsyncIterator[LogClient]:
    client = LogClient(socket_path)
    yield client
    await client.aclose()


async def test_the_whole_port_works_over_the_socket(serving: Serve, client: LogClient) -> None:
    await serving()
    positions = await asyncio.gather(*(client.append(b"%d" % i, timeout_s=TIMEOUT_S) for i in range(100)))
    last = positions[-1].index
    assert await client.read_index(timeout_s=TIMEOUT_S) == last
    assert await client.confirm_leadership(timeout_s=TIMEOUT_S) == Led(last, Reign(positions[-1].term, 1))
    assert await collect(client, 0, last) == [(p.index, b"%d" % i) for i, p in enumerate(positions)]
    status = await client.status()
    assert isinstance(status, LogStatus)
    assert (status.role, status.leader, status.has_quorum, status.fsync) == ("leader", "n1", True, "always")
    with pytest.raises(EntryTooLargeError):
        await client.append(bytes(5 << 20), timeout_s=TIMEOUT_S)


async def test_calls_and_follows_survive_a_restart_of_the_raft_process(serving: Serve, client: LogClient) -> None:
    task = await serving()
    await client.append(b"before", timeout_s=TIMEOUT_S)
    async with aclosing(client.follow(0)) as stream:
        first = await anext(stream)
        await ended(task)
        with pytest.raises(NoLeaderError, match="cannot be reached"):
            await client.append(b"nobody", timeout_s=0.1)
        waiting = asyncio.create_task(client.append(b"after", timeout_s=TIMEOUT_S))
        await serving()
        position = await waiting
        async with asyncio.timeout(TIMEOUT_S):
            second = await anext(stream)
    assert (first.data, second.data) == (b"before", b"after")
    assert second.index == position.index


async def test_a_reader_that_stops_reading_delays_nobody_and_catches_up(serving: Serve, client: LogClient) -> None:
    await serving()
    async with aclosing(client.follow(0)) as stream:
        await client.append(b"first", timeout_s=TIMEOUT_S)
        seen: list[tuple[int, bytes]] = []
        await add(seen, await anext(stream))
        for _ in range(20):
            positions = await asyncio.gather(*(client.append(bytes(50_000), timeout_s=TIMEOUT_S) for _ in range(30)))
        last = positions[-1].index
        async with asyncio.timeout(TIMEOUT_S):
            async for item in stream:
                await add(seen, item)
                if item.index >= last:
                    break
    assert len(seen) == 601
    assert [index for index, _ in seen] == sorted({index for index, _ in seen})


async def test_a_lagging_reader_over_the_socket_gets_the_state_in_pieces(serving: Serve, client: LogClient) -> None:
    await serving()
    for _ in range(12):
        await asyncio.gather(*(client.append(bytes(20_000), timeout_s=TIMEOUT_S) for _ in range(25)))
    last = await client.append(b"last", timeout_s=TIMEOUT_S)

    async def compacted() -> bool:
        return (await client.status()).log_entries < 200

    await until(compacted, "the beginning of the log is gone")
    async with aclosing(client.follow(0)) as stream:
        item = await anext(stream)
        assert isinstance(item, SnapshotInstalled)
        seen: list[tuple[int, bytes]] = []
        await add(seen, item)
        while seen[-1][0] < last.index:
            await add(seen, await anext(stream))
    assert len(seen) == 301
    assert seen[-1] == (last.index, b"last")


async def test_the_socket_is_private(serving: Serve, client: LogClient, socket_path: Path) -> None:
    await serving()
    await client.status()
    modes = [path.stat().st_mode & 0o777 for path in (socket_path, socket_path.parent)]
    assert modes == [0o600, 0o700]


async def test_garbage_on_the_socket_closes_that_connection_only(
    serving: Serve, client: LogClient, socket_path: Path
) -> None:
    await serving()
    await client.append(b"x", timeout_s=TIMEOUT_S)
    for garbage in (b"\xff" * 100, b"\x00\x00\x00\x02\x91\xc1", b"\x00\x00\x00\x05hello"):
        reader, writer = await asyncio.open_unix_connection(str(socket_path))
        writer.write(garbage)
        async with asyncio.timeout(TIMEOUT_S):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
    await client.append(b"y", timeout_s=TIMEOUT_S)


async def test_a_socket_in_an_open_directory_or_with_a_long_name_is_refused(one: RaftNode, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ValueError, match="must belong to this user and have mode 0700"):
        await LogServer(one, tmp_path / "open" / "s").start()
    with pytest.raises(ValueError, match="longer than 107 bytes"):
        await LogServer(one, tmp_path / ("x" * 120)).start()


async def test_serve_ends_with_the_reason_when_the_node_fails(tmp_path: Path, socket_path: Path) -> None:
    disk = BadDisk(durable=True)
    node = RaftNode(alone(tmp_path), ListState(), disk=disk)
    await node.start()
    task = asyncio.create_task(serve(node, socket_path))
    client = LogClient(socket_path)
    await client.append(b"x", timeout_s=TIMEOUT_S)
    disk.broken = True
    with pytest.raises(OutcomeUnknownError):
        await client.append(b"y", timeout_s=TIMEOUT_S)
    with pytest.raises(ConsensusError, match="Input/output error"):
        await task
    assert not socket_path.exists()  # noqa: ASYNC240 - local
    await client.aclose()
