"""The name in a certificate is exactly one well-formed flintlock:// URI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.identity.names import IdentityError, Party, parse_uri, party_from_pem, party_from_sans, require
from controlplane.model.types import NAME_PATTERN


@given(kind=st.sampled_from(["node", "host"]), name=st.from_regex(NAME_PATTERN.replace("$", r"\Z"), fullmatch=True))
def test_uri_round_trip(kind: str, name: str) -> None:
    party = Party(kind, name)  # type: ignore[arg-type]
    assert parse_uri(party.uri) == party
    assert party_from_sans(["localhost", "127.0.0.1", party.uri]) == party


@pytest.mark.parametrize(
    "uri",
    [
        "flintlock://node/",
        "flintlock://node/n1/x",
        "flintlock://node/n1?x",
        "flintlock://node/N1",
        "flintlock://node/n1\n",
        "flintlock://node/../n1",
        "flintlock://user/n1",
        "spiffe://node/n1",
        "flintlock:node/n1",
    ],
)
def test_malformed_uri_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError):
        parse_uri(uri)


def test_two_names_or_none_are_refused() -> None:
    with pytest.raises(IdentityError, match="has 2 flintlock:// names"):
        party_from_sans(["flintlock://node/n1", "flintlock://host/h1"])
    with pytest.raises(IdentityError, match="has no flintlock:// names"):
        party_from_sans(["localhost", "https://flintlock/"])


def test_require_says_whose_certificate_it_is() -> None:
    assert require(Party("host", "h1"), "host") == "h1"
    with pytest.raises(IdentityError, match="belongs to host h1, not to a node"):
        require(Party("host", "h1"), "node")
    with pytest.raises(IdentityError, match="belongs to node n2, not to node n1"):
        require(Party("node", "n2"), "node", "n1")


def test_garbage_is_not_a_certificate() -> None:
    with pytest.raises(IdentityError, match="not a PEM certificate"):
        party_from_pem(b"garbage")
