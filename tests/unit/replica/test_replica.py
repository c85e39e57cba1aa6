"""The replica over a real single-node log: outcomes, linearizable reads, watches, snapshots, and what happens without a
leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controlplane.consensus import RaftNode, RaftSettings
from controlplane.machine.entry import MachineState
from controlplane.machine.events import EventType
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.model.commands import (
    BeginIncarnation,
    DeclareNamespace,
    Delete,
    Envelope,
    Precondition,
    encode_entry,
    seal,
    versions,
)
from controlplane.model.commands.versions import MACHINE_VERSION
from controlplane.model.spec import NamespaceSpec
from controlplane.model.types import Kind, replace
from controlplane.ports import (
    Committed,
    CompactedError,
    NoLeaderError,
    Reign,
    SnapshotInstalled,
    UpgradePendingError,
)
from controlplane.replica import Replica
from controlplane.replica import replica as replica_module
from controlplane.replica.history import History
from controlplane.replica.replica import ReplicaDivergedError
from controlplane.system import SystemClock, Ulids


@asynccontextmanager
async def running(data_dir: Path, **settings: int) -> AsyncIterator[tuple[RaftNode, Replica]]:
    node = RaftNode(RaftSettings(node="n1", cluster_id="c1", data_dir=data_dir, **settings), MachineState("c1"))
    await node.start()
    replica = Replica(node, cluster_id="c1", clock=SystemClock(), ids=Ulids())
    following = asyncio.create_task(replica.run())
    try:
        yield node, replica
    finally:
        following.cancel()
        await asyncio.wait([following])
        await node.stop()


def namespace(name: str, **when: bool) -> DeclareNamespace:
    return DeclareNamespace(name=name, uid=Ulids().new(), spec=NamespaceSpec(), when=Precondition(**when))


def written(name: str) -> Envelope:
    return seal(namespace(name), id=Ulids().new(), at=0, actor="test", key=None)


async def test_a_proposal_answers_what_the_machine_said(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        created = await replica.propose(namespace("demo"), actor="test")
        assert isinstance(created, Applied)
        assert created.change is Change.CREATED
        refused = await replica.propose(namespace("demo", create_only=True), actor="test")
        assert isinstance(refused, Rejected)
        assert refused.code is Code.ALREADY_EXISTS
        assert replica.state.namespaces["demo"].meta.uid == created.uid


async def test_what_not_every_member_can_read_is_not_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "MACHINE_VERSION", MACHINE_VERSION + 1)
    monkeypatch.setitem(versions.SINCE, DeclareNamespace, MACHINE_VERSION + 1)
    async with running(tmp_path) as (node, replica):
        await replica.propose(BeginIncarnation(incarnation=1, term=0), actor="test")
        before = (await node.status()).last_index
        async with asyncio.timeout(10):
            while replica.status is None:  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0.01)
        with pytest.raises(UpgradePendingError, match=rf"still to come: n1 \({MACHINE_VERSION}\)"):
            await replica.propose(namespace("demo"), actor="test")
        assert (await node.status()).last_index == before


async def test_proposals_made_together_share_log_entries(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, replica):
        await replica.propose(namespace("first"), actor="test")
        before = (await node.status()).last_index
        outcomes = await replica.propose_each([namespace(f"n{i}") for i in range(200)], actor="test")
        assert all(isinstance(outcome, Applied) for outcome in outcomes)
        assert (await node.status()).last_index - before <= 20
        assert len(replica.state.namespaces) == 201


async def test_a_restarted_node_has_what_was_acknowledged_and_its_replica_catches_up(tmp_path: Path) -> None:
    async with running(tmp_path, snapshot_entries=20, retain_entries=5) as (_, replica):
        for i in range(60):
            await replica.propose(namespace(f"n{i}"), actor="test")
        digest = replica.state.digest
    async with running(tmp_path) as (_, replica):
        state = await replica.fresh()
        assert len(state.namespaces) == 60
        assert state.digest == digest
        with pytest.raises(CompactedError):
            await anext(replica.watch(0))


async def test_a_replica_that_has_everything_is_caught_up_whatever_elections_wrote(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        await replica.propose(namespace("demo"), actor="test")
    # The restarted node elects itself with an entry of its own, which no replica gets.
    async with running(tmp_path) as (_, replica):
        await replica.fresh()
        await until(lambda: replica.caught_up)


class HeldBack(RaftNode):
    """A log whose followers get nothing while `open` is clear."""

    open: asyncio.Event

    async def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        async for item in super().follow(after):
            await self.open.wait()
            yield item


async def test_a_replica_that_is_a_little_behind_is_caught_up_and_one_that_stays_behind_is_not(tmp_path: Path) -> None:
    node = HeldBack(RaftSettings(node="n1", cluster_id="c1", data_dir=tmp_path), MachineState("c1"))
    node.open = asyncio.Event()
    await node.start()
    writer = Replica(node, cluster_id="c1", clock=SystemClock(), ids=Ulids())
    following = asyncio.create_task(writer.run())
    try:
        node.open.set()
        await writer.propose(namespace("a"), actor="test")
        await until(lambda: writer.caught_up)
        before = (await node.status()).entry_index
        node.open.clear()
        behind = asyncio.create_task(writer.propose(namespace("b"), actor="test"))
        await until(lambda: writer.status is not None and writer.status.entry_index > before)
        assert writer.caught_up, "it has been behind for less than a look"
        await until(lambda: not writer.caught_up)
        node.open.set()
        await behind
        await until(lambda: writer.caught_up)
    finally:
        following.cancel()
        await asyncio.wait([following])
        await node.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def test_a_watcher_sees_every_change_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        await replica.propose(namespace("a"), actor="test")
        start = replica.state.revision
        watcher = replica.watch(start)
        await replica.propose(namespace("b"), actor="test")
        await replica.propose(Delete(kind=Kind.NAMESPACE, name="a"), actor="test")
        async with asyncio.timeout(5):
            events = [await anext(watcher), await anext(watcher)]
        assert [(event.type, event.revision) for event in events] == [
            (EventType.ADDED, start + 1),
            (EventType.DELETED, start + 2),
        ]


async def test_a_reader_that_waits_is_woken_by_the_change(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        await replica.fresh()
        waiting = asyncio.create_task(replica.until(lambda state: "late" in state.namespaces, timeout_s=10))
        await replica.propose(namespace("late"), actor="test")
        state = await waiting
        assert state is not None
        assert await replica.until(lambda state: "never" in state.namespaces, timeout_s=0.01) is None


async def test_without_a_leader_nothing_is_written_and_the_error_says_so(tmp_path: Path) -> None:
    settings = RaftSettings(
        node="n1",
        cluster_id="c1",
        data_dir=tmp_path,
        listen="127.0.0.1:18471",
        peers={"n2": "127.0.0.1:18472", "n3": "127.0.0.1:18473"},
        plaintext_peers_for_tests=True,
    )
    node = RaftNode(settings, MachineState("c1"))
    await node.start()
    replica = Replica(node, cluster_id="c1", clock=SystemClock(), ids=Ulids())
    following = asyncio.create_task(replica.run())
    try:
        with pytest.raises(NoLeaderError):
            await replica.propose(namespace("demo"), actor="test", timeout_s=0.5)
        with pytest.raises(NoLeaderError):
            await replica.fresh(timeout_s=0.5)
        assert not replica.caught_up
        assert not replica.state.namespaces
    finally:
        following.cancel()
        await asyncio.wait([following])
        await node.stop()


async def test_a_watcher_that_had_read_everything_learns_that_the_state_was_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        await replica.propose(namespace("a"), actor="test")
        event = await anext(replica.watch(0))
    history = History(limit=10)
    watcher = history.watch(0)
    history.add([event])
    assert (await anext(watcher)) is event
    history.restart(event.revision + 5)
    async with asyncio.timeout(5):
        with pytest.raises(CompactedError):
            await anext(watcher)


async def test_history_drops_the_oldest_and_tells_slow_watchers(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        watcher = replica.watch(0)
        for i in range(4):
            await replica.propose(namespace(f"n{i}"), actor="test")
        async with asyncio.timeout(5):
            events = [await anext(watcher) for _ in range(4)]
    history = History(limit=2)
    slow = history.watch(0)
    history.add(events[:1])
    assert (await anext(slow)) is events[0]
    history.add(events[1:])
    with pytest.raises(CompactedError, match="too slow"):
        await anext(slow)
    with pytest.raises(CompactedError, match="no longer held"):
        await anext(history.watch(events[0].revision))
    assert (await anext(history.watch(events[1].revision))) is events[2]


async def test_a_replica_that_differs_from_the_log_at_one_index_ends(tmp_path: Path) -> None:
    """Its memory may be broken: what it would answer from now on cannot be trusted, and a new one is cheap."""
    node = RaftNode(RaftSettings(node="n1", cluster_id="c1", data_dir=tmp_path), MachineState("c1"))
    await node.start()
    replica = Replica(node, cluster_id="c1", clock=SystemClock(), ids=Ulids())
    following = asyncio.create_task(replica.run())
    await replica.propose(namespace("demo"), actor="test")
    await until(lambda: replica.status is not None)
    assert not following.done()
    replica._state = replace(replica.state, digest=replica.state.digest ^ 1)
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as raised:
            await following
    assert raised.group_contains(ReplicaDivergedError, match="at index 3 the digest is")
    await node.stop()


async def test_who_leads_comes_from_the_status(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, replica):
        assert (replica.reign, replica.leader) == (None, None)
        await until(lambda: replica.is_leader)
        assert (replica.reign, replica.leader) == (Reign((await node.status()).term, 1), "n1")


async def test_an_incarnation_has_begun_once_the_state_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, replica):
        await until(lambda: replica.is_leader)
        assert replica.begun
        assert replica._status is not None
        replica._status = replace(replica._status, incarnation=2)
        assert not replica.begun
        assert replica.reign is not None
        await replica.propose(BeginIncarnation(incarnation=2, term=replica.reign.term), actor="test")
        replica._status = replace(replica._status, incarnation=2)
        assert replica.begun


async def test_a_confirmed_leader_has_applied_what_was_committed_before_the_question(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, replica):
        for i in range(5):
            await node.append(encode_entry([written(f"n{i}")]), timeout_s=10)
            assert await replica.confirm_leading(timeout_s=10) == Reign((await node.status()).term, 1)
            assert f"n{i}" in replica.state.namespaces


async def test_a_leader_whose_replica_lags_is_not_confirmed(tmp_path: Path) -> None:
    async with running(tmp_path) as (node, _):
        await node.append(encode_entry([written("a")]), timeout_s=10)
        lagging = Replica(node, cluster_id="c1", clock=SystemClock(), ids=Ulids())
        with pytest.raises(NoLeaderError):
            await lagging.confirm_leading(timeout_s=0.1)
