"""Another authority takes the place of the cluster's, and nobody is locked out on the way."""

from __future__ import annotations

import pytest
from support.driven import DrivenMachine
from support.invariants import check_snapshot

from controlplane.machine.authorities import MAX_RETIRED, retired_fingerprints, trusted, waiting, waits_for
from controlplane.machine.certificates import revocation
from controlplane.machine.outcome import Change, Code
from controlplane.model.commands import (
    AbortRotation,
    EstablishAuthority,
    RenewCertificate,
    RetireAuthority,
    RevokeCertificates,
    RotateAuthority,
)
from controlplane.model.credentials import MemberKind, Sealed
from controlplane.model.types import replace

NOW = 1_000_000
LIFE = 3_000
OLD, NEW = "ab" * 32, "cd" * 32
SEALED = Sealed(key_id="k", wrapped="w", box="b")
ESTABLISH = EstablishAuthority(fingerprint=OLD, certificate="OLD", key=SEALED)
ROTATE = RotateAuthority(fingerprint=NEW, certificate="NEW", key=SEALED, succeeds=OLD, crossed="NEW BY OLD")
HOST = RenewCertificate(
    kind=MemberKind.HOST, name="h1", presented="0", presented_expires_at=0, serial="1", expires_at=NOW + LIFE
)
NODE = replace(HOST, kind=MemberKind.NODE, name="n1", serial="a")


def renewed(command: RenewCertificate, presented: str, serial: str, authority: str = NEW) -> RenewCertificate:
    return replace(command, presented=presented, serial=serial, authority=authority)


@pytest.fixture
def machine() -> DrivenMachine:
    """With an authority, a host and a node that have its certificates, and another one that is to take its place."""
    made = DrivenMachine()
    made.accept(ESTABLISH, at=NOW)
    made.accept(replace(HOST, authority=OLD), at=NOW)
    made.accept(replace(NODE, authority=OLD), at=NOW)
    made.accept(ROTATE, at=NOW)
    return made


def signs(machine: DrivenMachine) -> str:
    return trusted(machine.state)[0].fingerprint


def left(machine: DrivenMachine, at: int = NOW) -> list[str]:
    return [each.name for each in waiting(machine.state, at)]


def test_there_is_one_authority_and_no_other_takes_its_place_but_by_rotation() -> None:
    machine = DrivenMachine()
    machine.refuse(ROTATE, Code.NOT_FOUND)
    machine.accept(ESTABLISH)
    assert machine.accept(ESTABLISH).change is Change.UNCHANGED
    machine.refuse(replace(ESTABLISH, fingerprint=NEW), Code.ALREADY_EXISTS)
    machine.refuse(replace(ROTATE, succeeds="ef" * 32), Code.STALE)
    for step in (AbortRotation(fingerprint=NEW), RetireAuthority(fingerprint=OLD, force=True)):
        machine.refuse(step, Code.STALE)
    assert machine.accept(AbortRotation(fingerprint=OLD)).change is Change.UNCHANGED
    check_snapshot(machine.state)


def test_the_new_one_signs_at_once_and_both_are_trusted(machine: DrivenMachine) -> None:
    assert [each.fingerprint for each in trusted(machine.state)] == [NEW, OLD]
    assert left(machine) == ["h1", "n1"]
    assert machine.accept(ROTATE).change is Change.UNCHANGED
    machine.refuse(replace(ROTATE, fingerprint="ef" * 32, succeeds=NEW), Code.AUTHORITY_IN_USE)
    check_snapshot(machine.state)


def test_a_member_is_waited_for_until_it_has_shown_its_new_certificate(machine: DrivenMachine) -> None:
    machine.accept(renewed(HOST, "1", "2"), at=NOW)
    assert waits_for(machine.state, MemberKind.HOST, "h1", NOW), "nobody knows whether it came there"
    machine.refuse(RetireAuthority(fingerprint=OLD), Code.AUTHORITY_IN_USE, at=NOW)
    machine.accept(renewed(HOST, "2", "3"), at=NOW)
    assert not waits_for(machine.state, MemberKind.HOST, "h1", NOW)
    assert left(machine) == ["n1"]


def test_who_was_revoked_or_let_its_certificate_expire_is_not_waited_for(machine: DrivenMachine) -> None:
    machine.accept(RevokeCertificates(kind=MemberKind.HOST, name="h1", reason="stolen"), at=NOW)
    assert left(machine) == ["n1"]
    assert left(machine, NOW + LIFE) == []
    machine.accept(RetireAuthority(fingerprint=OLD), at=NOW + LIFE)


def test_who_joins_meanwhile_needs_nothing_of_the_old_one(machine: DrivenMachine) -> None:
    machine.accept(renewed(replace(HOST, name="h2"), "0", "9"), at=NOW)
    assert left(machine) == ["h1", "n1"]


