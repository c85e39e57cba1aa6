"""Joining over the API: tokens are made by whom the roles allow, and let in whom they are for and nobody else."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from unit.api.rig import Rig, served

from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.joining.pinned import Pinned
from controlplane.identity import issuing, join_tokens
from controlplane.identity.names import Party, party_from_certificate
from controlplane.issuance.founding import new_authority
from controlplane.issuance.issuer import ClusterIssuer
from controlplane.model.commands import EstablishAuthority
from controlplane.ports.issuance import Lives
from controlplane.sealing import KeyRing

SERVERS = {"raft": "10.0.0.2:7101", "gateway": "n2.example:7201", "api": "10.0.0.2:7301"}


class Joining:
    """An API that signs, with the authority of its own certificate."""

    def __init__(self, rig: Rig, authority: issuing.Issuer) -> None:
        self.api = rig
        self.ring = KeyRing.new()
        self.file = new_authority(authority, self.ring)
        rig.give_issuer(
            ClusterIssuer("test", rig.replica, rig.replica, rig.replica.clock, self.ring, Lives(host_s=3600, node_s=60))
        )
        established = EstablishAuthority(
            fingerprint=self.file.fingerprint, certificate=self.file.certificate, key=self.file.sealed
        )
        rig.do(established)

    @property
    def server(self) -> str:
        host, port = self.api.server.address
        return f"{host}:{port}"

    def token(self, role: str = "host", **asked: Any) -> str:
        made = self.api.post("/jointokens", {"role": role, **asked})
        assert made.status_code == 201, made.text
        return made.json()["token"]

    def ask(self, token: str, name: str = "h1", *, csr: bytes | None = None, **more: Any) -> Any:
        """What `POST /join` answers whoever has no other credential."""
        body = {"token": token, "name": name, "csr": (csr or issuing.signing_request(issuing.new_key())).decode()}
        return self.api.post("/join", {**body, **more}, headers={"Authorization": None})


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


def test_a_host_gets_a_certificate_of_its_name_for_its_key(joining: Joining) -> None:
    key = issuing.new_key()
    joined = joining.ask(joining.token(), csr=issuing.signing_request(key)).json()
    certificate = x509.load_pem_x509_certificate(joined["certificate"].encode())
    assert party_from_certificate(certificate) == Party("test", "host", "h1")
    assert certificate.public_key() == key.public_key()
    assert (joined["cluster_id"], joined["node"]) == ("test", None)
    (listed,) = joining.api.get("/authority").json()["certificates"]
    assert (listed["name"], listed["serial"]) == ("h1", issuing.serial_text(certificate))
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left < datetime.timedelta(seconds=3601)


def test_a_token_is_told_once_and_kept_nowhere(joining: Joining) -> None:
    token = joining.token(uses=2)
    secret = join_tokens.parse(token).secret
    assert secret not in joining.api.get("/jointokens").text
    assert all(secret not in str(each) for each in joining.api.replica.state.join_tokens.values())


def test_a_replayed_and_a_guessed_token_are_refused_alike_and_change_nothing(joining: Joining) -> None:
    token = joining.token()
    assert joining.ask(token).status_code == 200
    given = join_tokens.parse(joining.token())
    guess = join_tokens.JoinTokenText(id=given.id, secret="x" * 43, fingerprint=given.fingerprint).text
    before = joining.api.digest
    answers = [joining.ask(each, "h2") for each in (token, guess, "nonsense")]
    assert {(each.status_code, each.json()["code"], each.json()["detail"]) for each in answers} == {
        (
            401,
            "join_refused",
            "the join token is not known: it was mistyped, is used up, has expired or was revoked",
        )
    }
    assert joining.api.digest == before


def test_a_token_of_another_role_or_network_lets_nobody_in(joining: Joining) -> None:
    assert joining.ask(joining.token("node"), "h1").json()["errors"][0]["pointer"] == "/role"
    assert joining.ask(joining.token(), "n2", node=SERVERS).json()["errors"][0]["pointer"] == "/role"
    far = joining.ask(joining.token(cidrs=["192.0.2.0/24"]))
    assert "not for connections from 127.0.0.1" in far.json()["detail"]
    assert joining.ask(joining.token(cidrs=["127.0.0.0/8"])).status_code == 200


def test_a_csr_that_is_none_uses_nothing_up(joining: Joining) -> None:
    token = joining.token()
    refused = joining.ask(token, csr=b"nonsense")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/csr")
    assert joining.ask(token).status_code == 200


def test_a_node_joins_as_a_learner_and_gets_the_key_ring(joining: Joining) -> None:
    joined = joining.ask(joining.token("node"), "n2", node=SERVERS).json()
    assert joined["node"]["learner"]
    assert joined["node"]["peers"] == {"n1": "127.0.0.1:7101"}
    assert KeyRing.parse(joined["node"]["key_ring"]).document() == joining.ring.document()
    members = {each["node"]: each["role"] for each in joining.api.get("/raft/members").json()["items"]}
    assert members == {"n1": "voter", "n2": "learner"}
    certificate = x509.load_pem_x509_certificate(joined["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "n2.example"]


def test_nobody_takes_the_place_of_a_member_and_a_removed_one_does_not_come_back(joining: Joining) -> None:
    taken = joining.ask(joining.token("node", name="n1"), "n1", node=SERVERS)
    assert (taken.status_code, taken.json()["code"]) == (409, "membership_refused")
    joining.ask(joining.token("node"), "n2", node=SERVERS)
    joining.api.delete("/raft/members/n2")
    (gone,) = joining.api.get("/authority").json()["certificates"]
    assert gone["reason"] == "the node was removed"
    back = joining.ask(joining.token("node", name="n2"), "n2", node=SERVERS)
    assert (back.status_code, back.json()["code"]) == (409, "membership_refused")
    assert all(each["revoked_at"] for each in joining.api.get("/authority").json()["certificates"])


def test_a_provisioner_lets_hosts_in_but_no_nodes(joining: Joining) -> None:
    headers = joining.api.caller("racks", roles=["provisioner"])
    assert joining.api.post("/jointokens", {"role": "host"}, headers=headers).status_code == 201
    refused = joining.api.post("/jointokens", {"role": "node"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    nobody = joining.api.caller("nobody", roles=["viewer"])
    assert joining.api.post("/jointokens", {"role": "host"}, headers=nobody).status_code == 403


def test_who_joins_speaks_to_the_cluster_of_its_token_or_to_nobody(joining: Joining) -> None:
    token = join_tokens.parse(joining.token())
    cluster = Pinned(joining.server, token.fingerprint)
    body = {"token": token.text, "name": "h1", "csr": issuing.signing_request(issuing.new_key()).decode()}
    assert cluster.post("/join", body)["cluster_id"] == "test"
    with pytest.raises(CliError, match="not of the cluster that the token is for"):
        Pinned(joining.server, "0" * 64)
    with pytest.raises(ProblemError) as refused:
        cluster.post("/join", body)
    assert refused.value.code == "join_refused"


def test_revoking_names_who_and_why(joining: Joining) -> None:
    joining.ask(joining.token())
    body = {"kind": "host", "name": "h1", "reason": "the disk was sold"}
    (revoked,) = joining.api.post("/authority/actions/revoke", body).json()["certificates"]
    assert (revoked["revoked_by"], revoked["reason"]) == ("alice", "the disk was sold")
    assert joining.api.post("/authority/actions/revoke", {**body, "name": "h7"}).status_code == 404


def test_a_cluster_without_an_authority_says_so(api: Rig) -> None:
    answer = api.post("/jointokens", {"role": "host"})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_authority")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "root"}, "/role"),
        ({"role": "host", "ttl_s": 0}, "/ttl_s"),
        ({"role": "host", "uses": 0}, "/uses"),
        ({"role": "host", "macs": ["zz"]}, "/macs/0"),
        ({"role": "host", "cidrs": ["10.0.0.0/99"]}, "/cidrs/0"),
        ({"role": "host", "name": "H1"}, "/name"),
    ],
)
def test_wrong_tokens_are_refused_by_their_field(api: Rig, body: dict[str, Any], pointer: str) -> None:
    answer = api.post("/jointokens", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
