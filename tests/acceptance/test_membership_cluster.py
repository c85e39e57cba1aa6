"""Members of a cluster of processes over mutual TLS come, fail, lose their disks and leave, while it takes writes."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from unit.consensus.support import Authority, ProcessCluster, free_ports, peer_settings, until

from controlplane.consensus import RaftSettings, plan_recovery, recover
from controlplane.ports import LogError, LogStatus, Member, RefusedError

TIMEOUT_S = 15.0
SLOW_S = 60.0
"""Until a process has started, or an election is over, on the slowest of machines."""

pytestmark = pytest.mark.timeout(300)


class Writers:
    """Write through whichever members answer, and remember what was acknowledged."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.acknowledged: list[bytes] = []
        self._cluster = cluster
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        number = 0
        while True:
            for node in list(self._cluster.processes):
                number += 1
                entry = b"%d" % number
                try:
                    await self._cluster.clients[node].append(entry, timeout_s=1.0)
                except LogError:
                    continue
                self.acknowledged.append(entry)

    async def more(self, count: int = 50) -> None:
        goal = len(self.acknowledged) + count

        async def reached() -> bool:
            return len(self.acknowledged) >= goal

        await until(reached, f"{count} more acknowledged writes", 30)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    authority = Authority(tmp_path / "pki")
    limits = {"snapshot_entries": 200, "retain_entries": 20}
    cluster = ProcessCluster(peer_settings(tmp_path, authority, ["n1", "n2", "n3"], **limits), tmp_path)
    for name in ("n4", "n5"):
        (port,) = free_ports(1)
        contacts = {node: each.listen for node, each in cluster.settings.items() if node != "n4"}
        cluster.extend(
            RaftSettings(
                node=name,
                cluster_id="test-cluster",
                data_dir=tmp_path / name / "data",
                listen=f"127.0.0.1:{port}",
                peers=contacts,
                join=True,
                tls=authority.issue(name),
                **limits,  # type: ignore[arg-type]
            )
        )
    await cluster.start("n1", "n2", "n3")
    yield cluster
    await cluster.close()


def as_member(cluster: ProcessCluster, node: str, role: str = "voter") -> Member:
    return Member(node, cluster.settings[node].listen, role)  # type: ignore[arg-type]


async def status(cluster: ProcessCluster, node: str) -> LogStatus:
    found = await until(lambda: cluster.status(node), f"{node} answers", SLOW_S)
    assert isinstance(found, LogStatus)
    return found


async def leader_of(cluster: ProcessCluster) -> str:
    """Who leads with a quorum, whatever those say that are no members."""

    async def leads() -> str | None:
        found = [await cluster.status(node) for node in cluster.processes]
        leading = [each for each in found if each is not None and each.role == "leader" and each.has_quorum]
        return max(leading, key=lambda each: each.term).node if leading else None

    return str(await until(leads, "a leader", SLOW_S))


async def follower(cluster: ProcessCluster, among: Sequence[str] = ("n1", "n2", "n3")) -> str:
    leader = await leader_of(cluster)
    return next(node for node in among if node != leader)


async def holds_all(cluster: ProcessCluster, node: str, acknowledged: list[bytes]) -> None:
    last = (await status(cluster, await leader_of(cluster))).last_index
    await cluster.clients[node].append(b"end", timeout_s=TIMEOUT_S)
    seen = {data for _, data in await cluster.entries(node, last)}
    missing = set(acknowledged) - seen
    assert not missing, f"{node} lacks {len(missing)} acknowledged writes"


