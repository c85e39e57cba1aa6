"""The audit chain through the API: what requests leave in it, refused ones too, and what never gets in."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest
from unit.api.rig import SPEC, TOKEN, Rig

from controlplane.api.http.trail import PER_ADDRESS, PER_PERIOD, Trail
from controlplane.model.audit import AuditRecord, followed, line_of
from controlplane.model.commands import BeginAudit

SECRETS = ("hunter2-in-user-data", "hunter2-in-annotation", "hunter2-in-query", "hunter2-in-label", TOKEN)


@pytest.fixture
def audited(api: Rig) -> Rig:
    """An API whose chain has begun."""
    api.run(trail(api).flush())
    api.reset()
    api.do(BeginAudit(node="n1"))
    return api


def trail(api: Rig) -> Trail:
    return cast("Trail", api.server.app.state.trail)


def told(api: Rig, **query: Any) -> list[dict[str, Any]]:
    api.run(trail(api).flush())
    return api.get("/audit", params=query).json()["items"]


def test_a_write_says_who_from_where_and_under_which_trace(audited: Rig) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {
        "X-Request-Id": "r-7",
        "traceparent": f"00-{trace}-00f067aa0ba902b7-01",
        "User-Agent": "terraform-provider-flintlock/1.0",
    }
    audited.put("/namespaces/demo", {"spec": {}}, headers=headers)
    (made,) = told(audited, kind="Namespace")
    assert {
        name: made[name] for name in ("actor", "action", "outcome", "name", "address", "request", "trace", "agent")
    } == {
        "actor": "alice",
        "action": "declare_namespace",
        "outcome": "created",
        "name": "demo",
        "address": "127.0.0.1",
        "request": "r-7",
        "trace": trace,
        "agent": "terraform-provider-flintlock/1.0",
    }


def test_what_is_refused_is_recorded_wherever_it_was_refused(audited: Rig) -> None:
    nobody = audited.put("/hosts/h1", {"spec": {}}, headers={"Authorization": "Bearer flk_wrong"})
    viewer = audited.caller("eve", roles=["viewer"])
    forbidden = audited.put("/hosts/h1", {"spec": {}}, headers=viewer)
    unread = audited.get("/audit", headers=viewer)
    wrong = audited.put("/namespaces/demo", {"spec": {"max_vcpu": "many"}})
    missing = audited.delete("/namespaces/nowhere")
    machine = audited.put("/namespaces/nowhere/microvms/web", {"spec": SPEC})
    audited.get("/namespaces/unread-and-harmless")
    assert [each.status_code for each in (nobody, forbidden, unread, wrong, missing, machine)] == [
        401,
        403,
        403,
        422,
        404,
        404,
    ]
    refused = told(audited, outcome="refused")
    assert sorted(
        (each["actor"] or "", each["action"], each["name"] or "", each["status"] or 0) for each in refused
    ) == [
        ("", "PUT /hosts/{name}", "h1", 401),
        ("alice", "DELETE /namespaces/{name}", "nowhere", 404),
        ("alice", "PUT /namespaces/{name}", "demo", 422),
        ("alice", "declare_microvm", "web", 0),
        ("eve", "GET /audit", "", 403),
        ("eve", "PUT /hosts/{name}", "h1", 403),
    ]


def test_what_changes_no_object_is_recorded_too(audited: Rig) -> None:
    audited.post("/raft/members", {"node": "n4", "address": "10.0.0.4:7101"})
    audited.post("/snapshots")
    audited.get("/raft/members")
    assert [(each["action"], each["outcome"]) for each in told(audited)[1:]] == [
        ("POST /raft/members", "done"),
        ("POST /snapshots", "done"),
    ]


def test_a_flood_of_refusals_is_a_bounded_number_of_records_that_count(audited: Rig) -> None:
    wrong = {"Authorization": "Bearer flk_wrong"}
    for number in range(40):
        audited.get(f"/hosts/h{number}", headers=wrong)
        audited.get("/hosts", headers=wrong)
    audited.caller("eve")
    refused = told(audited, outcome="refused")
    assert len(refused) == PER_ADDRESS + 1 <= PER_PERIOD
    assert sum(each["count"] for each in refused) == 80
    assert max(refused, key=lambda each: each["count"])["action"] in ("GET /hosts", "?")
    assert trail(audited)._notes == {}  # pyright: ignore[reportPrivateUsage]


def test_what_could_not_be_written_is_written_later(audited: Rig) -> None:
    audited.get("/hosts", headers={"Authorization": "Bearer flk_wrong"})
    audited.replica.leaderless = True
    audited.run(trail(audited).flush())
    audited.get("/hosts", headers={"Authorization": "Bearer flk_wrong"})
    audited.replica.leaderless = False
    (refused,) = told(audited, outcome="refused")
    assert refused["count"] == 2


def test_what_may_not_have_been_written_is_written_again_and_can_be_told_from_another(audited: Rig) -> None:
    audited.get("/hosts", headers={"Authorization": "Bearer flk_wrong"})
    audited.replica.lose_outcomes = 1
    audited.run(trail(audited).flush())
    first, again = told(audited, outcome="refused")
    assert first["request"]
    assert (first["request"], first["at"], first["count"]) == (again["request"], again["at"], again["count"])


def test_no_secret_gets_into_it(audited: Rig) -> None:
    user_data, annotation, query, label, _ = SECRETS
    audited.put("/namespaces/demo", {"spec": {}, "annotations": {"note": annotation}})
    audited.put("/namespaces/demo/microvms/web", {"spec": {**SPEC, "metadata": {"user-data": user_data}}})
    audited.put("/namespaces/demo/microvms/bad", {"spec": {**SPEC, "metadata": {"user-data": user_data}, "vcpu": 0}})
    audited.put("/namespaces/nowhere/microvms/web", {"spec": {**SPEC, "metadata": {"user-data": user_data}}})
    audited.put(f"/hosts/{TOKEN}", {"spec": {}}, params={"token": query})
    audited.get(f"/{TOKEN}/{query}", headers={"Authorization": f"Bearer {query}"})
    audited.put("/hosts/h1", {"spec": {}, "labels": {label: label}})
    audited.post(
        "/apply",
        {
            "resources": [
                {"kind": "MicroVM", "namespace": "demo", "name": "c", "spec": {"metadata": {"user-data": user_data}}}
            ]
        },
    )
    text = json.dumps(told(audited))
    state = b"".join(line_of(each) for each in audited.replica.state.audit.values()).decode()
    assert len(audited.replica.state.audit) >= 7
    for secret in SECRETS:
        assert secret not in text
        assert secret not in state


def test_it_is_read_in_pages_and_as_it_is_hashed(audited: Rig) -> None:
    for number in range(5):
        audited.put(f"/namespaces/n{number}", {"spec": {}})
    records: list[AuditRecord] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = audited.get("/audit", params=query).json()
        records += [
            msgspec.convert({k: v for k, v in each.items() if v is not None}, AuditRecord) for each in page["items"]
        ]
        if page["continue"] is None:
            break
        query["continue"] = page["continue"]
    assert [each.sequence for each in followed(records)] == [1, 2, 3, 4, 5, 6]
    assert page["head"] == {"sequence": 6, "hash": records[-1].hash}
    newest = audited.get("/audit", params={"limit": 2, "newest": "true"}).json()
    assert [each["name"] for each in newest["items"]] == ["n3", "n4"]
    assert audited.get("/audit", params={"continue": "x"}).json()["errors"][0]["pointer"] == "/query/continue"


def test_filters_are_joined(audited: Rig) -> None:
    audited.put("/namespaces/a", {"spec": {}})
    audited.put("/namespaces/b", {"spec": {}})
    audited.delete("/namespaces/a")
    assert [each["action"] for each in told(audited, name="a", actor="alice")] == ["declare_namespace", "delete"]
    assert [each["name"] for each in told(audited, action="declare_namespace", outcome="created")] == ["a", "b"]
    assert told(audited, since=2**50) == []
