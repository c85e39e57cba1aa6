"""Batches: all or none, or each for itself; repeatable; results in the request's order."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.rig import SPEC, Rig


def vm(name: str, namespace: str = "demo", **spec: Any) -> dict[str, Any]:
    return {"kind": "MicroVM", "namespace": namespace, "name": name, "spec": {**SPEC, **spec}}


DEMO = {"kind": "Namespace", "name": "demo", "spec": {}}
EVERYTHING = [
    vm("web", placement={"policy": "spread"}),
    {"kind": "Host", "name": "h1", "labels": {"zone": "a"}},
    {"kind": "PlacementPolicy", "name": "spread", "spec": {"spread": {"by": "zone"}}},
    DEMO,
]


def outcomes(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [result["outcome"] for result in answer.json()["results"]]


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("key", [None, "batch-1"])
def test_a_batch_in_any_order_is_applied_and_may_be_repeated(api: Rig, atomic: bool, key: str | None) -> None:
    body = {"atomic": atomic, "resources": EVERYTHING, "idempotency_key": key}
    answer = api.post("/apply", body)
    assert outcomes(answer) == ["created"] * 4
    results = answer.json()["results"]
    assert [(each["kind"], each["namespace"], each["name"]) for each in results] == [
        ("MicroVM", "demo", "web"),
        ("Host", None, "h1"),
        ("PlacementPolicy", None, "spread"),
        ("Namespace", None, "demo"),
    ]
    assert api.get("/namespaces/demo/microvms/web").json()["revision"] == results[0]["revision"]
    before = api.digest
    assert outcomes(api.post("/apply", body)) == ["unchanged"] * 4
    assert api.digest == before


@pytest.mark.parametrize("atomic", [True, False])
def test_changes_and_deletions(api: Rig, atomic: bool) -> None:
    api.post("/apply", {"resources": EVERYTHING})
    body = {
        "atomic": atomic,
        "resources": [{**DEMO, "name": "other"}, {**EVERYTHING[1], "labels": {"zone": "b"}}],
        "delete": [
            {"kind": "Namespace", "name": "demo"},
            {"kind": "PlacementPolicy", "name": "spread"},
            {"kind": "MicroVM", "namespace": "demo", "name": "web"},
            {"kind": "Host", "name": "never-there"},
        ],
    }
    answer = api.post("/apply", body)
    assert outcomes(answer) == ["created", "changed", "deleted", "deleted", "deleted", "unchanged"]
    assert [item["name"] for item in api.get("/namespaces").json()["items"]] == ["other"]
    assert outcomes(api.post("/apply", body)) == ["unchanged"] * 6


def test_an_atomic_batch_is_all_or_nothing(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_microvms": 1}})
    before = api.digest
    answer = api.post("/apply", {"atomic": True, "resources": [vm("a"), vm("b")]})
    assert (answer.status_code, answer.json()["code"]) == (409, "quota_exceeded")
    assert answer.json()["errors"][0]["pointer"] == "/resources/1/name"
    assert api.digest == before


def test_each_for_itself(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_microvms": 1}})
    answer = api.post(
        "/apply",
        {
            "atomic": False,
            "resources": [vm("a", vcpu=0), vm("b"), vm("c"), vm("d", namespace="nowhere")],
            "delete": [{"kind": "Namespace", "name": "demo"}],
        },
    )
    assert outcomes(answer) == ["refused", "created", "refused", "refused", "refused"]
    problems = [result["problem"] for result in answer.json()["results"]]
    assert [problem and (problem["code"], problem["errors"][0]["pointer"]) for problem in problems] == [
        ("invalid", "/resources/0/spec/vcpu"),
        None,
        ("quota_exceeded", "/resources/2/name"),
        ("namespace_not_found", "/resources/3/namespace"),
        ("namespace_not_empty", "/delete/0/name"),
    ]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_dry_run_says_the_same_and_does_nothing(api: Rig, atomic: bool) -> None:
    before = api.digest
    body = {"atomic": atomic, "resources": EVERYTHING}
    answer = api.post("/apply", body, params={"dry_run": "true"})
    assert outcomes(answer) == ["created"] * 4
    assert answer.json()["dry_run"] is True
    assert api.digest == before
    assert outcomes(api.post("/apply", body)) == ["created"] * 4


def test_an_empty_batch(api: Rig) -> None:
    for atomic in (True, False):
        assert outcomes(api.post("/apply", {"atomic": atomic})) == []


def test_a_thousand_microvms_in_one_request(api: Rig) -> None:
    body = {"atomic": False, "resources": [DEMO, *(vm(f"vm-{number}") for number in range(1000))]}
    assert set(outcomes(api.post("/apply", body, timeout=90))) == {"created"}
    assert len(api.replica.state.microvms) == 1000
    page = api.get("/microvms", params={"limit": 5000}).json()
    assert (len(page["items"]), page["continue"]) == (1000, None)


@pytest.mark.parametrize("atomic", [True, False])
def test_each_deletion_says_why(api: Rig, atomic: bool) -> None:
    api.with_host()
    api.put_vm()
    api.place()
    gone = {"kind": "MicroVM", "namespace": "demo", "name": "web", "reason": "the trial is over"}
    assert outcomes(api.post("/apply", {"atomic": atomic, "delete": [gone]})) == ["deleted"]
    status = api.get("/namespaces/demo/microvms/web").json()["status"]
    assert status["deletion"]["reason"] == "the trial is over"
    assert api.get(f"/operations/{status['operation']}").json()["reason"] == "the trial is over"
