"""Three members as processes of their own on loopback with mutual TLS: what an operator relies on when they fail."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from unit.consensus.support import Authority, ProcessCluster, add, peer_settings, until

from controlplane.ports import LogError, OutcomeUnknownError, Position

NODES = ["n1", "n2", "n3"]
TIMEOUT_S = 10.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    settings = peer_settings(tmp_path, Authority(tmp_path / "pki"), NODES, snapshot_entries=2_000, retain_entries=200)
    cluster = ProcessCluster(settings, tmp_path)
    await cluster.start()
    yield cluster
    await cluster.close()


class Load:
    """Writers that go on through failures, and remember exactly what they were promised."""

    def __init__(self, cluster: ProcessCluster, writers: int = 8) -> None:
        self.acknowledged: dict[bytes, Position] = {}
        self.unknown: set[bytes] = set()
        self._cluster = cluster
        self._numbers = itertools.count()
        self._tasks = [asyncio.create_task(self._write(i)) for i in range(writers)]

    async def _write(self, writer: int) -> None:
        nodes = itertools.cycle(NODES[writer % 3 :] + NODES[: writer % 3])
        node = next(nodes)
        while True:
            entry = b"%d" % next(self._numbers)
            self.unknown.add(entry)
            try:
                self.acknowledged[entry] = await self._cluster.clients[node].append(entry, timeout_s=2)
                self.unknown.discard(entry)
            except OutcomeUnknownError:
                node = next(nodes)
            except LogError:
                # Certainly not appended: it must not turn up in the log.
                self.unknown.discard(entry)
                node = next(nodes)

    async def more(self, count: int) -> None:
        """Wait until `count` more writes were acknowledged."""
        goal = len(self.acknowledged) + count

        async def reached() -> bool:
            return len(self.acknowledged) >= goal

        await until(reached, f"{count} more acknowledged writes", 20)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task


async def verify(cluster: ProcessCluster, load: Load) -> None:
    """Every member shows the same log; what was acknowledged is in it once, where it was said to be."""
    leader = await cluster.leader()
    final = await cluster.clients[leader].append(b"final", timeout_s=TIMEOUT_S)
    logs = [await cluster.entries(node, final.index) for node in NODES]
    assert logs[0] == logs[1] == logs[2]
    places = {data: index for index, data in logs[0]}
    assert len(places) == len(logs[0]), "an entry is in the log twice"
    lost = {entry for entry, position in load.acknowledged.items() if places.get(entry) != position.index}
    assert not lost
    assert set(places) <= set(load.acknowledged) | load.unknown | {b"final"}
    statuses = [await cluster.status(node) for node in NODES]
    assert len({(s.state_hash, s.state_hash_index) for s in statuses if s}) == 1


async def test_a_leader_is_elected_and_every_member_serves(cluster: ProcessCluster) -> None:
    leader = await cluster.leader()
    for node in NODES:
        position = await cluster.clients[node].append(node.encode(), timeout_s=TIMEOUT_S)
        for reader in NODES:
            assert await cluster.clients[reader].read_index(timeout_s=TIMEOUT_S) >= position.index
    for node in NODES:
        assert [data for _, data in await cluster.entries(node, position.index)] == [b"n1", b"n2", b"n3"]
        status = await cluster.status(node)
        assert status is not None
        assert status.leader == leader
        assert status.has_quorum
        assert all(peer.connected for peer in status.peers)


async def test_killing_the_leader_under_load_loses_nothing(cluster: ProcessCluster) -> None:
    await cluster.leader()
    load = Load(cluster)
    for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        await load.more(300)
        leader = await cluster.leader()
        await cluster.kill(leader, how=how)
        await load.more(300)
        await cluster.start(leader)
        await cluster.leader()
    await load.stop()
    await verify(cluster, load)


async def test_killing_all_members_at_once_loses_nothing(cluster: ProcessCluster) -> None:
    await cluster.leader()
    load = Load(cluster)
    await load.more(500)
    await cluster.kill()
    await cluster.start()
    await cluster.leader()
    await load.more(500)
    await load.stop()
    await verify(cluster, load)


async def test_a_frozen_leader_is_replaced_and_serves_no_stale_read_when_it_wakes(cluster: ProcessCluster) -> None:
    old = await cluster.leader()
    rest = [node for node in NODES if node != old]
    cluster.processes[old].send_signal(signal.SIGSTOP)
    try:
        position = await cluster.clients[rest[0]].append(b"while it slept", timeout_s=TIMEOUT_S)
    except OutcomeUnknownError:
        # It was on its way to the frozen leader.
        position = await cluster.clients[rest[0]].append(b"while it slept", timeout_s=TIMEOUT_S)
    reads = [asyncio.create_task(cluster.clients[old].read_index(timeout_s=TIMEOUT_S)) for _ in range(20)]
    await asyncio.sleep(0)
    cluster.processes[old].send_signal(signal.SIGCONT)
    assert all(index >= position.index for index in await asyncio.gather(*reads))


async def test_a_member_that_was_away_for_long_gets_a_snapshot(cluster: ProcessCluster) -> None:
    leader = await cluster.leader()
    away = next(node for node in NODES if node != leader)
    await cluster.kill(away)
    for _ in range(60):
        await asyncio.gather(*(cluster.clients[leader].append(b"x" * 100, timeout_s=TIMEOUT_S) for _ in range(100)))
    await cluster.start(away)
    last = await cluster.clients[leader].append(b"last", timeout_s=TIMEOUT_S)
    seen = await cluster.entries(away, last.index)
    assert len(seen) == 6_001
    assert seen[-1] == (last.index, b"last")
    status = await cluster.status(away)
    assert status is not None
    assert "installing the snapshot" in cluster.log_file(away).read_text()


async def test_a_front_follows_through_the_restart_of_its_member(cluster: ProcessCluster) -> None:
    await cluster.leader()
    seen: list[tuple[int, bytes]] = []
    async with aclosing(cluster.clients["n1"].follow(0)) as stream:
        for i in range(3):
            position = await cluster.clients["n2"].append(b"%d" % i, timeout_s=TIMEOUT_S)
            async with asyncio.timeout(TIMEOUT_S):
                while not seen or seen[-1][0] < position.index:
                    await add(seen, await anext(stream))
            await cluster.kill("n1")
            await cluster.start("n1")
            await cluster.leader()
    assert [data for _, data in seen] == [b"0", b"1", b"2"]


async def test_a_member_with_another_identity_is_kept_out(cluster: ProcessCluster, tmp_path: Path) -> None:
    leader = await cluster.leader()
    victim = next(node for node in NODES if node != leader)
    await cluster.kill(victim)
    good = cluster.settings[victim]

    # Another CA, or a certificate that names another node: it runs, but nobody talks to it.
    foreign = Authority(tmp_path / "foreign").issue(victim)
    for tls in (foreign, cluster.settings[leader].tls):
        cluster.settings[victim] = replace(good, tls=tls)
        await cluster.start(victim)

        async def isolated() -> bool:
            status = await cluster.status(victim)
            log = cluster.log_file(victim).read_text()
            return status is not None and status.leader is None and "certificate" in log.lower()

        await until(isolated, "it starts and reaches nobody")
        with pytest.raises(LogError):
            await cluster.clients[victim].append(b"intruder", timeout_s=1.5)
        await cluster.kill(victim)

    # Another name on the same data directory: it says so and ends.
    cluster.settings[victim] = replace(good, cluster_id="another-cluster")
    await cluster.start(victim)
    assert await asyncio.wait_for(cluster.processes[victim].wait(), 10) == 1
    assert "belongs to cluster_id 'test-cluster'" in cluster.log_file(victim).read_text()

    cluster.settings[victim] = good
    await cluster.start(victim)
    await cluster.leader()
    position = await cluster.clients[victim].append(b"member", timeout_s=TIMEOUT_S)
    assert [data for _, data in await cluster.entries(victim, position.index)] == [b"member"]
