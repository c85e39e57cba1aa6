"""API tokens in the machine: what is refused, what a rotation keeps, how seldom a use is written, what is forgotten."""

from __future__ import annotations

import pytest
from support.driven import DrivenMachine

from controlplane.machine.api_tokens import FORGOTTEN_AFTER_MS, MAX_INHERITED, USES_EVERY_MS
from controlplane.machine.outcome import Change, Code
from controlplane.model.access import AccessLimit
from controlplane.model.api_tokens import ApiToken, ApiTokenSpec, RetiredSecret
from controlplane.model.commands import Command, CreateApiToken, NoteApiTokenUses, RevokeApiToken, RotateApiToken
from controlplane.model.types import replace

END = 10_000_000_000


def create(name: str = "ci", digit: str = "1", expires_at: int = END) -> CreateApiToken:
    return CreateApiToken(
        name=name, uid=f"uid-{name}", spec=ApiTokenSpec(user="alice"), sha256=digit * 64, expires_at=expires_at
    )


def rotate(digit: str = "2", uid: str = "uid-ci", retired_until: int = 0) -> RotateApiToken:
    return RotateApiToken(name="ci", uid=uid, sha256=digit * 64, expires_at=END, retired_until=retired_until)


@pytest.fixture
def machine() -> DrivenMachine:
    machine = DrivenMachine()
    assert machine.accept(create()).change is Change.CREATED
    return machine


def token(machine: DrivenMachine) -> ApiToken:
    return machine.state.api_tokens["ci"]


@pytest.mark.parametrize(
    ("command", "code", "pointer"),
    [
        (create("a/b", "3"), Code.INVALID, "/name"),
        (create("ci", "3"), Code.ALREADY_EXISTS, "/name"),
        (create("other", "1"), Code.INVALID, "/sha256"),
        (replace(create("other"), sha256="F" * 64), Code.INVALID, "/sha256"),
        (replace(create("other"), sha256="3" * 63), Code.INVALID, "/sha256"),
        (create("other", "3", expires_at=1_000), Code.INVALID, "/expires_at"),
        (replace(create("other", "3"), inherited=[AccessLimit()] * (MAX_INHERITED + 1)), Code.INVALID, "/name"),
        (rotate("1"), Code.INVALID, "/sha256"),
        (rotate("2", uid="uid-of-the-one-before"), Code.NOT_FOUND, "/name"),
        (RevokeApiToken(name="ci", uid="uid-of-the-one-before"), Code.NOT_FOUND, "/name"),
        (RevokeApiToken(name="absent", uid="uid-ci"), Code.NOT_FOUND, "/name"),
    ],
)
def test_a_refusal_has_its_field(machine: DrivenMachine, command: Command, code: Code, pointer: str) -> None:
    machine.refuse(command, code, pointer)


def test_a_rotation_retires_the_secret_before_for_a_while(machine: DrivenMachine) -> None:
    until = machine.at + 60_000
    machine.accept(rotate("2", retired_until=until))
    assert (token(machine).sha256, token(machine).retired) == ("2" * 64, RetiredSecret(sha256="1" * 64, until=until))
    machine.refuse(create("other", "1"), Code.INVALID, "/sha256")
    machine.accept(rotate("3"))
    assert token(machine).retired is None
    machine.accept(rotate("4", retired_until=END * 2))
    assert token(machine).retired == RetiredSecret(sha256="3" * 64, until=END)


def test_a_use_is_written_once_in_an_interval_whoever_tells_it(machine: DrivenMachine) -> None:
    first = machine.at + 1_000
    assert machine.accept(NoteApiTokenUses(used={"ci": first, "absent": first})).change is Change.CHANGED
    again = NoteApiTokenUses(used={"ci": first + USES_EVERY_MS - 1})
    machine.refuse(again, Code.STALE, at=first + USES_EVERY_MS)
    assert token(machine).last_used_at == first
    later = first + USES_EVERY_MS
    machine.accept(NoteApiTokenUses(used={"ci": later}), at=later)
    assert token(machine).last_used_at == later
    # A node whose clock is ahead does not keep the others from telling.
    machine.accept(NoteApiTokenUses(used={"ci": END}), at=later + USES_EVERY_MS)
    assert token(machine).last_used_at == later + USES_EVERY_MS


def test_a_revoked_token_is_gone_and_its_name_is_free(machine: DrivenMachine) -> None:
    assert machine.accept(RevokeApiToken(name="ci", uid="uid-ci")).change is Change.DELETED
    assert not machine.state.api_tokens
    assert machine.state.digest == DrivenMachine().state.digest
    machine.accept(create())


def test_an_expired_token_is_known_for_a_month(machine: DrivenMachine) -> None:
    machine.refuse(NoteApiTokenUses(used={}), Code.STALE, at=END + FORGOTTEN_AFTER_MS - 1)
    assert list(machine.state.api_tokens) == ["ci"]
    machine.accept(NoteApiTokenUses(used={}), at=END + FORGOTTEN_AFTER_MS)
    assert not machine.state.api_tokens
