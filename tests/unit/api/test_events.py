"""Recent events through the API: who sees which, page by page, and that a cut list says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from unit.api.rig import SPEC, Rig

from controlplane.machine import recent_events
from controlplane.model.resources import ObservedPower


@pytest.fixture
def fleet(api: Rig) -> Rig:
    """A host with a running microVM `demo/web`, and a namespace `other` with one that waits."""
    api.with_host()
    api.active()
    api.put("/namespaces/other", {"spec": {}})
    api.put("/namespaces/other/microvms/db", {"spec": SPEC})
    return api


def told(api: Rig, *, headers: Mapping[str, str] | None = None, **query: Any) -> list[str]:
    items = api.get("/events", params=query, headers=headers or {}).json()["items"]
    return [f"{each['kind']}/{each['name']} {each['reason']}" for each in items]


def test_it_tells_what_came_about_in_order(fleet: Rig) -> None:
    assert told(fleet, kind="MicroVM", namespace="demo", name="web") == [
        "MicroVM/web Declared",
        "MicroVM/web Placed",
        "MicroVM/web Running",
        "MicroVM/web Ready",
    ]
    placed = fleet.get("/events", params={"reason": "Placed"}).json()["items"][0]
    assert (placed["host"], placed["type"], placed["namespace"]) == ("h1", "normal", "demo")
    assert placed["id"] == f"{placed['revision']}.0"
    assert told(fleet, reason=["Placed", "Ready"], kind="MicroVM") == ["MicroVM/web Placed", "MicroVM/web Ready"]
    assert "Host/h1 Declared" in told(fleet, host="h1")
    assert "MicroVM/db Declared" not in told(fleet, host="h1")


def test_warnings_can_be_asked_for_alone(fleet: Rig) -> None:
    assert told(fleet, type="warning") == []
    fleet.report("web", power=ObservedPower.STOPPED)
    assert told(fleet, type="warning") == ["MicroVM/web Drifted"]
    assert "MicroVM/web Drifted" not in told(fleet, type="normal")


def test_it_is_read_in_pages_and_followed_from_an_id(fleet: Rig) -> None:
    every = told(fleet)
    read: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = fleet.get("/events", params=query).json()
        read += [f"{each['kind']}/{each['name']} {each['reason']}" for each in page["items"]]
        assert page["more"] is (page["continue"] is not None)
        if not page["more"]:
            break
        query["continue"] = page["continue"]
    assert read == every
    last = page["items"][-1]["id"]
    fleet.put("/namespaces/late", {"spec": {}})
    assert told(fleet, **{"continue": last}) == ["Namespace/late Declared"]
    assert told(fleet, **{"from": page["revision"]}) == ["Namespace/late Declared"]
    newest = fleet.get("/events", params={"newest": "true", "limit": 2}).json()
    assert [each["name"] for each in newest["items"]] == ["db", "late"]
    assert (newest["more"], newest["continue"]) == (True, None)


def test_a_caller_sees_the_events_of_what_it_may_read(fleet: Rig) -> None:
    visitor = fleet.caller("eve")
    fleet.bind("eve", "viewer", "other")
    assert told(fleet, headers=visitor) == ["Namespace/other Declared", "MicroVM/db Declared"]
    assert told(fleet, headers=fleet.caller("nobody")) == []


def test_what_is_gone_is_told_to_whom_no_label_restricts(fleet: Rig) -> None:
    """It has no labels any more, and what took its name since has its own."""
    fleet.put(
        "/roles/front", {"spec": {"rules": [{"verbs": ["read"], "kinds": ["MicroVM"], "labels": {"tier": "front"}}]}}
    )
    front = fleet.caller("front")
    fleet.bind("front", "front")
    fleet.put("/namespaces/other/microvms/old", {"spec": SPEC})
    fleet.delete("/namespaces/other/microvms/old")
    fleet.put("/namespaces/other/microvms/old", {"spec": SPEC, "labels": {"tier": "front"}})
    assert told(fleet, name="old") == [
        "MicroVM/old Declared",
        "MicroVM/old Deleted",
        "MicroVM/old Declared",
    ]
    assert told(fleet, headers=front) == ["MicroVM/old Declared"]


def test_a_list_that_is_cut_says_so(fleet: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fleet.get("/events").json()
    assert (whole["complete"], whole["forgotten_revision"]) == (True, 0)
    monkeypatch.setattr(recent_events, "KEPT", 4)
    fleet.put("/namespaces/late", {"spec": {}})
    cut = fleet.get("/events").json()
    assert (cut["complete"], cut["held"], len(cut["items"])) == (False, 4, 4)
    assert cut["oldest_at"] == cut["items"][0]["at"]
    forgotten = cut["forgotten_revision"]
    assert forgotten > 0
    assert fleet.get("/events", params={"from": forgotten}).json()["complete"] is True
    assert fleet.get("/events", params={"from": forgotten - 1}).json()["complete"] is False
    assert fleet.get("/events", params={"continue": "1.0"}).json()["complete"] is False
    assert fleet.get("/events", params={"since": 2**50}).json()["complete"] is True


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"continue": "x"}, "/query/continue"),
        ({"reason": "Exploded"}, "/query/reason/0"),
        ({"kind": "Pod"}, "/query/kind"),
        ({"host": "H1!"}, "/query/host"),
        ({"type": "bad"}, "/query/type"),
        ({"limit": 0}, "/query/limit"),
        ({"uid": "x"}, "/query/uid"),
    ],
)
def test_a_wrong_question_names_its_parameter(api: Rig, query: dict[str, Any], pointer: str) -> None:
    answer = api.get("/events", params=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
