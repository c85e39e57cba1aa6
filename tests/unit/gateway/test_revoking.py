"""Sessions end when the certificates that they stand on count no more, and only then."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from support.harness import Replica
from support.identity import caller_of, issuer_of

from controlplane.api.gateway.peer import Caller
from controlplane.api.gateway.revoking import SessionCutter, withdrawn
from controlplane.api.gateway.session import AgentSession
from controlplane.api.gateway.sessions import Sessions
from controlplane.identity import issuing
from controlplane.machine.outcome import Rejected
from controlplane.model.commands import (
    Command,
    EstablishAuthority,
    RenewCertificate,
    RetireAuthority,
    RevokeCertificates,
    RotateAuthority,
)
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.system import SystemClock, Ulids

SEALED = Sealed(key_id="k", wrapped="w", box="b")
OLD, NEW = issuer_of(), issuer_of()
OF_OLD, OF_NEW = (issuing.fingerprint(each.certificate) for each in (OLD, NEW))
PEM_OF_OLD, PEM_OF_NEW = (issuing.certificate_pem(each.certificate).decode() for each in (OLD, NEW))
ESTABLISH = EstablishAuthority(fingerprint=OF_OLD, certificate=PEM_OF_OLD, key=SEALED)
ROTATE = RotateAuthority(fingerprint=OF_NEW, certificate=PEM_OF_NEW, key=SEALED, succeeds=OF_OLD, crossed="X")
RETIRE = RetireAuthority(fingerprint=OF_OLD)


@dataclass
class Desk:
    replica: Replica = field(default_factory=Replica)
    sessions: Sessions = field(default_factory=Sessions)

    def __post_init__(self) -> None:
        self.cutter = SessionCutter(self.replica, self.sessions)

    def open(self, shown: Caller) -> AgentSession:
        opened = AgentSession(
            host=shown.party.name,
            session="s1",
            shown=shown,
            reader=self.replica,
            proposer=self.replica,
            clock=SystemClock(),
            ids=Ulids(),
            heard=lambda _: None,
            opened=lambda _: {},
        )
        self.sessions.add(opened)
        return opened

    def ends(self, session: AgentSession) -> str | None:
        """Why, once somebody has looked."""
        self.cutter.look(self.replica.state)
        return session._goodbye.reason if session._goodbye is not None else None

    async def do(self, *commands: Command) -> None:
        for command in commands:
            assert not isinstance(await self.replica.propose(command, actor="alice"), Rejected)

    async def renew(self, shown: Caller, issuer: issuing.Issuer) -> Caller:
        new = caller_of(shown.party.name, issuer)
        command = RenewCertificate(
            kind=MemberKind.HOST,
            name=shown.party.name,
            presented=shown.serial,
            presented_expires_at=round(shown.expires_at_s * 1000),
            serial=new.serial,
            expires_at=round(new.expires_at_s * 1000),
            authority=issuing.fingerprint(issuer.certificate),
        )
        await self.do(command)
        return new


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.do(ESTABLISH)
    return made


async def test_a_session_of_a_retired_authority_ends_though_the_state_knows_no_serial_of_it(desk: Desk) -> None:
    """What whoever has the old authority's key signed for himself."""
    forged, good = desk.open(caller_of("h1", OLD)), desk.open(caller_of("h2", NEW))
    await desk.do(ROTATE)
    assert desk.ends(forged) is None, "both authorities are trusted"
    await desk.do(RETIRE)
    assert desk.ends(forged) == f"the authority that issued the certificate {forged.shown.serial} was retired"
    assert desk.ends(good) is None
    assert withdrawn(desk.replica.state, forged.shown) is not None, "nor does it connect again"
    assert withdrawn(desk.replica.state, good.shown) is None


async def test_a_session_whose_agent_has_renewed_goes_on_after_its_first_authority(desk: Desk) -> None:
    session = desk.open(caller_of("h1", OLD))
    await desk.do(ROTATE)
    second = await desk.renew(session.shown, NEW)
    third = await desk.renew(second, NEW)
    session.serials |= {second.serial, third.serial}
    await desk.do(RETIRE)
    assert desk.ends(session) is None
    await desk.do(RevokeCertificates(kind=MemberKind.HOST, name="h1", serial=third.serial, reason="lost"))
    assert desk.ends(session) == f"the certificate {third.serial} of host h1 was revoked by alice: lost"


async def test_that_another_party_of_the_same_name_has_renewed_helps_nobody(desk: Desk) -> None:
    session, rightful = desk.open(caller_of("h1", OLD)), caller_of("h1", OLD)
    await desk.do(ROTATE)
    await desk.renew(await desk.renew(rightful, NEW), NEW)
    await desk.do(RETIRE)
    assert desk.ends(session) is not None