def test_the_old_one_is_retired_when_nobody_depends_on_it(machine: DrivenMachine) -> None:
    for command, first in ((HOST, "1"), (NODE, "a")):
        machine.accept(renewed(command, first, f"{first}1"), at=NOW)
        machine.accept(renewed(command, f"{first}1", f"{first}2"), at=NOW)
    machine.accept(RetireAuthority(fingerprint=OLD), at=NOW)
    assert [each.fingerprint for each in trusted(machine.state)] == [NEW]
    assert retired_fingerprints(machine.state) == [OLD]
    retired = machine.state.authorities[OLD]
    assert (retired.key.box, retired.key.wrapped, retired.retired_at) == ("", "", NOW), "its key is gone"
    assert revocation(machine.state, "host", "h1", "1") is None, "sessions that it opened go on"
    assert machine.accept(RetireAuthority(fingerprint=OLD)).change is Change.UNCHANGED
    machine.refuse(RetireAuthority(fingerprint=NEW), Code.STALE)
    machine.refuse(AbortRotation(fingerprint=OLD), Code.STALE)
    machine.refuse(replace(ROTATE, fingerprint="ef" * 32), Code.STALE)
    check_snapshot(machine.state)


def test_by_force_whoever_depends_on_the_old_one_loses_its_certificates(machine: DrivenMachine) -> None:
    machine.accept(renewed(NODE, "a", "b"), at=NOW)
    machine.accept(renewed(NODE, "b", "c"), at=NOW)
    machine.accept(RetireAuthority(fingerprint=OLD, force=True), actor="bob", at=NOW)
    assert revocation(machine.state, "host", "h1", "1") == (
        "the certificate 1 of host h1 was revoked by bob: its authority was retired"
    )
    assert [revocation(machine.state, "node", "n1", each) for each in "abc"] == [None, None, None]
    check_snapshot(machine.state)


def test_an_aborted_rotation_goes_back_by_the_same_way(machine: DrivenMachine) -> None:
    machine.accept(renewed(HOST, "1", "2"), at=NOW)
    machine.accept(renewed(HOST, "2", "3"), at=NOW)
    machine.accept(AbortRotation(fingerprint=OLD), at=NOW)
    assert signs(machine) == OLD
    assert machine.accept(AbortRotation(fingerprint=OLD), at=NOW).change is Change.UNCHANGED
    # The certificate of before is good enough for nobody: whether it still lies there is not known.
    assert left(machine) == ["h1", "n1"]
    for command, first in ((HOST, "3"), (NODE, "a")):
        machine.accept(renewed(command, first, f"{first}1", OLD), at=NOW)
        machine.accept(renewed(command, f"{first}1", f"{first}2", OLD), at=NOW)
    machine.accept(RetireAuthority(fingerprint=NEW), at=NOW)
    assert [each.fingerprint for each in trusted(machine.state)] == [OLD]
    machine.accept(replace(ROTATE, fingerprint="ef" * 32), at=NOW)
    assert signs(machine) == "ef" * 32
    check_snapshot(machine.state)


def test_what_was_shown_before_the_rotation_counts_for_nothing_after_it_is_aborted(machine: DrivenMachine) -> None:
    third = "ef" * 32
    machine.accept(renewed(HOST, "1", "2"), at=NOW)
    machine.accept(renewed(HOST, "2", "3"), at=NOW)
    machine.accept(RetireAuthority(fingerprint=OLD, force=True), at=NOW)
    machine.accept(replace(ROTATE, fingerprint=third, succeeds=NEW), at=NOW)
    machine.accept(renewed(HOST, "3", "4", third), at=NOW)
    machine.accept(renewed(HOST, "4", "5", third), at=NOW)
    assert left(machine) == []
    machine.accept(AbortRotation(fingerprint=NEW), at=NOW)
    assert left(machine) == ["h1"], "it has certificates of both, and shows the other's"
    machine.accept(renewed(HOST, "5", "6"), at=NOW)
    assert left(machine) == ["h1"]
    machine.accept(renewed(HOST, "6", "7"), at=NOW)
    assert left(machine) == []


def test_the_retired_that_are_remembered_are_bounded() -> None:
    machine = DrivenMachine()
    machine.accept(ESTABLISH)
    for number in range(MAX_RETIRED + 3):
        present = signs(machine)
        machine.accept(replace(ROTATE, fingerprint=f"{number:064x}", succeeds=present))
        machine.accept(RetireAuthority(fingerprint=present, force=True))
    assert len(retired_fingerprints(machine.state)) == MAX_RETIRED
    assert signs(machine) == f"{MAX_RETIRED + 2:064x}"
    assert OLD not in machine.state.authorities
    check_snapshot(machine.state)


def test_before_the_first_rotation_records_are_as_older_builds_made_them() -> None:
    machine = DrivenMachine()
    machine.accept(ESTABLISH, at=NOW)
    machine.accept(replace(HOST, authority=OLD), at=NOW)
    machine.accept(renewed(HOST, "1", "2", OLD), at=NOW)
    found = machine.state.holders["host/h1"].certificates
    assert [(each.authority, each.shown) for each in found] == [("", False), ("", False)]
