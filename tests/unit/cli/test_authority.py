"""flintctl ca: the steps of a rotation, each of which says where it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from unit.api.rig import Rig
from unit.api.test_joining import Joining
from unit.cli.conftest import Cli

from controlplane.cli.commands import authority
from controlplane.identity import issuing

UNDER_WAY = ("leaves ", "waits for host h1\n")


@pytest.fixture
def joining(api: Rig, served_api: tuple[Rig, Path]) -> Joining:
    """With one host that has a certificate."""
    ca = served_api[1].parent
    made = Joining(api, issuing.load_issuer((ca / "ca.crt").read_bytes(), (ca / "ca.key").read_bytes()))
    made.ask(made.token())
    return made


def test_a_rotation_step_by_step(cli: Cli, joining: Joining) -> None:
    assert "No rotation is under way." in cli("ca", "status").out
    for step in ("rotate", "status"):
        answer = cli("ca", step)
        assert answer.code == 0, answer.err
        assert all(each in answer.out for each in UNDER_WAY)
    trusted = x509.load_pem_x509_certificates(cli("ca", "bundle").out.encode())
    assert f"signs     {issuing.fingerprint(trusted[0])}" in answer.out
    assert f"leaves    {issuing.fingerprint(trusted[1])}" in answer.out
    refused = cli("ca", "retire")
    assert refused.code == 1
    assert "host h1" in refused.err
    assert "ca status" in refused.err
    assert "No rotation is under way." in cli("ca", "retire", "--force").out
    assert x509.load_pem_x509_certificates(cli("ca", "bundle").out.encode()) == trusted[:1]
    assert "retired" in cli("ca", "show").out


def test_waiting_has_an_end_and_names_who_is_missing(
    cli: Cli, joining: Joining, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_LOOK_S", 0.05)
    answer = cli("ca", "rotate", "--wait", "--timeout", "1")
    assert answer.code == 1
    assert answer.err.count("waiting for host h1") == 1
    assert "these have not renewed: host h1" in answer.err
    assert "--force" in answer.err
    cli("ca", "revoke", "host", "h1", "--reason", "gone")
    done = cli("ca", "rotate", "--wait")
    assert (done.code, "No rotation is under way." in done.out) == (0, True)


def test_going_back_and_what_a_program_reads(cli: Cli, joining: Joining) -> None:
    assert json.loads(cli("ca", "status", "-o", "json").out) == {"rotation": None}
    cli("ca", "rotate")
    assert "an aborted rotation" in cli("ca", "rotate", "--abort").out
    rotation = json.loads(cli("ca", "status", "-o", "json").out)["rotation"]
    assert (rotation["aborted"], rotation["waiting"]) == (True, [{"kind": "host", "name": "h1"}])
    again = cli("ca", "rotate")
    assert (again.code, "end it first" in again.err) == (1, True)


def test_a_cluster_without_an_authority_says_so(cli: Cli, api: Rig) -> None:
    assert "certificates come from elsewhere" in cli("ca", "status").out
    assert "certificates come from elsewhere" in cli("ca", "bundle").err
