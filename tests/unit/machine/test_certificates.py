"""The cluster's authority, and what is known of the certificates that it issued."""

from __future__ import annotations

import pytest
from support.builders import declare_host
from support.driven import DrivenMachine
from support.invariants import check_snapshot

from controlplane.machine.certificates import FOREIGN_LIFE_MS, MAX_CERTIFICATES, holds_valid, revocation
from controlplane.machine.outcome import Code
from controlplane.model.commands import (
    CreateJoinToken,
    Delete,
    RenewCertificate,
    RevokeCertificates,
)
from controlplane.model.credentials import MemberKind
from controlplane.model.types import Kind, replace

NOW = 1_000_000
LIFE = 3_000
RENEW = RenewCertificate(
    kind=MemberKind.HOST, name="h1", presented="1", presented_expires_at=NOW, serial="2", expires_at=NOW + LIFE
)
REVOKE = RevokeCertificates(kind=MemberKind.HOST, name="h1", reason="stolen")


def test_what_has_expired_is_forgotten_when_another_one_is_issued() -> None:
    machine = DrivenMachine()
    machine.accept(RENEW, at=NOW)
    machine.accept(replace(RENEW, presented="2", serial="3", expires_at=NOW + 2 * LIFE), at=NOW + LIFE)
    assert [each.serial for each in machine.state.holders["host/h1"].certificates] == ["3"]
    machine.accept(CreateJoinToken(id="t", sha256="ab" * 32, role=MemberKind.HOST, ttl_s=60), at=NOW + 2 * LIFE)
    assert not machine.state.holders


def test_a_revoked_certificate_is_not_renewed_and_neither_is_any_other_of_its_holder() -> None:
    machine = DrivenMachine()
    machine.accept(RENEW, at=NOW)
    machine.accept(replace(RENEW, serial="3"), at=NOW)
    machine.accept(REVOKE, actor="bob", at=NOW + 1)
    for serial in ("2", "3"):
        assert revocation(machine.state, "host", "h1", serial) == (
            f"the certificate {serial} of host h1 was revoked by bob: stolen"
        )
        machine.refuse(replace(RENEW, presented=serial, serial="4"), Code.CERTIFICATE_REVOKED)
    assert not holds_valid(machine.state, "host", "h1", NOW + 1)
    assert revocation(machine.state, "host", "h2", "2") is None
    check_snapshot(machine.state)


def test_a_certificate_from_before_the_state_is_known_once_it_was_shown() -> None:
    machine = DrivenMachine()
    machine.accept(replace(RENEW, presented_expires_at=NOW + 10), at=NOW)
    machine.accept(REVOKE, at=NOW + 1)
    assert revocation(machine.state, "host", "h1", "1") is not None


def test_one_certificate_is_revoked_by_its_serial_and_the_others_stay() -> None:
    machine = DrivenMachine()
    machine.accept(RENEW, at=NOW)
    machine.accept(replace(RENEW, serial="3"), at=NOW)
    machine.accept(replace(REVOKE, serial="2"), at=NOW)
    assert revocation(machine.state, "host", "h1", "2") is not None
    assert revocation(machine.state, "host", "h1", "3") is None


def test_a_certificate_of_another_authority_is_revoked_by_its_serial() -> None:
    machine = DrivenMachine()
    machine.refuse(REVOKE, Code.NOT_FOUND, "/name")
    machine.accept(replace(REVOKE, serial="f0"), at=NOW)
    assert revocation(machine.state, "host", "h1", "f0") is not None
    assert machine.state.holders["host/h1"].certificates[0].expires_at == NOW + FOREIGN_LIFE_MS


def test_a_deleted_host_does_not_come_back_by_its_certificate() -> None:
    machine = DrivenMachine()
    machine.accept(declare_host("h1"))
    machine.accept(RENEW, at=NOW)
    machine.accept(Delete(kind=Kind.HOST, name="h1", reason="sold"), at=NOW)
    assert revocation(machine.state, "host", "h1", "2") == (
        "the certificate 2 of host h1 was revoked by alice: the host was deleted: sold"
    )


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1025])
def test_a_revocation_needs_a_reason(reason: str) -> None:
    DrivenMachine().refuse(replace(REVOKE, reason=reason), Code.INVALID, "/reason")


def test_nobody_collects_certificates() -> None:
    machine = DrivenMachine()
    for number in range(MAX_CERTIFICATES):
        machine.accept(replace(RENEW, serial=f"{number:x}"), at=NOW)
    machine.refuse(replace(RENEW, serial="ffff"), Code.INVALID)
    machine.accept(replace(RENEW, serial="ffff", expires_at=NOW + 2 * LIFE), at=NOW + LIFE)
