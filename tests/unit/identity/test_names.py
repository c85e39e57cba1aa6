"""The name in a certificate is exactly one well-formed SPIFFE URI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.identity.names import IdentityError, Party, parse_uri, party_from_pem, party_from_sans, require
from controlplane.model.types import NAME_PATTERN


@given(
    kind=st.sampled_from(["node", "host", "user"]), name=st.from_regex(NAME_PATTERN.replace("$", r"\Z"), fullmatch=True)
)
def test_uri_round_trip(kind: str, name: str) -> None:
    party = Party("c1", kind, name)  # type: ignore[arg-type]
    assert parse_uri(party.uri) == party
    assert party_from_sans(["localhost", "127.0.0.1", party.uri]) == party


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://c1/node/",
        "spiffe://c1/node/n1/x",
        "spiffe://c1/node/n1?x",
        "spiffe://c1/node/N1",
        "spiffe://c1/node/n1\n",
        "spiffe://c1/node/../n1",
        "spiffe://c1/admin/n1",
        "spiffe://node/n1",
        "spiffe://C1/node/n1",
        "spiffe://c1:443/node/n1",
        "flintlock://node/n1",
        "spiffe:c1/node/n1",
    ],
)
def test_malformed_uri_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_uri(uri)


def test_two_names_or_none_are_refused() -> None:
    with pytest.raises(IdentityError, match="has 2 spiffe:// names"):
        party_from_sans(["spiffe://c1/node/n1", "spiffe://c1/host/h1"])
    with pytest.raises(IdentityError, match="has no spiffe:// names"):
        party_from_sans(["localhost", "https://spiffe/"])


def test_require_says_whose_certificate_it_is() -> None:
    assert require(Party("c1", "host", "h1"), "c1", "host") == "h1"
    with pytest.raises(IdentityError, match="belongs to host h1 of cluster c1, not to a node of cluster c1"):
        require(Party("c1", "host", "h1"), "c1", "node")
    with pytest.raises(IdentityError, match="belongs to node n2 of cluster c1, not to node n1 of cluster c1"):
        require(Party("c1", "node", "n2"), "c1", "node", "n1")


def test_a_member_of_another_cluster_is_a_stranger() -> None:
    with pytest.raises(IdentityError, match="belongs to node n1 of cluster c2, not to node n1 of cluster c1"):
        require(Party("c2", "node", "n1"), "c1", "node", "n1")


def test_garbage_is_not_a_certificate() -> None:
    with pytest.raises(IdentityError, match="not a PEM certificate"):
        party_from_pem(b"garbage")