async def test_a_life_of_a_cluster(cluster: ProcessCluster) -> None:
    """Grow by a learner, promote it, lose and remove a node, refuse its empty disk, shrink to one, lose the quorum."""
    await leader_of(cluster)
    writers = Writers(cluster)
    await writers.more(300)

    # A fourth node joins as a learner and is promoted, asked for through any member.
    await cluster.start("n4")
    await cluster.clients[await follower(cluster)].add_member(as_member(cluster, "n4", "learner"), timeout_s=TIMEOUT_S)

    async def follows() -> bool:
        found = await status(cluster, "n4")
        return found.role == "learner" and found.leader is not None and found.snapshot_index > 0

    await until(follows, "the learner got a snapshot and follows", SLOW_S)
    await cluster.clients["n4"].promote_member("n4", timeout_s=TIMEOUT_S)
    await writers.more()

    # One node dies for good, and is removed; the others go on the whole time.
    dead = await follower(cluster)
    await cluster.kill(dead)
    await writers.more()
    leader = await leader_of(cluster)
    await cluster.clients[leader].remove_member(dead, timeout_s=TIMEOUT_S)
    await writers.more()

    # It comes back with an empty disk under its old name, and with its old disk: neither takes part.
    kept = cluster.directory / dead / "kept"
    cluster.settings[dead].data_dir.rename(kept)
    await cluster.start(dead)
    assert await cluster.ended(dead, SLOW_S) == 1
    shutil.rmtree(cluster.settings[dead].data_dir)
    kept.rename(cluster.settings[dead].data_dir)
    await cluster.start(dead)
    assert await cluster.ended(dead, SLOW_S) == 1
    assert f"{dead} was removed from the cluster" in cluster.log_file(dead).read_text()
    with pytest.raises(RefusedError, match="never accepted again"):
        await cluster.clients[leader].add_member(as_member(cluster, dead), timeout_s=TIMEOUT_S)

    # A member loses its disk: it is refused under its id while it still is a member.
    wiped = await follower(cluster, [node for node in ("n1", "n2", "n3") if node != dead])
    await cluster.kill(wiped)
    shutil.rmtree(cluster.settings[wiped].data_dir)
    await cluster.start(wiped)
    assert await cluster.ended(wiped, SLOW_S) == 1
    assert f"knows {wiped} with another disk" in cluster.log_file(wiped).read_text()
    await writers.more()

    # Its place is taken by a new id, then the old one is removed; then the cluster shrinks to one node.
    leader = await leader_of(cluster)
    await cluster.start("n5")
    await cluster.clients[leader].add_member(as_member(cluster, "n5"), timeout_s=TIMEOUT_S)
    await cluster.clients[leader].remove_member(wiped, timeout_s=TIMEOUT_S)
    await writers.more()
    for gone in [node for node in cluster.processes if node != "n5"]:
        await cluster.clients["n5"].remove_member(gone, timeout_s=TIMEOUT_S)
        assert await cluster.ended(gone, SLOW_S) == 1
    await writers.more()
    assert {m.node for m in (await status(cluster, "n5")).members} == {"n5"}
    await writers.stop()
    await holds_all(cluster, "n5", writers.acknowledged)


async def test_a_quorum_is_lost_and_a_survivor_recovered(cluster: ProcessCluster) -> None:
    await leader_of(cluster)
    writers = Writers(cluster)
    await writers.more(250)
    await writers.stop()
    await cluster.clients["n1"].append(b"last", timeout_s=TIMEOUT_S)
    last = (await status(cluster, await leader_of(cluster))).last_index

    async def level() -> bool:
        return (await status(cluster, "n3")).applied_index >= last

    await until(level, "the survivor holds everything", SLOW_S)
    await cluster.kill("n1", "n2")
    with pytest.raises(LogError):
        await cluster.clients["n3"].append(b"nobody", timeout_s=0.5)
    await cluster.kill("n3", how=signal.SIGTERM)
    settings = cluster.settings["n3"]
    plan = plan_recovery(settings.data_dir, "n3", "test-cluster", address=settings.listen)
    assert plan.lost == ("n1", "n2")
    recover(plan)
    await cluster.start("n3")
    assert await leader_of(cluster) == "n3"
    found = await status(cluster, "n3")
    assert (found.incarnation, [m.node for m in found.members]) == (2, ["n3"])
    await holds_all(cluster, "n3", [*writers.acknowledged, b"last"])

    # An old member comes back with its log: it is refused, and the recovered cluster does not notice.
    await cluster.start("n1")

    async def refused() -> bool:
        return "belongs to incarnation" in cluster.log_file("n1").read_text()

    await until(refused, "the old member is refused", SLOW_S)
    assert (await status(cluster, "n1")).leader is None
    await cluster.kill("n1")

    # The machine joins again under a new id and with a new disk.
    cluster.settings["n4"] = replace(cluster.settings["n4"], peers={"n3": settings.listen})
    await cluster.start("n4")
    await cluster.clients["n3"].add_member(as_member(cluster, "n4"), timeout_s=TIMEOUT_S)
    await holds_all(cluster, "n4", [*writers.acknowledged, b"last"])
