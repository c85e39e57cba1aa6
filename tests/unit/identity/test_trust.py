"""Whom a member trusts: what the cluster says is added or dropped, and what it does not speak of stays."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.identity import issuing, trust
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError

NOW = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.UTC)
FIRST, SECOND, OTHER = (issuing.new_issuer("c1", now=NOW).certificate for _ in range(3))


def pem(*certificates: x509.Certificate) -> str:
    return b"".join(map(issuing.certificate_pem, certificates)).decode()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    made = TlsFiles(ca=tmp_path / "ca.crt", certificate=tmp_path / "n1.crt", key=tmp_path / "n1.key")
    made.ca.write_text(pem(FIRST, OTHER))
    return made


def test_the_one_that_signs_comes_first_and_what_nobody_speaks_of_stays(files: TlsFiles) -> None:
    assert trust.follow(files, pem(SECOND, FIRST))
    assert files.ca.read_text() == pem(SECOND, FIRST, OTHER)
    before = files.ca.stat().st_ino
    assert not trust.follow(files, pem(SECOND, FIRST)), "no news"
    assert files.ca.stat().st_ino == before, "so servers do not begin anew"


def test_what_was_retired_is_dropped_and_does_not_come_back(files: TlsFiles) -> None:
    retired = [issuing.fingerprint(FIRST)]
    assert trust.follow(files, pem(SECOND), retired)
    assert files.ca.read_text() == pem(SECOND, OTHER)
    trust.follow(files, pem(SECOND, FIRST), retired)
    assert files.ca.read_text() == pem(SECOND, OTHER)


@pytest.mark.parametrize("wrong", ["nonsense", "everything retired", "too many"])
def test_what_would_leave_nobody_or_too_many_changes_nothing(files: TlsFiles, wrong: str) -> None:
    before = files.ca.read_text()
    told, retired = pem(FIRST), list[str]()
    if wrong == "nonsense":
        told = "nonsense"
    elif wrong == "everything retired":
        retired = [issuing.fingerprint(each) for each in (FIRST, OTHER)]
    else:
        told = pem(*(issuing.new_issuer("c1", now=NOW).certificate for _ in range(trust.MAX_TRUSTED)))
    with pytest.raises(IdentityError):
        trust.follow(files, told, retired)
    assert files.ca.read_text() == before
