"""Declaring, reading, deleting and listing every kind, as a client sees it."""

from __future__ import annotations

import pytest
from support.builders import agent_connected, inventory, report, suspected
from unit.api.rig import SPEC, Rig

from controlplane.model.resources import ObservedPower, Unmanaged

KINDS = [
    ("/namespaces/demo2", "Namespace", {"max_vcpu": 8}, {"max_vcpu": 9}),
    ("/placementpolicies/spread", "PlacementPolicy", {"required_host_labels": {"zone": "a"}}, {}),
    ("/hosts/h9", "Host", {"schedulable": True}, {"schedulable": False}),
    (
        "/namespaces/demo/microvmgroups/web",
        "MicroVMGroup",
        {"replicas": 3, "template": SPEC},
        {"replicas": 4, "template": SPEC},
    ),
    ("/namespaces/demo/microvms/web", "MicroVM", SPEC, {**SPEC, "vcpu": 2}),
]


@pytest.mark.parametrize(("path", "kind", "spec", "other"), KINDS, ids=[kind for _, kind, _, _ in KINDS])
def test_every_kind_is_created_read_changed_and_deleted(
    api: Rig, path: str, kind: str, spec: dict[str, object], other: dict[str, object]
) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    created = api.put(path, {"labels": {"team": "a"}, "annotations": {"note": "x y"}, "spec": spec})
    assert created.status_code == 201, created.text
    body = created.json()
    assert (body["kind"], body["generation"], body["changed"], body["warnings"]) == (kind, 1, True, [])
    assert body["name"] == path.rsplit("/", 1)[1]
    assert body["labels"] == {"team": "a"}
    assert body["annotations"] == {"note": "x y"}
    assert len(body["uid"]) == 26
    assert body["created_at"] == body["updated_at"]
    assert body["created_at"].endswith("Z")
    assert created.headers["ETag"] == f'"{body["revision"]}"'

    read = api.get(path)
    assert read.status_code == 200
    assert {**read.json(), "changed": True, "warnings": []} == body
    assert read.headers["ETag"] == created.headers["ETag"]
    assert int(read.headers["Flintlock-Revision"]) == api.replica.state.revision

    same = api.put(path, {"labels": {"team": "a"}, "annotations": {"note": "x y"}, "spec": read.json()["spec"]})
    assert (same.status_code, same.json()["changed"]) == (200, False)
    assert same.json()["revision"] == body["revision"]

    changed = api.put(path, {"spec": other})
    assert (changed.status_code, changed.json()["changed"], changed.json()["generation"]) == (200, True, 2)
    assert changed.json()["labels"] == {}
    assert changed.json()["uid"] == body["uid"]

    deleted = api.delete(path)
    assert (deleted.status_code, deleted.json()["uid"]) == (200, body["uid"])
    gone = api.get(path)
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert api.delete(path).status_code == 404


def test_deleting_a_placed_microvm_waits_for_its_host(api: Rig) -> None:
    api.with_host()
    api.active()
    for _ in range(2):
        answer = api.delete("/namespaces/demo/microvms/web")
        assert answer.status_code == 202
        assert answer.json()["status"]["phase"] == "deleting"
        assert answer.json()["deletion_requested_at"] is not None
    again = api.put("/namespaces/demo/microvms/web", {"spec": SPEC})
    assert (again.status_code, again.json()["code"]) == (409, "being_deleted")
    api.confirm_destroyed()
    assert api.get("/namespaces/demo/microvms/web").status_code == 404


def test_what_is_in_use_is_not_deleted(api: Rig) -> None:
    api.with_host()
    api.put("/placementpolicies/spread", {"spec": {}})
    api.active(placement={"policy": "spread"})
    for path, code in (
        ("/namespaces/demo", "namespace_not_empty"),
        ("/hosts/h1", "host_in_use"),
        ("/placementpolicies/spread", "policy_in_use"),
    ):
        answer = api.delete(path)
        assert (answer.status_code, answer.json()["code"]) == (409, code), path
        assert answer.json()["hint"]


