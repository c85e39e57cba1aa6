"""Questions in messages of bounded size, and what an agent may answer to them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import microvm_spec

from controlplane.agent.translate import decode_spec
from controlplane.api.gateway.peer import caller
from controlplane.api.gateway.translate import decode_bids, encode_bid_requests, raise_error
from controlplane.identity.names import IdentityError
from controlplane.ports import BidRequestItem, DriverError
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire


@given(st.lists(st.integers(0, 16), max_size=20))
@settings(max_examples=20)
def test_bid_requests_hold_every_item_and_stay_small(sizes: list[int]) -> None:
    items = [
        BidRequestItem(uid=str(number), spec=microvm_spec(metadata={f"k{key}": "x" * 65_000 for key in range(size)}))
        for number, size in enumerate(sizes)
    ]
    requests = encode_bid_requests(items)
    assert all(request.ByteSize() < 6 * 1024 * 1024 for request in requests)
    sent = [(item.uid, decode_spec(item.spec_json, at="spec")) for request in requests for item in request.items]
    assert sent == [(item.uid, item.spec) for item in items]


def test_every_item_gets_a_bid_whatever_the_agent_says() -> None:
    uids = ("offered", "refused", "missing", "nan", "infinite")
    items = [wire.BidItem(uid=uid) for uid in uids]
    answer = wire.Answer(
        bid=wire.Bid(
            answers=[
                wire.BidAnswer(uid="offered", score=0.5, parts={"vcpu": 0.5}),
                wire.BidAnswer(uid="refused", refused="no room"),
                wire.BidAnswer(uid="nan", score=math.nan),
                wire.BidAnswer(uid="infinite", score=0.1, parts={"vcpu": math.inf}),
                wire.BidAnswer(uid="never asked for", score=0.0),
            ]
        )
    )
    bids = decode_bids("h1", items, answer)
    assert tuple(bids) == uids
    assert (bids["offered"].score, bids["offered"].parts) == (0.5, {"vcpu": 0.5})
    assert bids["refused"].refused == "no room"
    assert bids["missing"].refused == "the agent did not answer this item"
    assert bids["nan"].refused == bids["infinite"].refused == "the agent's score is not a number"


def test_an_error_is_a_refusal_of_every_item() -> None:
    bids = decode_bids("h1", [wire.BidItem(uid="a")], wire.Answer(error_code="Timeout", error="too slow"))
    assert bids["a"].refused == "Timeout: too slow"


def test_an_error_keeps_its_code() -> None:
    with pytest.raises(DriverError, match="no such microVM") as raised:
        raise_error(wire.Answer(error_code="NotFound", error="no such microVM"))
    assert raised.value.code == "NotFound"
    raise_error(wire.Answer())


def test_a_caller_without_a_certificate_is_nobody() -> None:
    with pytest.raises(IdentityError, match="showed no certificate"):
        caller({})
    with pytest.raises(IdentityError, match="not a PEM certificate"):
        caller({"x509_pem_cert": [b"nonsense"]})
