"""Agents are told whom to trust, and asked to renew until they did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from support.harness import Replica
from support.identity import caller_of

from controlplane.api.gateway.session import AgentSession
from controlplane.api.gateway.sessions import Sessions
from controlplane.api.gateway.trusting import AGAIN_S, PER_LOOK, TrustTeller
from controlplane.machine.outcome import Rejected
from controlplane.model.commands import (
    Command,
    EstablishAuthority,
    RenewCertificate,
    RetireAuthority,
    RotateAuthority,
)
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.system import SystemClock, Ulids
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

OLD, NEW = "ab" * 32, "cd" * 32
SEALED = Sealed(key_id="k", wrapped="w", box="b")
LONG_MS = 10**12
ESTABLISH = EstablishAuthority(fingerprint=OLD, certificate="OLD.", key=SEALED)
ROTATE = RotateAuthority(fingerprint=NEW, certificate="NEW.", key=SEALED, succeeds=OLD, crossed="X")


class StoppedClock(SystemClock):
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class Desk:
    """A node's sessions, and what they were told."""

    replica: Replica = field(default_factory=Replica)
    sessions: Sessions = field(default_factory=Sessions)
    clock: StoppedClock = field(default_factory=StoppedClock)
    told: dict[str, list[wire.Trust]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.teller = TrustTeller(self.replica, self.sessions, self.clock)

    def open(self, host: str, session: str = "s1") -> None:
        opened = AgentSession(
            host=host,
            session=session,
            shown=caller_of(host),
            reader=self.replica,
            proposer=self.replica,
            clock=self.clock,
            ids=Ulids(),
            heard=lambda _: None,
            opened=lambda _: {},
        )
        told = self.told[host] = []
        opened.send = lambda message: told.append(message.trust)  # type: ignore[method-assign]
        self.sessions.add(opened)

    async def do(self, *commands: Command) -> None:
        for command in commands:
            assert not isinstance(await self.replica.propose(command, actor="alice"), Rejected)

    async def issue(self, host: str, presented: str, serial: str, authority: str) -> None:
        expires_at = self.clock.now_ms() + LONG_MS
        command = RenewCertificate(
            kind=MemberKind.HOST,
            name=host,
            presented=presented,
            presented_expires_at=0,
            serial=serial,
            expires_at=expires_at,
            authority=authority,
        )
        await self.do(command)


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.do(ESTABLISH)
    await made.issue("h1", "0", "1", OLD)
    made.open("h1")
    return made


async def test_nothing_is_told_of_an_authority_that_was_never_rotated(desk: Desk) -> None:
    desk.teller.look()
    assert desk.told["h1"] == []


async def test_a_host_is_asked_until_it_has_shown_its_new_certificate(desk: Desk) -> None:
    await desk.do(ROTATE)
    desk.teller.look()
    desk.teller.look()
    assert [(each.authorities, each.renew) for each in desk.told["h1"]] == [("NEW.OLD.", True)]
    await desk.issue("h1", "1", "2", NEW)
    desk.teller.look()
    assert len(desk.told["h1"]) == 1, "not so soon"
    desk.clock.now_s += AGAIN_S
    desk.teller.look()
    assert len(desk.told["h1"]) == 2
    await desk.issue("h1", "2", "3", NEW)
    desk.clock.now_s += AGAIN_S
    desk.teller.look()
    assert len(desk.told["h1"]) == 2, "it is done"


async def test_whoever_comes_later_is_told_what_was_retired(desk: Desk) -> None:
    await desk.do(ROTATE, RetireAuthority(fingerprint=OLD, force=True))
    desk.open("h1", "s2")
    desk.teller.look()
    (told,) = desk.told["h1"]
    assert (told.authorities, list(told.retired), told.renew) == ("NEW.", [OLD], False)
    desk.teller.look()
    assert len(desk.told["h1"]) == 1
    desk.open("h1", "s3")
    desk.teller.look()
    assert len(desk.told["h1"]) == 1, "another session does not know what was told to the one before"


async def test_a_thousand_hosts_are_not_asked_at_once(desk: Desk) -> None:
    for number in range(3 * PER_LOOK):
        desk.open(f"many{number}")
    await desk.do(ROTATE)
    for look in range(1, 4):
        desk.teller.look()
        assert sum(map(len, desk.told.values())) == look * PER_LOOK
    desk.teller.look()
    assert sum(map(len, desk.told.values())) == 3 * PER_LOOK + 1


async def test_it_looks_by_itself(desk: Desk) -> None:
    await desk.do(ROTATE)
    task = asyncio.create_task(desk.teller.run())
    async with asyncio.timeout(5):
        while not desk.told["h1"]:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)
    task.cancel()
