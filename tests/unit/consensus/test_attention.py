"""A node that leads while nobody of its own is there to use that lets another one lead."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from unit.consensus.support import LoopCluster, peer_settings, until

from controlplane.consensus import LogClient, attention, serve
from controlplane.consensus.attention import FIRST_S, PERIOD_S, RETRY_S, Attention

PATIENCE_S = 4.0


def looks(watched: Attention, begin_s: float, end_s: float, *, heard: bool = False) -> list[float]:
    """When it says that it is enough, looked at in time."""
    due: list[float] = []
    at_s = begin_s
    while at_s < end_s:
        at_s += PERIOD_S
        if heard:
            watched.heard(at_s)
        if watched.look(at_s):
            due.append(at_s)
    return due


def test_a_front_that_asks_is_enough() -> None:
    watched = Attention(PATIENCE_S, 0.0)
    assert looks(watched, 0.0, 100.0, heard=True) == []
    (first, *_) = looks(watched, 100.0, 110.0)
    assert first == 100.0 + PATIENCE_S + PERIOD_S


def test_the_first_front_has_time_to_come() -> None:
    (first, second, *_) = looks(Attention(PATIENCE_S, 0.0), 0.0, 60.0)
    assert first == FIRST_S + PATIENCE_S + PERIOD_S
    assert second == first + RETRY_S + PERIOD_S, "not again and again"


def test_the_own_stall_says_nothing_about_fronts() -> None:
    watched = Attention(PATIENCE_S, 0.0)
    looks(watched, 0.0, 10.0, heard=True)
    assert not watched.look(500.0)
    assert looks(watched, 500.0, 500.0 + PATIENCE_S) == []


@pytest.fixture
async def trio(tmp_path: Path) -> LoopCluster:
    cluster = LoopCluster(peer_settings(tmp_path, None, ["n1", "n2", "n3"]))
    await cluster.start()
    return cluster


async def test_the_leadership_goes_to_another_node_and_the_log_goes_on(
    trio: LoopCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "FIRST_S", 0.2)
    monkeypatch.setattr("controlplane.consensus.server.PERIOD_S", 0.05)
    serving = {
        name: asyncio.create_task(serve(node, tmp_path / name / "run" / "log.sock", front_patience_s=0.5))
        for name, node in trio.nodes.items()
    }
    clients = {name: LogClient(tmp_path / name / "run" / "log.sock") for name in trio.nodes}
    attended = set(trio.nodes)

    async def front(name: str) -> None:
        while name in attended:
            await clients[name].status()
            await asyncio.sleep(0.05)

    fronts = [asyncio.create_task(front(name)) for name in trio.nodes]
    try:
        old = await trio.leader()
        term = (await trio.nodes[old].status()).term
        await asyncio.sleep(1.5)
        assert (await trio.leader(), (await trio.nodes[old].status()).term) == (old, term)
        attended.discard(old)

        async def another() -> bool:
            return (await trio.nodes[old].status()).leader not in (None, old)

        await until(another, "another leader", 5.0)
        new = await trio.leader()
        assert await clients[new].append(b"x", timeout_s=5.0)
    finally:
        attended.clear()
        await asyncio.gather(*fronts)
        for client in clients.values():
            await client.aclose()
        for task in serving.values():
            task.cancel()
        for task in serving.values():
            with suppress(asyncio.CancelledError):
                await task
