"""Which open calls end when the node that was asked does not lead any more."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.consensus.calls import Calls, PeerLostError
from controlplane.consensus.messages import Answer


async def test_a_deposed_leader_may_still_answer_and_newer_calls_to_it_stay_open() -> None:
    calls = Calls()
    answered, first = calls.begin("a")
    _, second = calls.begin("a")
    _, elsewhere = calls.begin("b")
    deposed_at = calls.newest
    _, later = calls.begin("a")
    calls.answer("a", Answer(answered, 7, 1, refused=False))
    calls.peer_lost("a", up_to=deposed_at)
    assert (await first).index == 7
    with pytest.raises(PeerLostError):
        await second
    done, pending = await asyncio.wait([elsewhere, later], timeout=0)
    assert (done, len(pending)) == (set(), 2)
    calls.fail_all()
    for call in (elsewhere, later):
        with pytest.raises(PeerLostError):
            await call
