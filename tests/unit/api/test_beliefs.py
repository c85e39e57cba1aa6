"""What `GET /cluster` says of what each node believes, and of what is waited for after a restore."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.builders import agent_connected, begin_incarnation, declare_host
from unit.api.rig import Rig

from controlplane.api.http.beliefs import disagreements
from controlplane.ports import Contact, NodeView

N1 = Contact(node="n1", role="leader", term=5, leader="n1", since_s=60.0, age_s=0.1, hears=("n2", "n3"), majority=2)
N2 = replace(N1, node="n2", role="follower", hears=("n1", "n3"))
N3 = replace(N1, node="n3", role="follower", hears=("n1", "n2"))
ALONE = replace(N3, role="candidate", leader=None, since_s=12.0, age_s=12.5, hears=(), misses=("n1", "n2"))


def views(*contacts: Contact | tuple[str, str]) -> dict[str, NodeView | str]:
    return {
        each[0] if isinstance(each, tuple) else each.node: each[1]
        if isinstance(each, tuple)
        else NodeView(contact=each, revision=7)
        for each in contacts
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (views(N1, N2, N3), []),
        (views(N1, N2, ("n3", "it cannot be reached")), []),
        (views(ALONE), []),
        (
            views(N1, N2, ALONE),
            [
                "n3 has had no leader for 12 s and hears nobody, while n1, n2 go on with n1",
                "n3 does not hear n1, which hears n3",
                "n3 does not hear n2, which hears n3",
            ],
        ),
        (
            views(N1, replace(N2, leader="n2", role="leader", term=6), replace(N3, leader="n2", term=6)),
            ["nodes disagree on who leads: n1 say n1 (term 5); n2, n3 say n2 (term 6)"],
        ),
        (
            views(replace(N1, hears=("n2",), misses=("n3",)), N2, N3),
            ["n1 does not hear n3, which hears n1"],
        ),
        (views(replace(N1, hears=("n2",), misses=("n3",)), N2, replace(N3, hears=("n2",), misses=("n1",))), []),
    ],
    ids=["agreed", "one is not there", "one alone", "cut off", "two leaders", "one way only", "neither way"],
)
def test_where_nodes_contradict_each_other(found: dict[str, NodeView | str], expected: list[str]) -> None:
    assert disagreements(found) == expected


def test_every_node_is_listed_with_what_it_believes_or_why_it_was_not_asked(api: Rig) -> None:
    api.agents.views_of = views(N1, ("n2", "it did not answer in time"))
    found: dict[str, Any] = api.get("/cluster").json()
    by_node = {each["node"]: each for each in found["nodes"]}
    assert by_node["n1"]["belief"]["leader"] == "n1"
    assert (by_node["n1"]["belief"]["revision"], by_node["n1"]["belief"]["hears"]) == (7, ["n2", "n3"])
    assert (by_node["n2"]["belief"], by_node["n2"]["not_asked"]) == (None, "it did not answer in time")
    assert found["disagreements"] == []
    assert found["restore"] is None


def test_the_wait_after_a_restore_is_told_with_its_end(api: Rig) -> None:
    api.do(declare_host())
    api.do(agent_connected())
    api.log.changes = {"incarnation": 2}
    api.agents.views_of = {"n1": NodeView(contact=N1, revision=7, waits_s=12.4), **views(N2)}
    waiting = api.get("/cluster").json()["restore"]
    assert (waiting["begun"], waiting["waits_s"], waiting["incarnation"]) == (False, 12.4, 2)
    assert "every lease of the lost history has ended" in waiting["message"]
    assert "12 s at most" in waiting["message"]
    api.agents.views_of = views(N2, ("n1", "it cannot be reached"))
    unknown = api.get("/cluster").json()["restore"]
    assert (unknown["waits_s"], "cannot be asked" in unknown["message"]) == (None, True)
    api.do(begin_incarnation(2))
    told = api.get("/cluster").json()["restore"]
    assert (told["begun"], told["awaited"]) == (True, ["h1"])
    assert "nothing is placed before h1 told" in told["message"]
