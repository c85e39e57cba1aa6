"""Whether agents of a node without a leader stay, from what the other nodes believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from controlplane.api.gateway.staying import BEHIND_S, CUT_OFF_S, TELL_S, Advice, Adviser, is_led_nowhere
from controlplane.ports import Contact, NodeView

OWN = Contact(node="n1", role="candidate", term=4, leader=None, since_s=1.0, age_s=2.0, majority=2)
LED = replace(OWN, node="n2", role="follower", leader="n3")
LOST = replace(OWN, node="n2")


def view(contact: Contact) -> NodeView:
    return NodeView(contact=contact, revision=1)


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (OWN, {"n2": view(LOST), "n3": "it did not answer in time"}, True),
        (OWN, {"n2": view(LED), "n3": "it did not answer in time"}, False),
        (OWN, {"n2": view(LOST), "n3": view(replace(LED, node="n3", role="leader"))}, False),
        (OWN, {"n2": "it cannot be reached", "n3": "it cannot be reached"}, False),
        (OWN, {"n2": "its version does not tell", "n3": "it cannot be reached"}, False),
        (replace(OWN, majority=1), {}, True),
        (replace(OWN, majority=3), {"n2": view(LOST), "n3": "x", "n4": "x", "n5": "x"}, False),
        (OWN, {"n2": view(replace(LOST, votes=False)), "n3": "it cannot be reached"}, False),
        (replace(OWN, role="silent"), {"n2": view(LOST), "n3": view(LOST)}, False),
    ],
    ids=[
        "a majority without one",
        "a neighbour follows one",
        "the leader is heard by this way",
        "alone",
        "older nodes",
        "the only node",
        "two of five",
        "learners do not count",
        "its own log is silent",
    ],
)
def test_there_is_no_leader_anywhere(own: Contact, others: Mapping[str, NodeView | str], expected: bool) -> None:
    assert is_led_nowhere(own, others) is expected


@dataclass
class World:
    """A node, the others, and the time. Is its own reader, link and clock."""

    contact: Contact = OWN
    caught_up: bool = False
    others: dict[str, NodeView | str] = field(default_factory=dict)
    now_s: float = 100.0
    said: list[Advice] = field(default_factory=list)

    def monotonic_s(self) -> float:
        return self.now_s

    async def views(self, *, timeout_s: float) -> Mapping[str, NodeView | str]:
        return {"n1": view(self.contact), **self.others}

    async def after(self, adviser: Adviser, seconds: float) -> Advice:
        self.now_s += seconds
        await adviser.look()
        return self.said[-1]


def adviser_of(world: World) -> Adviser:
    return Adviser("n1", world, world, world, world.said.append)  # type: ignore[arg-type]


async def test_agents_are_sent_away_once_others_had_the_time_to_notice() -> None:
    world = World(others={"n2": view(LED), "n3": "it cannot be reached"})
    adviser = adviser_of(world)
    assert await world.after(adviser, 0.1) is Advice.SERVE
    world.others["n2"] = view(LOST)
    assert await world.after(adviser, CUT_OFF_S) is Advice.STAY
    told = len(world.said)
    await world.after(adviser, TELL_S / 2)
    assert len(world.said) == told, "thousands of agents need not hear it four times a second"
    assert await world.after(adviser, 60.0) is Advice.STAY, "for as long as it takes"
    world.others["n2"] = view(LED)
    assert await world.after(adviser, 0.1) is Advice.SERVE
    assert await world.after(adviser, CUT_OFF_S) is Advice.LEAVE


async def test_a_replica_that_does_not_follow_sends_its_agents_away() -> None:
    world = World(contact=replace(OWN, leader="n3"))
    adviser = adviser_of(world)
    assert await world.after(adviser, BEHIND_S - 0.1) is Advice.SERVE
    assert await world.after(adviser, 0.2) is Advice.LEAVE
    world.caught_up = True
    assert await world.after(adviser, 0.1) is Advice.SERVE
