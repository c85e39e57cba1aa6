"""Join tokens: whom they let in, how often, until when; and that nobody takes the place of who is there."""

from __future__ import annotations

from typing import Any

import pytest
from support.builders import agent_connected
from support.driven import DrivenMachine
from support.invariants import check_snapshot

from controlplane.machine.joining import MAX_TOKENS, MAX_TTL_S
from controlplane.machine.outcome import Code
from controlplane.model.commands import CreateJoinToken, Join, RevokeJoinToken
from controlplane.model.credentials import MemberKind
from controlplane.model.types import replace

NOW = 1_000_000
DAY_MS = 86_400_000
TOKEN = CreateJoinToken(id="t1", sha256="ab" * 32, role=MemberKind.HOST, ttl_s=60)
JOIN = Join(redeems="t1", sha256="ab" * 32, role=MemberKind.HOST, name="h1", serial="1a", expires_at=NOW + DAY_MS)


def machine_with(**changes: Any) -> DrivenMachine:
    machine = DrivenMachine()
    machine.accept(replace(TOKEN, **changes), actor="alice", at=NOW)
    return machine


def test_a_token_lets_one_in_and_is_gone() -> None:
    machine = machine_with()
    machine.accept(JOIN, at=NOW + 1)
    (issued,) = machine.state.holders["host/h1"].certificates
    assert (issued.serial, issued.at, issued.expires_at, issued.revoked_at) == ("1a", NOW + 1, NOW + DAY_MS, None)
    assert not machine.state.join_tokens
    check_snapshot(machine.state)


def test_of_two_that_redeem_the_last_use_the_log_lets_one_in() -> None:
    machine = machine_with(uses=2)
    for name, serial in (("h1", "1a"), ("h2", "1b")):
        machine.accept(replace(JOIN, name=name, serial=serial), at=NOW + 1)
    machine.refuse(replace(JOIN, name="h3", serial="1c"), Code.JOIN_REFUSED, "/token")
    assert set(machine.state.holders) == {"host/h1", "host/h2"}


@pytest.mark.parametrize(
    ("made", "asked", "pointer"),
    [
        ({}, {"sha256": "ac" * 32}, "/token"),
        ({}, {"redeems": "t2"}, "/token"),
        ({}, {"redeems": "t2", "sha256": "0" * 64}, "/token"),
        ({}, {"role": MemberKind.NODE}, "/role"),
        ({"role": MemberKind.NODE}, {}, "/role"),
        ({"name": "h2"}, {}, "/name"),
        ({"macs": ["02:00:00:00:00:01"]}, {"macs": ["02:00:00:00:00:02"]}, "/macs"),
        ({"macs": ["02:00:00:00:00:01"]}, {}, "/macs"),
        ({"cidrs": ["10.0.0.0/8"]}, {"address": "192.0.2.1"}, None),
        ({"cidrs": ["10.0.0.0/8"]}, {"address": "fd00::1"}, None),
        ({"cidrs": ["10.0.0.0/8"]}, {"address": ""}, None),
    ],
)
def test_whom_a_token_is_not_for_stays_outside_and_uses_nothing_up(
    made: dict[str, Any], asked: dict[str, Any], pointer: str | None
) -> None:
    machine = machine_with(**made)
    machine.refuse(replace(JOIN, **asked), Code.JOIN_REFUSED, pointer)
    assert machine.state.join_tokens["t1"].used == 0
    assert not machine.state.holders


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({"name": "h1"}, {}),
        ({"macs": ["02:AA:00:00:00:01"]}, {"macs": ["02:00:00:00:00:07", "02:aa:00:00:00:01"]}),
        ({"cidrs": ["192.0.2.0/24", "fd00::/8"]}, {"address": "fd00::7"}),
    ],
)
def test_whom_a_token_is_for_gets_in(made: dict[str, Any], asked: dict[str, Any]) -> None:
    machine_with(**made).accept(replace(JOIN, **asked), at=NOW + 1)


def test_an_expired_and_a_revoked_token_are_as_unknown_as_a_guess() -> None:
    machine = machine_with()
    guessed = machine.do(replace(JOIN, redeems="guess"), at=NOW + 59_999)
    late = machine.do(JOIN, at=NOW + 60_000)
    machine.accept(RevokeJoinToken(id="t1"))
    revoked = machine.do(JOIN, at=NOW + 1)
    assert guessed == late == revoked
    machine.refuse(RevokeJoinToken(id="t1"), Code.NOT_FOUND, "/id")


def test_nobody_takes_the_place_of_who_is_there_but_by_a_token_for_that_name() -> None:
    machine = machine_with(uses=3)
    machine.accept(JOIN, at=NOW + 1)
    machine.refuse(replace(JOIN, serial="1b"), Code.JOIN_REFUSED, "/name")
    machine.accept(agent_connected("h2"))
    machine.refuse(replace(JOIN, name="h2", serial="1b"), Code.JOIN_REFUSED, "/name")
    machine.accept(replace(TOKEN, id="t2", name="h1"), at=NOW + 2)
    machine.accept(replace(JOIN, redeems="t2", serial="1b"), at=NOW + 3)
    assert [each.serial for each in machine.state.holders["host/h1"].certificates] == ["1a", "1b"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"ttl_s": 0}, "/ttl_s"),
        ({"ttl_s": MAX_TTL_S + 1}, "/ttl_s"),
        ({"uses": 0}, "/uses"),
        ({"uses": 1001}, "/uses"),
        ({"uses": 2, "name": "h1"}, "/uses"),
    ],
)
def test_a_token_has_bounds(changes: dict[str, Any], pointer: str) -> None:
    DrivenMachine().refuse(replace(TOKEN, **changes), Code.INVALID, pointer)


def test_tokens_are_bounded_and_ended_ones_make_room() -> None:
    machine = DrivenMachine()
    for number in range(MAX_TOKENS):
        machine.accept(replace(TOKEN, id=f"t{number}"), at=NOW)
    machine.refuse(replace(TOKEN, id="more"), Code.INVALID)
    machine.accept(replace(TOKEN, id="more"), at=NOW + 60_000)
    assert set(machine.state.join_tokens) == {"more"}
