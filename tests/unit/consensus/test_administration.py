"""Members that come and go, as an operator sees it: real nodes with real disks and sockets in one event loop."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from unit.consensus.support import LoopCluster, free_ports, peer_settings, until

from controlplane.consensus import ConsensusError, RaftNode, RaftSettings, plan_recovery, recover
from controlplane.consensus.errors import DataDirectoryLockedError, LostDiskError, RemovedError
from controlplane.ports import Member, NoLeaderError, OutcomeUnknownError, RefusedError

TIMEOUT_S = 15.0
LIMITS = {
    "election_min_s": 0.3,
    "election_max_s": 0.6,
    "heartbeat_s": 0.05,
    "snapshot_entries": 50,
    "retain_entries": 5,
}


class Cluster(LoopCluster):
    def __init__(self, directory: Path, names: list[str]) -> None:
        super().__init__(peer_settings(directory, None, names, **LIMITS))
        self.directory = directory

    def joining(self, name: str) -> Member:
        """Settings of one more node, and what the others are told of it."""
        known = {node: settings.listen for node, settings in self.settings.items()}
        (port,) = free_ports(1)
        self.settings[name] = RaftSettings(
            node=name,
            cluster_id="test-cluster",
            data_dir=self.directory / name / "data",
            listen=f"127.0.0.1:{port}",
            peers=known,
            join=True,
            plaintext_peers_for_tests=True,
            **LIMITS,  # type: ignore[arg-type]
        )
        return Member(name, f"127.0.0.1:{port}", "voter", api=f"127.0.0.1:{port + 1}")

    async def follower(self) -> str:
        leader = await self.leader()
        return next(name for name in self.nodes if name != leader)

    async def voters(self, name: str) -> set[str]:
        return {m.node for m in (await self.nodes[name].status()).members if m.role == "voter"}

    async def same(self, *names: str) -> None:
        """Wait until these have the same state."""

        async def equal() -> bool:
            return len({self.states[name].digest() for name in names or self.nodes}) == 1

        await until(equal, "the same state")


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, ["n1", "n2", "n3"])
    await cluster.start()
    await cluster.leader()
    yield cluster
    await cluster.stop()


async def failure(node: RaftNode) -> ConsensusError:
    with pytest.raises(ConsensusError) as caught:
        async with asyncio.timeout(TIMEOUT_S):
            await node.wait_failed()
    return caught.value


async def write(node: RaftNode, count: int = 5) -> None:
    await asyncio.gather(*(node.append(b"x%d" % i, timeout_s=TIMEOUT_S) for i in range(count)))


# -- joining -----------------------------------------------------------------------------------------------------------


async def test_a_node_joins_catches_up_and_votes_whoever_is_asked(three: Cluster) -> None:
    for _ in range(20):
        await write(three.nodes["n1"])
    member = three.joining("n4")
    await three.start("n4")
    assert await three.nodes["n4"].status() is not None
    assert (await three.nodes["n4"].status()).role == "learner"
    with pytest.raises(NoLeaderError):
        await three.nodes["n4"].append(b"from nobody", timeout_s=0.3)
    await three.nodes[await three.follower()].add_member(member, timeout_s=TIMEOUT_S)
    leader = await three.leader()
    status = await three.nodes[leader].status()
    found = {m.node: m for m in status.members}
    assert found["n4"].role == "voter"
    assert found["n4"].api == member.api
    assert all(m.store for m in found.values()), "every disk was met before it was written down"
    assert status.configuration_index <= status.commit_index
    assert status.incarnation == 1
    await three.nodes["n4"].append(b"from a member", timeout_s=TIMEOUT_S)
    await three.same()
    assert (await three.nodes["n4"].status()).snapshot_index > 0, "the log below was compacted, so a snapshot came"
    # Asked again, it is so already.
    await three.nodes["n4"].add_member(member, timeout_s=TIMEOUT_S)
    await three.stop("n4")
    await three.start("n4")
    assert await three.voters("n4") == {"n1", "n2", "n3", "n4"}


async def test_a_node_that_is_not_there_stays_a_learner_and_the_refusal_says_how_far_it_is(three: Cluster) -> None:
    member = three.joining("n4")
    with pytest.raises(RefusedError, match=r"n4 does not answer .* it has 0 of \d+ entries\. It stays a learner"):
        await three.nodes[await three.follower()].add_member(member, timeout_s=1.0)
    assert await three.voters("n1") == {"n1", "n2", "n3"}
    with pytest.raises(RefusedError, match="n4 does not answer"):
        await three.nodes["n1"].promote_member("n4", timeout_s=0.5)
    await three.nodes["n1"].remove_member("n4", timeout_s=TIMEOUT_S)
    with pytest.raises(RefusedError, match="never accepted again"):
        await three.nodes["n2"].add_member(member, timeout_s=TIMEOUT_S)


async def test_a_learner_is_promoted_when_told_to(three: Cluster) -> None:
    member = replace(three.joining("n4"), role="learner")
    await three.start("n4")
    await three.nodes["n1"].add_member(member, timeout_s=TIMEOUT_S)
    await three.same()
    assert (await three.nodes["n4"].status()).role == "learner"
    await three.nodes["n4"].promote_member("n4", timeout_s=TIMEOUT_S)
    assert await three.voters(await three.leader()) == {"n1", "n2", "n3", "n4"}


async def test_without_a_majority_no_change_is_made(three: Cluster) -> None:
    leader = await three.leader()
    others = [name for name in three.nodes if name != leader]
    await three.stop(*others)
    with pytest.raises((RefusedError, NoLeaderError, OutcomeUnknownError)):
        await three.nodes[leader].remove_member(others[0], timeout_s=0.3)
    await three.start(*others)
    await three.leader()
    await write(three.nodes[leader])


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_a_removed_node_stops_and_stays_out(three: Cluster) -> None:
    gone = await three.follower()
    await three.nodes[gone].remove_member(gone, timeout_s=TIMEOUT_S)
    error = await failure(three.nodes[gone])
    assert isinstance(error, RemovedError)
    assert f"{gone} was removed from the cluster" in str(error)
    await write(three.nodes[await _other(three, gone)])
    await three.stop(gone)
    await three.start(gone)
    assert isinstance(await failure(three.nodes[gone]), RemovedError)


async def _other(cluster: Cluster, name: str) -> str:
    return next(each for each in cluster.nodes if each != name)


async def test_a_leader_hands_over_before_it_is_removed(three: Cluster) -> None:
    leader, asked = await three.leader(), await three.follower()
    await three.nodes[asked].remove_member(leader, timeout_s=TIMEOUT_S)
    assert isinstance(await failure(three.nodes[leader]), RemovedError)
    await three.stop(leader)
    assert await three.leader() != leader
    await write(three.nodes[asked])


async def test_down_to_one_node_and_back_to_three(three: Cluster) -> None:
    await write(three.nodes["n1"])
    for gone in ("n3", "n2"):
        await three.nodes["n1"].remove_member(gone, timeout_s=TIMEOUT_S)
        await failure(three.nodes[gone])
        await three.stop(gone)
    with pytest.raises(RefusedError, match="n1 is the only voter"):
        await three.nodes["n1"].remove_member("n1", timeout_s=TIMEOUT_S)
    await write(three.nodes["n1"])
    await three.stop("n1")
    await three.start("n1")
    await write(three.nodes["n1"])
    for name in ("n4", "n5"):
        member = three.joining(name)
        await three.start(name)
        await three.nodes["n1"].add_member(member, timeout_s=TIMEOUT_S)
    await three.same()
    assert await three.voters("n1") == {"n1", "n4", "n5"}


async def test_the_log_counts_and_not_the_settings(three: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    gone = await three.follower()
    stays = await _other(three, gone)
    await three.nodes[stays].remove_member(gone, timeout_s=TIMEOUT_S)
    await three.stop()
    settings = three.settings[stays]
    three.settings[stays] = replace(settings, peers={**settings.peers, "n9": "127.0.0.1:9"})
    with caplog.at_level(logging.WARNING):
        await three.start(*(name for name in three.settings if name != gone))
    assert await three.voters(stays) == set(three.settings) - {gone}
    assert f"{stays}: the members are" in caplog.text
    await three.leader()
    await write(three.nodes[stays])


async def test_nodes_that_moved_find_each_other_by_what_they_say(three: Cluster) -> None:
    """Two of three move after the log learned their old addresses: the third hears where they are, which makes a
    majority, and that is enough to bring the log up to date.
    """
    member = three.joining("n4")
    await three.start("n4")
    await three.nodes["n1"].add_member(member, timeout_s=TIMEOUT_S)
    await three.nodes["n1"].remove_member("n4", timeout_s=TIMEOUT_S)
    await three.stop()
    ports = dict(zip(("n1", "n2"), free_ports(2), strict=True))
    for name, port in ports.items():
        three.settings[name] = replace(three.settings[name], listen=f"127.0.0.1:{port}")
    await three.start("n1", "n2", "n3")
    for name, port in ports.items():
        await three.nodes["n3"].add_member(Member(name, f"127.0.0.1:{port}", "voter"), timeout_s=TIMEOUT_S)
    leader = await three.leader()
    await write(three.nodes["n2"])
    await three.same("n1", "n2", "n3")
    found = {m.node: m.address for m in (await three.nodes[leader].status()).members}
    assert found == {name: three.settings[name].listen for name in ("n1", "n2", "n3")}


# -- disks -------------------------------------------------------------------------------------------------------------


async def test_a_node_with_an_empty_disk_is_refused_under_its_old_id_and_welcome_under_a_new_one(
    three: Cluster,
) -> None:
    await write(three.nodes["n1"])
    lost = await three.follower()
    await three.stop(lost)
    shutil.rmtree(three.settings[lost].data_dir)
    before = (await three.nodes[await three.leader()].status()).term
    await three.start(lost)
    error = await failure(three.nodes[lost])
    assert isinstance(error, LostDiskError)
    assert f"knows {lost} with another disk" in str(error)
    assert f"Remove {lost} from the cluster" in str(error)
    await three.stop(lost)
    leader = await three.leader()
    assert (await three.nodes[leader].status()).term == before
    member = three.joining("n4")
    await three.start("n4")
    await three.nodes[leader].add_member(member, timeout_s=TIMEOUT_S)
    await three.nodes[leader].remove_member(lost, timeout_s=TIMEOUT_S)
    await write(three.nodes["n4"])
    await three.same()


# -- recovery ----------------------------------------------------------------------------------------------------------


async def test_a_survivor_goes_on_alone_and_the_old_members_cannot_come_back(three: Cluster) -> None:
    await write(three.nodes["n1"], 10)
    await three.same()
    await three.stop()
    settings = three.settings["n1"]

    def plan() -> object:
        return plan_recovery(settings.data_dir, "n1", "test-cluster", address=settings.listen)

    first = plan_recovery(settings.data_dir, "n1", "test-cluster", address=settings.listen)
    assert (first.before.incarnation, first.after.incarnation) == (1, 2)
    assert first.lost == ("n2", "n3")
    assert "n2, n3: make sure that these nodes are stopped" in str(first)
    assert plan() == first, "planning changes nothing"
    recover(first)
    with pytest.raises(ConsensusError, match="has changed since the plan was made"):
        recover(first)
    await three.start("n1")
    await three.leader()
    assert [e for e in three.states["n1"].entries if e.startswith(b"x")] == three.states["n1"].entries
    await write(three.nodes["n1"])
    status = await three.nodes["n1"].status()
    assert (status.incarnation, [m.node for m in status.members]) == (2, ["n1"])
    with pytest.raises(DataDirectoryLockedError):
        plan()
    # The old ones may even have a majority among them: the two clusters never mix.
    await three.start("n2", "n3")
    await until(lambda: _leads(three.nodes["n2"], three.nodes["n3"]), "the old majority goes on by itself")
    before = len(three.states["n1"].entries)
    await write(three.nodes["n2"])
    assert len(three.states["n1"].entries) == before
    assert (await three.nodes["n1"].status()).role == "leader"
    await three.stop("n2", "n3")
    member = three.joining("n4")
    three.settings["n4"] = replace(three.settings["n4"], peers={"n1": settings.listen})
    await three.start("n4")
    await three.nodes["n1"].add_member(member, timeout_s=TIMEOUT_S)
    await three.same()


async def _leads(*nodes: RaftNode) -> bool:
    return any([(await node.status()).role == "leader" for node in nodes])


async def test_recovery_needs_a_member_s_directory(tmp_path: Path) -> None:
    with pytest.raises(ConsensusError, match="holds no log"):
        plan_recovery(tmp_path, "n1", "c", address="h:1")
    cluster = Cluster(tmp_path, ["n1", "n2"])
    cluster.joining("n3")
    await cluster.start("n3")
    await cluster.stop("n3")
    with pytest.raises(ConsensusError, match="n3 has joined no cluster yet"):
        plan_recovery(cluster.settings["n3"].data_dir, "n3", "test-cluster", address="h:1")
    with pytest.raises(ConsensusError, match="belongs to node 'n3'"):
        plan_recovery(cluster.settings["n3"].data_dir, "n1", "test-cluster", address="h:1")
