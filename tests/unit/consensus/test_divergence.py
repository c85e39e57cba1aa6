"""A member whose state is not the others' stops, says so, stays away, and is seen by them; over real connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from unit.consensus.support import ListState, peer_settings, until

from controlplane.consensus import RaftNode, RaftSettings
from controlplane.consensus.errors import DivergedError
from controlplane.ports import LogError

TIMEOUT_S = 20.0


class WrongState(ListState):
    """Applies every entry; when told to, one of them wrongly."""

    wrong = False

    def apply(self, index: int, term: int, entry: bytes) -> None:
        super().apply(index, term, b"not this" if self.wrong and len(self.entries) % 7 == 6 else entry)


class Cluster:
    def __init__(self, directory: Path, names: list[str]) -> None:
        self.settings = peer_settings(directory, None, names)
        self.states = {name: WrongState() for name in names}
        self.nodes = {name: RaftNode(self.settings[name], self.states[name]) for name in names}

    async def start(self) -> None:
        for node in self.nodes.values():
            await node.start()

    async def leader(self, *among: str) -> str:
        """The one that all follow, and it is one of them."""

        async def found() -> str | None:
            leaders = {(await self.nodes[name].status()).leader for name in among or self.nodes}
            leader = leaders.pop()
            return leader if not leaders and leader in (among or self.nodes) else None

        return str(await until(found, "a leader"))

    async def write(self, through: str, count: int = 20) -> None:
        for i in range(count):
            await self.nodes[through].append(b"%d" % i, timeout_s=TIMEOUT_S)

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.stop()


async def failure(node: RaftNode) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(DivergedError) as raised:
            await node.wait_failed()
    return str(raised.value)


async def restarted(settings: RaftSettings) -> tuple[RaftNode, ListState]:
    state = ListState()
    node = RaftNode(settings, state)
    await node.start()
    return node, state


@pytest.mark.parametrize("leads", [False, True])
async def test_the_one_that_applied_wrongly_stops_and_the_others_go_on(tmp_path: Path, leads: bool) -> None:
    cluster = Cluster(tmp_path, ["n1", "n2", "n3"])
    await cluster.start()
    leader = await cluster.leader()
    wrong = leader if leads else next(name for name in cluster.nodes if name != leader)
    right = [name for name in cluster.nodes if name != wrong]
    await cluster.write(leader)
    cluster.states[wrong].wrong = True
    with suppress(LogError):
        # It may be found out in the middle of it.
        await cluster.write(leader)
    reason = await failure(cluster.nodes[wrong])
    assert "a majority of the voters has" in reason
    await cluster.nodes[wrong].stop()
    await cluster.leader(*right)
    await cluster.write(right[0])
    for name in right:

        async def shown(name: str = name) -> bool:
            status = await cluster.nodes[name].status()
            return [finding.node for finding in status.divergences] == [wrong] and status.checked_index > 20

        await until(shown, f"{name} shows who diverged")
    # It does not come back by itself, and says what to do.
    with pytest.raises(DivergedError, match="Remove this node from the cluster and add it under a new id"):
        await RaftNode(cluster.settings[wrong], ListState()).start()
    # Its log was right all the time, so once the operator allows it the state is built anew and agrees.
    (cluster.settings[wrong].data_dir / "diverged").unlink()
    cluster.nodes[wrong], state = await restarted(cluster.settings[wrong])
    await cluster.write(right[0])

    async def healed() -> bool:
        status = await cluster.nodes[right[0]].status()
        return status.divergences == () and state.digest() == cluster.states[right[0]].digest()

    await until(healed, "everyone agrees again", timeout_s=TIMEOUT_S)
    await cluster.stop()


async def test_of_two_the_follower_stops(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, ["n1", "n2"])
    await cluster.start()
    leader = await cluster.leader()
    follower = next(name for name in cluster.nodes if name != leader)
    cluster.states[leader].wrong = True
    with suppress(LogError):
        await cluster.write(leader)
    assert "no majority of the voters says which is right" in await failure(cluster.nodes[follower])

    async def shown() -> bool:
        return [finding.node for finding in (await cluster.nodes[leader].status()).divergences] == [follower]

    await until(shown, "the leader shows it")
    await cluster.stop()


async def test_members_that_agree_say_how_far(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, ["n1", "n2", "n3"])
    await cluster.start()
    await cluster.write(await cluster.leader(), count=200)

    async def checked() -> bool:
        statuses = [await node.status() for node in cluster.nodes.values()]
        return all(status.checked_index == status.applied_index for status in statuses)

    await until(checked, "everybody's last hash is confirmed")
    for node in cluster.nodes.values():
        assert (await node.status()).divergences == ()
    await cluster.stop()
