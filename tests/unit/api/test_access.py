"""Roles and bindings as their users meet them: refusals that explain themselves, and lists of what is theirs."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from unit.api.rig import SPEC, Rig

from controlplane.api.http.standing import LOOK_S


@pytest.fixture
def teams(api: Rig) -> Rig:
    """Two namespaces with a microVM each."""
    for namespace in ("blue", "red"):
        api.put(f"/namespaces/{namespace}", {"spec": {}})
        api.put(f"/namespaces/{namespace}/microvms/web", {"spec": SPEC, "labels": {"tier": namespace}})
    return api


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [f"{item.get('namespace')}/{item['name']}" for item in answer.json()["items"]]


def test_a_refusal_says_who_what_where_and_what_would_allow_it(teams: Rig) -> None:
    ci = teams.caller("ci")
    teams.bind("ci", "operator", "blue")
    before = teams.digest
    answer = teams.put("/namespaces/red/microvms/web", {"spec": SPEC}, headers=ci)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (403, "forbidden")
    assert problem["detail"] == (
        "token ci may not declare MicroVM red/web: role operator, given by binding ci, holds in namespace blue only"
    )
    assert "a binding of the built-in role operator in namespace red" in problem["hint"]
    assert teams.digest == before


def test_nobody_may_anything_by_default(teams: Rig) -> None:
    nobody = teams.caller("nobody")
    assert teams.get("/microvms", headers=nobody).status_code == 403
    assert teams.get("/auth/whoami", headers=nobody).json()["roles"] == []


def test_lists_drift_and_watches_hold_what_one_may_see(teams: Rig) -> None:
    ci = teams.caller("ci")
    teams.bind("ci", "viewer", "blue")
    assert names(teams.get("/microvms", headers=ci)) == ["blue/web"]
    assert names(teams.get("/namespaces", headers=ci)) == ["None/blue"]
    assert names(teams.get("/namespaces/red/microvms", headers=ci)) == []
    drift = teams.get("/drift", headers=ci).json()
    assert [item["namespace"] for item in drift["items"]] == ["blue"]
    assert sum(drift["summary"].values()) == 1
    with teams.request("GET", "/watch?from=0", headers=ci, stream=True) as stream:
        teams.put("/namespaces/red/microvms/late", {"spec": SPEC})
        teams.put("/namespaces/blue/microvms/last", {"spec": SPEC})
        seen: set[str] = set()
        for line in stream.iter_lines():
            if line.startswith(b"data: "):
                resource = json.loads(line[6:])["object"]
                seen.add(resource.get("namespace") or resource.get("name") or resource["target"]["namespace"])
                if resource.get("name") == "last":
                    break
    assert seen == {"blue"}


@pytest.mark.parametrize("lost", ["its binding", "its token"])
def test_a_stream_ends_when_what_allowed_it_is_taken_back(teams: Rig, lost: str) -> None:
    ci = teams.caller("ci")
    teams.bind("ci", "viewer", "blue")
    teams.bind("other", "viewer", "red")
    with teams.get("/watch", headers=ci, params={"namespace": "blue"}, stream=True, timeout=10) as stream:
        time.sleep(2 * LOOK_S)
        assert teams.watchers.open == 1, "it lasts as long as nothing is taken away"
        if lost == "its token":
            teams.tokens.others.clear()
        else:
            # What is left, in another namespace, is not what this stream is about.
            teams.bind("rest", "viewer", "red", subject="token/ci")
            assert teams.delete("/rolebindings/ci").status_code == 200
        told = stream.raw.read().decode()
    assert ("taken back" if lost == "its binding" else "credential has ended") in told


def test_a_batch_is_judged_item_by_item(teams: Rig) -> None:
    ci = teams.caller("ci")
    teams.bind("ci", "operator", "blue")
    items = [{"kind": "MicroVM", "namespace": each, "name": "new", "spec": SPEC} for each in ("blue", "red")]
    before = teams.digest
    together = teams.post("/apply", {"resources": items}, headers=ci)
    assert (together.status_code, together.json()["errors"][0]["pointer"]) == (403, "/resources/1")
    assert teams.digest == before
    each = teams.post("/apply", {"resources": items, "atomic": False}, headers=ci).json()["results"]
    assert [(one["outcome"], (one["problem"] or {}).get("code")) for one in each] == [
        ("created", None),
        ("refused", "forbidden"),
    ]
    gone = {"delete": [{"kind": "MicroVM", "namespace": "red", "name": "absent"}]}
    assert teams.post("/apply", gone, headers=ci).status_code == 403


def test_a_label_selector_holds_for_what_is_there_and_for_what_it_becomes(teams: Rig) -> None:
    rules = [{"verbs": ["declare", "read"], "kinds": ["MicroVM"], "labels": {"tier": "blue"}}]
    assert teams.put("/roles/blue-only", {"spec": {"rules": rules}}).status_code == 201
    teams.bind("ci", "blue-only")
    ci = teams.caller("ci")
    blue, red = {"spec": SPEC, "labels": {"tier": "blue"}}, {"spec": SPEC, "labels": {"tier": "red"}}
    assert teams.put("/namespaces/blue/microvms/web", blue, headers=ci).status_code == 200
    assert teams.put("/namespaces/blue/microvms/web", red, headers=ci).status_code == 403, "it would leave the selector"
    assert teams.put("/namespaces/red/microvms/web", blue, headers=ci).status_code == 403, "it would be taken"
    assert teams.put("/namespaces/red/microvms/new", blue, headers=ci).status_code == 201
    assert teams.put("/namespaces/red/microvms/other", red, headers=ci).status_code == 403
    assert names(teams.get("/microvms", headers=ci)) == ["blue/web", "red/new"]


def test_bindings_name_users_and_groups_and_end_at_once(teams: Rig) -> None:
    by_group = teams.caller("laptop", user="bob", groups=["ops"])
    teams.bind("ops", "viewer", subject="group/ops")
    assert teams.get("/hosts", headers=by_group).status_code == 200
    teams.request("DELETE", "/rolebindings/ops")
    assert teams.get("/hosts", headers=by_group).status_code == 403
    teams.bind("bob", "viewer", subject="user/bob")
    assert teams.get("/hosts", headers=by_group).status_code == 200


def test_roles_are_changed_by_admins_alone_and_the_built_in_ones_by_nobody(api: Rig) -> None:
    everything = {"spec": {"rules": [{"verbs": ["*"], "kinds": ["*"]}]}}
    assert api.put("/roles/almost", everything).status_code == 201
    api.bind("mallory", "almost")
    mallory = api.caller("mallory")
    assert api.get("/snapshots", headers=mallory).status_code == 405
    grab = {"spec": {"role": "admin", "subjects": [{"kind": "token", "name": "mallory"}]}}
    assert api.put("/rolebindings/grab", grab, headers=mallory).status_code == 403
    assert api.put("/roles/almost", everything, headers=mallory).status_code == 403
    grabbing = {"spec": {"rules": [{"verbs": ["declare"], "kinds": ["RoleBinding"]}]}}
    assert api.put("/roles/grabbing", grabbing).json()["errors"][0]["pointer"] == "/spec/rules/0/verbs"
    assert api.put("/roles/admin", {"spec": {}}).json()["code"] == "role_built_in"
    unknown = {"spec": {"role": "nothing", "subjects": [{"kind": "token", "name": "x"}]}}
    assert api.put("/rolebindings/x", unknown).json()["code"] == "role_not_found"
    assert api.request("DELETE", "/roles/almost").json()["code"] == "role_in_use"


def test_the_admin_of_the_tokens_file_stays_admin_whatever_is_declared(api: Rig) -> None:
    api.bind("alice", "viewer")
    api.request("DELETE", "/rolebindings/alice")
    assert api.put("/namespaces/demo", {"spec": {}}).status_code == 201


def test_one_may_ask_for_oneself_and_those_who_read_bindings_for_others(teams: Rig) -> None:
    ci = teams.caller("ci")
    teams.bind("ci", "operator", "blue")
    path = "/auth/decision?verb=declare&kind=MicroVM&namespace="
    mine = teams.get(path + "blue", headers=ci).json()
    assert (mine["allowed"], mine["by"]["binding"]) == (True, "ci")
    other = teams.get(path + "red", headers=ci).json()
    assert (other["allowed"], other["near"]) == (
        False,
        ["role operator, given by binding ci, holds in namespace blue only"],
    )
    assert teams.get(path + "red&as=token/other", headers=ci).status_code == 403
    of_ci = teams.get(path + "blue&as=token/ci").json()
    assert (of_ci["who"], of_ci["allowed"]) == ("token ci", True)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_a_body_is_not_judged_before_its_sender(api: Rig, content_type: str) -> None:
    """Whichever way the request goes: straight to its handler, or through the framework."""
    headers = {**api.caller("nobody"), "Content-Type": content_type}
    for body in (b'{"spec": {}}', b"{nope"):
        assert api.request("PUT", "/namespaces/demo", data=body, headers=headers).status_code == 403
    assert api.get("/namespaces").json()["items"] == []
