"""The rotation of the cluster's authority over the API: its steps, who may take them, and what a token still opens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from unit.api.rig import Rig, served
from unit.api.test_joining import Joining

from controlplane.cli.errors import CliError
from controlplane.cli.joining.pinned import Pinned
from controlplane.identity import issuing, join_tokens
from controlplane.identity.check import issued_by


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, issuing.Issuer]]:
    directory = tmp_path_factory.mktemp("signing")
    with served(directory) as rig:
        pair = directory / "ca"
        yield rig, issuing.load_issuer((pair / "ca.crt").read_bytes(), (pair / "ca.key").read_bytes())


@pytest.fixture
def joining(signing: tuple[Rig, issuing.Issuer]) -> Joining:
    signing[0].reset()
    return Joining(*signing)


def step(joining: Joining, name: str, body: Any = None, status: int = 200) -> Any:
    answer = joining.api.post(f"/authority/actions/{name}", body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_the_new_one_signs_both_are_trusted_and_it_is_begun_once(joining: Joining) -> None:
    joining.ask(joining.token(), "h1")
    before = joining.api.get("/authority").json()
    assert (before["rotation"], len(before["authorities"])) == (None, 1)
    after = step(joining, "rotate")
    assert [each["signs"] for each in after["authorities"]] == [True, False]
    old = before["authorities"][0]["fingerprint"]
    rotation = after["rotation"]
    assert (rotation["leaves"], rotation["aborted"]) == (old, False)
    assert rotation["waiting"] == [{"kind": "host", "name": "h1"}]
    assert step(joining, "rotate") == after
    assert "PRIVATE KEY" not in str(after)


def test_what_is_issued_meanwhile_leads_to_both(joining: Joining) -> None:
    signs = step(joining, "rotate")["authorities"][0]
    joined = joining.ask(joining.token()).json()
    leaf, crossed = x509.load_pem_x509_certificates(joined["certificate"].encode())
    new, old = x509.load_pem_x509_certificates(joined["authorities"].encode())
    assert issuing.fingerprint(new) == signs["fingerprint"]
    assert issued_by(leaf, new)
    assert issued_by(crossed, old)
    assert crossed.public_key() == new.public_key()
    (listed,) = joining.api.get("/authority").json()["certificates"]
    assert listed["authority"] == signs["fingerprint"]


def test_a_token_of_before_lets_in_until_its_authority_is_retired(joining: Joining) -> None:
    token = join_tokens.parse(joining.token(uses=2))
    step(joining, "rotate")
    body = {"token": token.text, "name": "h1", "csr": issuing.signing_request(issuing.new_key()).decode()}
    assert Pinned(joining.server, token.fingerprint).post("/join", body)["cluster_id"] == "test"
    offered = joining.api.get("/join/authority", headers={"Authorization": None}).json()
    assert len(x509.load_pem_x509_certificates(offered["authorities"].encode())) == 2
    step(joining, "retire", {})
    with pytest.raises(CliError, match="not of the cluster that the token is for") as refused:
        Pinned(joining.server, token.fingerprint)
    assert "the authority was replaced since the token was made" in (refused.value.hint or "")


def test_it_is_retired_when_nobody_depends_on_it_or_by_force(joining: Joining) -> None:
    joining.ask(joining.token(), "h1")
    assert step(joining, "retire", {}, 404)["code"] == "not_found"
    assert step(joining, "abort", status=404)["code"] == "not_found"
    leaves = step(joining, "rotate")["rotation"]["leaves"]
    refused = step(joining, "retire", {}, 409)
    assert refused["code"] == "authority_in_use"
    assert refused["detail"].endswith(": host h1")
    after = step(joining, "retire", {"force": True})
    assert after["rotation"] is None
    assert [(each["signs"], each["retired_at"] is None) for each in after["authorities"]] == [
        (True, True),
        (False, False),
    ]
    assert after["authorities"][1]["fingerprint"] == leaves
    assert after["certificates"][0]["reason"] == "its authority was retired"


def test_an_aborted_one_goes_back_and_cannot_be_begun_before_it_is_over(joining: Joining) -> None:
    old = joining.api.get("/authority").json()["authorities"][0]["fingerprint"]
    new = step(joining, "rotate")["rotation"]["signs"]
    for _ in range(2):
        rotation = step(joining, "abort")["rotation"]
        assert (rotation["signs"], rotation["leaves"], rotation["aborted"]) == (old, new, True)
    assert step(joining, "rotate", status=409)["code"] == "authority_in_use"
    assert step(joining, "retire", {})["authorities"][0]["fingerprint"] == old
    assert step(joining, "rotate")["rotation"]["leaves"] == old


def test_who_makes_tokens_for_hosts_does_not_replace_the_authority(joining: Joining) -> None:
    before = joining.api.digest
    headers = joining.api.caller("racks", roles=["provisioner"])
    for name, body in (("rotate", None), ("abort", None), ("retire", {"force": True})):
        assert joining.api.post(f"/authority/actions/{name}", body, headers=headers).status_code == 403
    wrong = joining.api.post("/authority/actions/retire", {"force": "perhaps"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/force")
    assert joining.api.digest == before


def test_without_an_authority_there_is_nothing_to_rotate(api: Rig) -> None:
    answer = api.post("/authority/actions/rotate")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_authority")