def test_microvm_status_tells_what_its_host_saw(api: Rig) -> None:
    api.with_host()
    pending = api.put_vm(interfaces={"eth1": {"type": "tap"}})
    assert pending["status"]["phase"] == "pending"
    assert pending["status"]["power_state"] is None
    api.place()
    assert api.get("/namespaces/demo/microvms/web").json()["status"]["phase"] == "placed"
    api.report(details={"pid": "42"})
    status = api.get("/namespaces/demo/microvms/web").json()["status"]
    assert (status["phase"], status["host"], status["epoch"], status["observed_generation"]) == ("active", "h1", 1, 1)
    assert (status["power_state"], status["ready"], status["simulated"], status["driver"]) == (
        "running",
        True,
        True,
        "simulated",
    )
    assert status["details"] == {"pid": "42"}
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Placed": "true",
        "Running": "true",
        "Ready": "true",
        "InSync": "true",
    }
    assert status["drift"] == {"class": "in_sync", "fields": []}

    api.report(power=ObservedPower.STOPPED, ready=False, cause="process exited (signal 9)")
    drift = api.get("/namespaces/demo/microvms/web").json()["status"]["drift"]
    assert drift["class"] == "drifted"
    (field,) = drift["fields"]
    assert (field["pointer"], field["desired"], field["observed"]) == ("/spec/power_state", "running", "stopped")
    assert field["cause"] == "process exited (signal 9)"
    assert field["since"]


def test_a_host_is_expected_ready_and_suspect(api: Rig) -> None:
    assert api.put("/hosts/h1", {"spec": {}}).json()["status"]["phase"] == "expected"
    api.do(agent_connected("h1", vcpu=4, memory_in_mb=2048))
    status = api.get("/hosts/h1").json()["status"]
    assert (status["phase"], status["connected_to"], status["driver"]) == ("ready", "n1", "simulated")
    assert status["capacity"] == {"vcpu": 4, "memory_in_mb": 2048, "microvms": 0}
    api.put("/namespaces/demo", {"spec": {}})
    api.active(vcpu=2, memory_in_mb=256)
    assert api.get("/hosts/h1").json()["status"]["allocated"] == {"vcpu": 2, "memory_in_mb": 256, "microvms": 1}
    assert (status["lease_ttl_s"], status["fences"], status["stale"], status["reason"]) == (10.0, True, [], "")
    api.do(suspected())
    status = api.get("/hosts/h1").json()["status"]
    assert (status["phase"], status["connected_to"], status["reason"]) == ("suspect", "n1", "silent for 3 s")
    assert api.get("/namespaces/demo/microvms/web").json()["status"]["drift"]["class"] == "unreachable"


def test_an_undeclared_agent_is_listed_and_not_found(api: Rig) -> None:
    api.do(agent_connected("stranger"))
    assert api.get("/hosts/stranger").status_code == 404
    found = api.get("/hosts/stranger", params={"include_pending": "true"}).json()
    assert (found["declared"], found["spec"], found["status"]["phase"]) == (False, None, "pending")
    (listed,) = api.get("/hosts").json()["items"]
    assert (listed["name"], listed["declared"]) == ("stranger", False)
    assert api.delete("/hosts/stranger").status_code == 404
    admitted = api.put("/hosts/stranger", {"spec": {}})
    assert (admitted.status_code, admitted.json()["status"]["phase"]) == (201, "ready")


def test_a_host_shows_what_nobody_declared(api: Rig) -> None:
    api.with_host()
    api.do(report(unmanaged=[Unmanaged(native_id="/run/x", driver="simulated", name="rogue", since=1)]))
    (found,) = api.get("/hosts/h1").json()["status"]["unmanaged"]
    assert (found["native_id"], found["name"], found["power_state"]) == ("/run/x", "rogue", "running")
    assert inventory().agent_version == api.get("/hosts/h1").json()["status"]["agent_version"]


def test_used_amounts(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_vcpu": 4}})
    api.put("/placementpolicies/p", {"spec": {}})
    api.put_vm("a", vcpu=2, placement={"policy": "p"})
    used = api.get("/namespaces/demo").json()["status"]["used"]
    assert used == {"microvms": 1, "vcpu": 2, "memory_in_mb": 128}
    assert api.get("/placementpolicies/p").json()["status"]["used_by"] == 1
    over = api.put("/namespaces/demo/microvms/b", {"spec": {**SPEC, "vcpu": 3}})
    assert (over.status_code, over.json()["code"]) == (409, "quota_exceeded")
    assert over.json()["errors"][0]["pointer"] == "/spec/vcpu"


def test_microvm_by_uid(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    uid = api.put_vm()["uid"]
    assert api.get(f"/microvms/by-uid/{uid}").json()["name"] == "web"
    missing = api.get("/microvms/by-uid/01M82GMRAM739V28NRHMZ2KBS9")
    assert (missing.status_code, missing.json()["errors"][0]["pointer"]) == (404, "/uid")


MOVES = {"on_host_failure": "restart_elsewhere"}
LOCAL = {"kind": "local", "size_in_mb": 64}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"recovery": MOVES}, []),
        ({"recovery": {**MOVES, "allow_data_loss": True}, "root_volume": LOCAL}, []),
        ({"recovery": {}, "root_volume": LOCAL}, []),
        ({"recovery": MOVES, "additional_volumes": {"data": LOCAL}}, ["spec.recovery.allow_data_loss"]),
        ({"recovery": MOVES, "placement": {"host": "h1"}}, ["spec.placement.host"]),
        ({"recovery": {"on_detach": "stop"}}, ["spec.recovery.on_detach"]),
    ],
)
def test_recovery_that_will_not_do_what_it_seems_to_is_warned_of(
    api: Rig, spec: dict[str, object], words: list[str]
) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    assert [warning.partition(":")[0] for warning in api.put_vm(**spec)["warnings"]] == words


