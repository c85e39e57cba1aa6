"""Who the nodes are and where: the configuration first, the settings where it says nothing."""

from __future__ import annotations

import asyncio

import pytest
from support.harness import Replica
from support.members import Members

from controlplane.model.types import replace
from controlplane.ports import LogStatus, Member
from controlplane.replica import addresses
from controlplane.replica.addresses import AddressBook, Announcer

API = {"n1": "h1:1", "n2": "h2:1"}
GATEWAY = {"n1": "h1:2", "n2": "h2:2"}


async def status(*members: Member, **changes: object) -> LogStatus:
    return replace(await Replica().status(), members=members, **changes)


def book(seen: LogStatus | None) -> AddressBook:
    return AddressBook(lambda: seen, api=API, gateway=GATEWAY)


async def test_the_settings_while_nothing_is_known() -> None:
    for seen in (None, await status()):
        assert book(seen).apis() == API
        assert book(seen).gateways() == GATEWAY


async def test_the_configuration_says_who_and_the_settings_help() -> None:
    seen = await status(Member("n1", "h1:0", "voter"), Member("n3", "h3:0", "learner", api="h3:1", gateway="h3:2"))
    assert book(seen).apis() == {"n1": "h1:1", "n3": "h3:1"}
    assert book(seen).gateways() == {"n1": "h1:2", "n3": "h3:2"}


async def test_an_unknown_address_still_names_its_node() -> None:
    assert book(await status(Member("n9", "h9:0", "voter"))).gateways() == {"n9": ""}


async def test_the_configuration_wins_over_old_settings() -> None:
    assert book(await status(Member("n2", "h2:0", "voter", api="moved:1"))).apis() == {"n2": "moved:1"}


@pytest.mark.parametrize(
    ("own", "changes", "due"),
    [
        (Member("n1", "h1:0", "voter"), {}, Member("n1", "h1:0", "voter", "h1:1", "h1:2")),
        (Member("n1", "h1:0", "learner", "old:1", "h1:2"), {}, Member("n1", "h1:0", "learner", "h1:1", "h1:2")),
        (Member("n1", "h1:0", "voter", "h1:1", "h1:2"), {}, None),
        (Member("n2", "h2:0", "voter"), {}, None),
        (Member("n1", "h1:0", "voter"), {"has_quorum": False}, None),
        (Member("n1", "h1:0", "voter"), {"configuration_index": 9}, None),
    ],
)
async def test_what_is_announced(own: Member, changes: dict[str, object], due: Member | None) -> None:
    seen = await status(own, **changes)
    assert Announcer(lambda: seen, Members(), api="h1:1", gateway="h1:2").due() == due


async def test_every_interface_is_no_address() -> None:
    seen = await status(Member("n1", "h1:0", "voter", "known:1"))
    assert Announcer(lambda: seen, Members(), api="0.0.0.0:1", gateway="[::]:2").due() is None


async def test_announces_until_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ANNOUNCE_PERIOD_S", 0.01)
    members = Members()
    members.leaderless = True
    base = await status()
    running = asyncio.create_task(
        Announcer(
            lambda: replace(base, members=members.configuration.members), members, api="h1:1", gateway="h1:2"
        ).run()
    )
    await asyncio.sleep(0.03)
    members.leaderless = False
    async with asyncio.timeout(5):
        while members.configuration.members[0].gateway != "h1:2":  # noqa: ASYNC110 - polls another task
            await asyncio.sleep(0.01)
    running.cancel()
    assert members.configuration.members[0].api == "h1:1"
