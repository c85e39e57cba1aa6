"""Heartbeats of many sessions in few questions, and their answers where they belong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from support.harness import Replica
from support.identity import caller_of
from support.leases import FakeKeeper

from controlplane.api.gateway import renewals
from controlplane.api.gateway.link import Link
from controlplane.api.gateway.renewals import LeadersKeeper, Renewals
from controlplane.api.gateway.session import AgentSession
from controlplane.api.gateway.sessions import Sessions
from controlplane.api.gateway.translate import decode_grants, encode_grant, encode_grants
from controlplane.ports import Grant, Heartbeat, NoLeaderError
from controlplane.system import SystemClock, Ulids
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire


class Desk:
    """The renewals of a node, its sessions, and what those were sent."""

    def __init__(self) -> None:
        self.sessions = Sessions()
        self.keeper = FakeKeeper()
        self.renewals = Renewals(self.keeper, self.sessions, SystemClock())
        self.sent: dict[str, list[wire.ToAgent]] = {}

    def open(self, host: str, session: str = "s1") -> AgentSession:
        replica = Replica()
        opened = AgentSession(
            host=host,
            session=session,
            shown=caller_of(host),
            reader=replica,
            proposer=replica,
            clock=SystemClock(),
            ids=Ulids(),
            heard=self.renewals.heard,
            opened=lambda _: {},
        )
        sent = self.sent.setdefault(f"{host}/{session}", [])
        opened.send = sent.append  # type: ignore[method-assign]
        self.sessions.add(opened)
        return opened

    def heartbeat(self, host: str, sequence: int, session: str = "s1") -> None:
        self.renewals.heard(Heartbeat(host, session, sequence))

    def granted(self, host: str, session: str = "s1") -> list[int]:
        return [message.grant.sequence for message in self.sent[f"{host}/{session}"]]

    async def until_granted(self, host: str, sequence: int) -> None:
        async with asyncio.timeout(5):
            while sequence not in self.granted(host):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.001)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.create_task(desk.renewals.run())
    yield desk
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])


async def test_an_idle_node_asks_at_once_and_a_busy_one_for_many_together(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals, "GATHER_S", 0.1)
    for number in range(50):
        desk.open(f"h{number}")
    begun_s = asyncio.get_running_loop().time()
    desk.heartbeat("h0", 1)
    await desk.until_granted("h0", 1)
    assert asyncio.get_running_loop().time() - begun_s < 0.09
    for number in range(50):
        desk.heartbeat(f"h{number}", 2)
        await asyncio.sleep(0)
    await desk.until_granted("h49", 2)
    assert [len(asked) for asked in desk.keeper.asked] == [1, 50]


async def test_only_the_newest_heartbeat_of_a_host_is_asked_for(desk: Desk) -> None:
    desk.open("h1")
    for sequence in (1, 2, 3):
        desk.heartbeat("h1", sequence)
    await desk.until_granted("h1", 3)
    assert desk.granted("h1") == [3]


async def test_what_is_refused_is_not_asked_for_again(desk: Desk) -> None:
    desk.open("h1")
    desk.open("h2")
    desk.keeper.refused = {"h1"}
    desk.heartbeat("h1", 1)
    desk.heartbeat("h2", 1)
    await desk.until_granted("h2", 1)
    desk.heartbeat("h2", 2)
    await desk.until_granted("h2", 2)
    assert desk.granted("h1") == []
    assert [[each.host for each in asked] for asked in desk.keeper.asked] == [["h1", "h2"], ["h2"]]


async def test_without_a_leader_it_is_asked_for_until_there_is_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewals, "RETRY_S", 0.01)
    desk.keeper.leads = False
    desk.open("h1")
    desk.open("h2")
    desk.heartbeat("h1", 1)
    desk.heartbeat("h2", 1)
    await asyncio.sleep(0.05)
    desk.heartbeat("h2", 2)
    assert desk.granted("h1") == []
    desk.keeper.leads = True
    await desk.until_granted("h1", 1)
    await desk.until_granted("h2", 2)
    assert desk.granted("h2") == [2]


async def test_a_session_that_is_gone_is_neither_asked_for_nor_answered(desk: Desk) -> None:
    old = desk.open("h1")
    desk.heartbeat("h1", 1)
    desk.sessions.remove(old)
    desk.open("h2")
    desk.heartbeat("h2", 1)
    await desk.until_granted("h2", 1)
    assert [[each.host for each in asked] for asked in desk.keeper.asked] == [["h2"]]


async def test_an_answer_that_comes_after_its_session_is_dropped(desk: Desk) -> None:
    grant = desk.keeper.grant

    async def slow(asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        desk.open("h1", "s2")
        return await grant(asked, timeout_s=timeout_s)

    desk.keeper.grant = slow  # type: ignore[method-assign]
    desk.open("h1")
    desk.heartbeat("h1", 1)
    desk.open("h2")
    desk.heartbeat("h2", 1)
    await desk.until_granted("h2", 1)
    assert (desk.granted("h1"), desk.granted("h1", "s2")) == ([], [])


class Relay(Link):
    """To a leader elsewhere."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def grant(self, leader: str, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        self.asked.append(leader)
        return []


async def test_the_leader_is_asked_wherever_it_is() -> None:
    leaders: list[str | None] = ["n1", "n2", None]
    own, relay = FakeKeeper(), Relay()
    keeper = LeadersKeeper("n1", own, relay, lambda: leaders.pop(0))
    heartbeat = Heartbeat("h1", "s1", 1)
    assert len(await keeper.grant([heartbeat], timeout_s=1)) == 1
    assert await keeper.grant([heartbeat], timeout_s=1) == []
    with pytest.raises(NoLeaderError):
        await keeper.grant([heartbeat], timeout_s=1)
    assert (own.asked, relay.asked) == ([[heartbeat]], ["n2"])


@pytest.mark.parametrize("ttl_s", [10.0, 10.0007, 0.1 + 0.2, 3599.9999])
def test_a_grant_never_grows_on_its_way(ttl_s: float) -> None:
    grant = Grant(host="h1", session="s1", sequence=7, ttl_s=ttl_s, grace_s=2.0)
    (relayed,) = decode_grants(encode_grants([grant]))
    sent = encode_grant(relayed)
    assert (relayed.host, relayed.session, sent.sequence, sent.grace_ms) == ("h1", "s1", 7, 2000)
    assert ttl_s - 0.002 < sent.ttl_ms / 1000 <= ttl_s
