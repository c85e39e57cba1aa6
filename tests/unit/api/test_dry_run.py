"""Dry runs say what would happen and where, and change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from support.builders import agent_connected, declare_host
from unit.api.rig import SPEC, Rig

from controlplane.model.commands import DeclareNamespace, versions

VM = "/namespaces/demo/microvms/web"
DRY = {"dry_run": "true"}


@pytest.fixture(autouse=True)
def nothing_changes(api: Rig) -> Any:
    api.with_host()
    yield
    assert api.get("/microvms").status_code == 200


def dry(api: Rig, spec: dict[str, Any], path: str = VM, **body: Any) -> dict[str, Any]:
    before = api.digest
    answer = api.put(path, {"spec": spec, **body}, params=DRY)
    assert answer.status_code == 200, answer.text
    assert api.digest == before
    return answer.json()


def test_a_create_shows_the_choice_and_every_bid(api: Rig) -> None:
    for name in ("h2", "h3", "h4"):
        api.do(declare_host(name))
    api.do(agent_connected("h2"))
    api.do(agent_connected("h3", vcpu=1))
    api.agents.scores = {"h1": 0.5, "h2": 0.25}
    plan = dry(api, {**SPEC, "vcpu": 2})
    assert (plan["dry_run"], plan["outcome"], plan["changes"]) == (True, "create", [])
    placement = plan["placement"]
    assert placement["host"] == "h2"
    bids = {bid["host"]: bid for bid in placement["bids"]}
    assert (bids["h1"]["score"], bids["h2"]["score"]) == (0.5, 0.25)
    assert "vcpu" in bids["h3"]["refused"]
    assert "expected" in bids["h4"]["refused"]
    assert api.get(VM).status_code == 404


def test_hosts_that_do_not_answer_in_time_are_shown(api: Rig) -> None:
    api.agents.hang = True
    placement = dry(api, SPEC)["placement"]
    assert placement["host"] is None
    assert "did not answer within 0.3 s" in placement["bids"][0]["refused"]
    api.agents.hang = False
    assert "no session" in dry(api, SPEC)["placement"]["bids"][0]["refused"]


def test_an_update_shows_each_field_and_its_effect(api: Rig) -> None:
    api.agents.scores = {"h1": 0.1}
    api.active()
    plan = dry(
        api, {**SPEC, "vcpu": 2, "power_state": "stopped", "kernel": {"image": "demo/kernel:6.2"}}, labels={"a": "b"}
    )
    assert (plan["outcome"], plan["placement"]) == ("update", None)
    assert {(each["pointer"], each["from"], each["to"], each["effect"]) for each in plan["changes"]} == {
        ("/spec/vcpu", 1, 2, "restart"),
        ("/spec/kernel/image", "demo/kernel:6.1", "demo/kernel:6.2", "restart"),
        ("/spec/power_state", "running", "stopped", "live"),
        ("/labels/a", None, "b", "live"),
    }
    assert dry(api, SPEC)["outcome"] == "none"


def test_a_replacement_is_an_outcome_and_no_error(api: Rig) -> None:
    api.active()
    plan = dry(api, {**SPEC, "root_volume": {"container_source": "demo/root:1"}})
    assert plan["outcome"] == "replace"
    assert {each["effect"] for each in plan["changes"]} == {"replace"}


def test_what_the_write_would_refuse_is_refused(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_vcpu": 1}})
    answer = api.put(VM, {"spec": {**SPEC, "vcpu": 2}}, params=DRY)
    assert (answer.status_code, answer.json()["code"]) == (409, "quota_exceeded")
    answer = api.put("/namespaces/none/microvms/web", {"spec": SPEC}, params=DRY)
    assert (answer.status_code, answer.json()["code"]) == (404, "namespace_not_found")
    api.put(VM, {"spec": SPEC})
    answer = api.put(VM, {"spec": SPEC}, params=DRY, headers={"If-None-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (412, "already_exists")
    assert answer.json()["existing"]["uid"] == api.vm().meta.uid


@pytest.mark.parametrize("path", ["/namespaces/new", "/hosts/new", "/placementpolicies/new"])
def test_other_kinds(api: Rig, path: str) -> None:
    assert dry(api, {}, path)["outcome"] == "create"
    api.put(path, {"spec": {}})
    assert dry(api, {}, path)["outcome"] == "none"
    plan = dry(api, {}, path, labels={"a/b": "c"})
    assert plan["outcome"] == "update"
    assert [(each["pointer"], each["from"], each["to"]) for each in plan["changes"]] == [("/labels/a~1b", None, "c")]


def test_warnings_are_shown(api: Rig) -> None:
    plan = dry(api, {**SPEC, "recovery": {"on_detach": "stop"}})
    assert len(plan["warnings"]) == 1


GROUP = "/namespaces/demo/microvmgroups/web"


def group(replicas: int, **template: Any) -> dict[str, Any]:
    return {"replicas": replicas, "template": {**SPEC, **template}}


def test_the_members_of_a_group_are_placed_together(api: Rig) -> None:
    """Three of two vcpu fit on neither host alone: each is placed where the ones before it left room."""
    api.do(declare_host("h2"))
    api.do(agent_connected("h1", vcpu=4))
    api.do(agent_connected("h2", vcpu=4))
    api.agents.scores = {"h1": 0.1, "h2": 0.2}
    members = dry(api, group(3, vcpu=2), GROUP)["members"]
    assert (members["missing"], members["looked_at"], members["unplaced"], members["stopped"]) == (3, 3, 0, None)
    assert members["hosts"] == [{"host": "h1", "members": 2}, {"host": "h2", "members": 1}]
    short = dry(api, group(6, vcpu=2), GROUP)["members"]
    assert (short["missing"], short["looked_at"], short["unplaced"]) == (6, 6, 2)
    assert sum(each["members"] for each in short["hosts"]) == 4
    assert "vcpu" in short["reason"]
    assert {bid["host"] for bid in short["bids"]} == {"h1", "h2"}


def test_a_quota_that_stops_a_group_is_told_in_advance(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_vcpu": 2}})
    api.agents.scores = {"h1": 0.1}
    members = dry(api, group(5), GROUP)["members"]
    assert (members["missing"], members["looked_at"]) == (5, 2)
    assert members["stopped"]["reason"] == "QuotaExceeded"
    assert "2" in members["stopped"]["message"]


def test_a_large_group_is_looked_at_in_part_and_one_that_is_there_not_at_all(api: Rig) -> None:
    api.do(agent_connected("h1", vcpu=4096, memory_in_mb=1_000_000))
    api.agents.scores = {"h1": 0.1}
    members = dry(api, group(500), GROUP)["members"]
    assert (members["missing"], members["looked_at"]) == (500, 64)
    assert members["hosts"] == [{"host": "h1", "members": 64}]
    assert dry(api, group(0), GROUP)["members"]["missing"] == 0
    assert dry(api, SPEC)["members"] is None


@pytest.mark.parametrize("atomic", [None, True, False], ids=["alone", "together", "each"])
def test_what_not_every_node_can_read_yet_is_refused_as_the_write_would_be(
    api: Rig, monkeypatch: pytest.MonkeyPatch, atomic: bool | None
) -> None:
    monkeypatch.setitem(versions.SINCE, DeclareNamespace, versions.MACHINE_VERSION + 1)
    if atomic is None:
        answer = api.put("/namespaces/new", {"spec": {}}, params=DRY)
    else:
        resources = [{"kind": "Namespace", "name": "new", "spec": {}}]
        answer = api.post("/apply", {"resources": resources, "atomic": atomic}, params=DRY)
    assert answer.status_code == 503, answer.text
    assert answer.json()["code"] == "upgrade_pending"
    assert "every node runs a build" in answer.json()["detail"]