def test_what_is_kept_cannot_be_restarted_elsewhere(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    answer = api.put("/namespaces/demo/microvms/web", {"spec": {**SPEC, "recovery": {**MOVES, "on_detach": "keep"}}})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == "/spec/recovery/on_detach"


# -- lists -------------------------------------------------------------------------------------------------------------


def test_lists_are_filtered(api: Rig) -> None:
    api.with_host()
    api.put("/namespaces/other", {"spec": {}})
    for namespace, name, labels in (
        ("demo", "a", {"app": "web", "tier": "1"}),
        ("demo", "b", {"app": "web"}),
        ("other", "a", {"app": "db"}),
    ):
        answer = api.put(f"/namespaces/{namespace}/microvms/{name}", {"labels": labels, "spec": SPEC})
        assert answer.status_code == 201
    api.place("b")

    def names(path: str, **params: object) -> list[str]:
        answer = api.get(path, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.json()["revision"] == int(answer.headers["Flintlock-Revision"])
        return [f"{item['namespace']}/{item['name']}" for item in answer.json()["items"]]

    assert names("/microvms") == ["demo/a", "demo/b", "other/a"]
    assert names("/namespaces/demo/microvms") == ["demo/a", "demo/b"]
    assert names("/microvms", label="app=web") == ["demo/a", "demo/b"]
    assert names("/microvms", label=["app=web", "tier=1"]) == ["demo/a"]
    assert names("/microvms", name="a") == ["demo/a", "other/a"]
    assert names("/namespaces/demo/microvms", name=["b", "a", "none", "b"]) == ["demo/a", "demo/b"]
    assert names("/namespaces/demo/microvms", name=["b", "a"], label="tier=1") == ["demo/a"]
    assert names("/microvms", name=["a", "b"]) == ["demo/a", "demo/b", "other/a"]
    assert api.get("/namespaces/demo/microvms", params={"name": ["a"] * 65}).status_code == 422
    assert api.get("/namespaces/demo/microvms?name=Not_A_Name").status_code == 422
    assert names("/microvms", host="h1") == ["demo/b"]
    missing = api.get("/namespaces/nowhere/microvms")
    assert (missing.status_code, missing.json()["code"]) == (404, "namespace_not_found")


def test_pages_neither_repeat_nor_hide_anything(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    for number in range(7):
        api.put_vm(f"vm-{number}")
    seen: list[str] = []
    params: dict[str, object] = {"limit": 3}
    while True:
        page = api.get("/microvms", params=params).json()
        seen += [item["name"] for item in page["items"]]
        if page["continue"] is None:
            break
        # What has been seen may go, and what was not there may come, between two pages.
        api.delete(f"/namespaces/demo/microvms/{seen[0]}")
        params = {"limit": 3, "continue": page["continue"]}
    assert seen == [f"vm-{number}" for number in range(7)]
    left = len(api.get("/microvms").json()["items"])
    exact = api.get("/microvms", params={"limit": left}).json()
    assert (len(exact["items"]), exact["continue"]) == (left, None)


@pytest.mark.parametrize("path", ["/namespaces", "/hosts", "/placementpolicies"])
def test_other_kinds_are_listed_by_page_and_label(api: Rig, path: str) -> None:
    for name in ("a", "b", "c"):
        assert api.put(f"{path}/{name}", {"labels": {"is": name}}).status_code == 201
    first = api.get(path, params={"limit": 2}).json()
    assert [item["name"] for item in first["items"]] == ["a", "b"]
    second = api.get(path, params={"limit": 2, "continue": first["continue"]}).json()
    assert ([item["name"] for item in second["items"]], second["continue"]) == (["c"], None)
    assert [item["name"] for item in api.get(path, params={"label": "is=b"}).json()["items"]] == ["b"]
    assert [item["name"] for item in api.get(path, params={"name": "c"}).json()["items"]] == ["c"]
