"""Garbage collection as a client meets it: a plan, exactly that run, holds, and a reason on every deletion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.builders import failure, kept_volumes, observation, report, tap
from unit.api.rig import Rig

from controlplane.api.http.settings import ApiSettings
from controlplane.model.gc import Trigger
from controlplane.model.resources import MicroVMPhase, ObservedPower, Unmanaged
from controlplane.model.spec import GCPolicySpec

VM = "/namespaces/demo/microvms/web"
POLICY = GCPolicySpec(failed_microvm_after_s=0, unmanaged_microvm_after_s=0)


@pytest.fixture
def fleet(api: Rig) -> Iterator[Rig]:
    """One host, on which demo/web failed; what failed is collected at once."""
    services = api.server.app.state.services
    settings: ApiSettings = services.settings
    api.server.app.state.services = replace(services, settings=replace(settings, gc_policy=POLICY))
    api.with_host()
    api.put_vm()
    api.place()
    api.do(report(observation(api.vm(), power=ObservedPower.ABSENT, generation=None, failure=failure())))
    yield api
    api.server.app.state.services = services


def due(api: Rig, **params: Any) -> dict[str, Any]:
    answer = api.get("/gc/plan", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_run_does_what_the_plan_showed(fleet: Rig) -> None:
    made = due(fleet, only="failed_microvm")
    (collection,) = made["collect"]
    assert collection["subject"]["name"] == "web"
    assert collection["policy"] == "failed_microvm_after_s = 0"
    assert "ImageNotFound" in collection["reason"]
    done = fleet.post("/gc/run", {"plan": made["plan"], "only": ["failed_microvm"]})
    assert done.status_code == 200, done.text
    (result,) = done.json()["results"]
    assert (result["outcome"], result["subject"], result["reason"]) == (
        "collected",
        collection["subject"],
        collection["reason"],
    )
    status = fleet.get(VM).json()["status"]
    assert status["phase"] == "deleting"
    assert status["deletion"]["trigger"] == "failed_microvm"
    assert status["deletion"]["reason"] == collection["reason"]
    operation = fleet.get(f"/operations/{status['operation']}").json()
    assert (operation["kind"], operation["reason"]) == ("delete", collection["reason"])
    counted = {each["trigger"]: each["collected"] for each in fleet.get("/gc/status").json()["triggers"]}
    assert counted["failed_microvm"] == 1


def test_a_plan_that_is_not_true_any_more_is_refused_and_nothing_is_done(fleet: Rig) -> None:
    made = due(fleet)
    held = {"kind": "MicroVM", "namespace": "demo", "name": "web", "reason": "somebody looks at it"}
    assert fleet.post("/gc/hold", held).status_code == 200
    refused = fleet.post("/gc/run", {"plan": made["plan"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "stale")
    assert fleet.vm().phase is MicroVMPhase.FAILED
    (waiting,) = [each for each in due(fleet)["waiting"] if each["trigger"] == "failed_microvm"]
    assert (waiting["waits_for"], "somebody looks at it" in waiting["message"]) == ("hold", True)


def test_a_held_microvm_is_not_deleted_and_a_released_one_is_with_its_reason(fleet: Rig) -> None:
    thing = {"kind": "MicroVM", "namespace": "demo", "name": "web"}
    fleet.post("/gc/hold", {**thing, "reason": "somebody looks at it"})
    (held,) = fleet.get("/gc/holds").json()["items"]
    assert (held["name"], held["reason"]) == ("web", "somebody looks at it")
    refused = fleet.delete(VM)
    assert (refused.status_code, refused.json()["code"]) == (409, "held")
    assert "somebody looks at it" in refused.json()["detail"]
    assert fleet.post("/gc/release", thing).json()["items"] == []
    assert fleet.delete(VM, params={"reason": "seen enough"}).status_code == 202
    deletion = fleet.get(VM).json()["status"]["deletion"]
    assert (deletion["reason"], deletion["trigger"]) == ("seen enough", None)


def test_an_unmanaged_copy_is_ordered_away_and_the_host_says_why(fleet: Rig) -> None:
    copy = Unmanaged(native_id="9", driver="simulated", uid="01OLD", namespace="demo", name="old", epoch=3, ours=True)
    fleet.do(report(unmanaged=[copy]))
    made = due(fleet, only=Trigger.UNMANAGED_MICROVM.value)
    fleet.post("/gc/run", {"plan": made["plan"], "only": ["unmanaged_microvm"]})
    (order,) = fleet.get("/hosts/h1").json()["status"]["stale"]
    assert (order["uid"], order["epoch"], order["deletion"]["trigger"]) == ("01OLD", 3, "unmanaged_microvm")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/gc/run", {"plan": "x"}, "/plan"),
        ("/gc/run", {"plan": "999999999999999.1." + "0" * 32}, "/plan"),
        ("/gc/run", {"plan": "1.1." + "0" * 32, "only": ["everything"]}, "/only/0"),
        ("/gc/hold", {"kind": "MicroVM", "name": "web", "namespace": "demo"}, "/reason"),
        ("/gc/hold", {"kind": "MicroVM", "name": "web", "namespace": "demo", "reason": ""}, "/reason"),
        ("/gc/hold", {"kind": "Found", "name": "9", "reason": "x"}, "/host"),
        ("/gc/release", {"kind": "Namespace", "name": "demo"}, "/kind"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(fleet: Rig, path: str, body: dict[str, Any], pointer: str) -> None:
    before = fleet.digest
    refused = fleet.post(path, body)
    assert refused.status_code == 422, refused.text
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]
    assert fleet.digest == before


POLICY_PATH = "/gcpolicies/default"


def test_a_declared_policy_holds_and_a_plan_of_before_is_refused(fleet: Rig) -> None:
    before = due(fleet, only="failed_microvm")
    assert (before["policy"]["name"], len(before["collect"])) == (None, 1)
    made = fleet.put(POLICY_PATH, {"spec": {"failed_microvm_after_s": 0}})
    assert made.status_code == 201, made.text
    refused = fleet.post("/gc/run", {"plan": before["plan"], "only": ["failed_microvm"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "stale")
    assert fleet.get(VM).json()["status"]["phase"] == "failed"
    after = due(fleet, only="failed_microvm")
    assert (after["policy"]["name"], after["policy"]["revision"]) == ("default", made.json()["revision"])
    assert fleet.get("/gc/status").json()["policy"] == after["policy"]
    done = fleet.post("/gc/run", {"plan": after["plan"], "only": ["failed_microvm"]})
    assert [each["outcome"] for each in done.json()["results"]] == ["collected"]


def test_a_policy_is_read_listed_and_deleted(fleet: Rig) -> None:
    fleet.put(POLICY_PATH, {"spec": {}})
    assert fleet.get(POLICY_PATH).json()["spec"]["finished_operation_after_s"] == 7 * 86_400
    assert [each["name"] for each in fleet.get("/gcpolicies").json()["items"]] == ["default"]
    assert fleet.delete(POLICY_PATH).status_code == 200
    assert fleet.get(POLICY_PATH).status_code == 404


@pytest.mark.parametrize(
    ("name", "spec", "pointer"),
    [
        ("other", {}, "/name"),
        ("default", {"failed_microvm_after_s": -1}, "/spec/failed_microvm_after_s"),
        ("default", {"lost_host_after_s": "soon"}, "/spec/lost_host_after_s"),
        ("default", {"surprise": 1}, "/spec/surprise"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_field(fleet: Rig, name: str, spec: dict[str, Any], pointer: str) -> None:
    refused = fleet.put(f"/gcpolicies/{name}", {"spec": spec})
    assert refused.status_code == 422, refused.text
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]
    assert fleet.get("/gcpolicies").json()["items"] == []


@pytest.mark.parametrize("collection", ["namespaces", "hosts", "placementpolicies", "failoverpolicies", "gcpolicies"])
def test_every_kind_is_deleted_for_a_reason(api: Rig, collection: str) -> None:
    path = f"/{collection}/default"
    api.put(path, {"spec": {}})
    refused = api.delete(f"{path}?reason={'x' * 1025}")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/reason")
    assert api.delete(f"{path}?reason=seen+enough").status_code == 200
    assert api.get(path).status_code == 404


def test_status_says_since_when_the_oldest_is_there(fleet: Rig) -> None:
    triggers = {each["trigger"]: each for each in fleet.get("/gc/status").json()["triggers"]}
    (collection,) = due(fleet, only="failed_microvm")["collect"]
    assert triggers["failed_microvm"]["oldest_since"] == collection["since"]
    assert triggers["lost_host"]["oldest_since"] is None


# -- before its time ---------------------------------------------------------------------------------------------------

PURGE = "/hosts/h1/actions/purge"
WISH = {"left": kept_volumes().name, "reason": "nobody wants it back"}


def test_what_is_kept_goes_at_once_when_somebody_says_so_and_why(fleet: Rig) -> None:
    fleet.do(report(left_behind=[kept_volumes()]))
    before = fleet.replica.state
    seen = fleet.post(f"{PURGE}?dry_run=true", WISH)
    assert seen.status_code == 200, seen.text
    assert (seen.json()["subject"]["name"], seen.json()["dry_run"]) == (WISH["left"], True)
    assert fleet.replica.state == before
    done = fleet.post(PURGE, WISH).json()
    assert {**done, "dry_run": True, "revision": 0} == {**seen.json(), "revision": 0}
    (order,) = fleet.replica.state.hosts["h1"].clearing.values()
    assert order.reason == done["reason"]
    assert order.reason.startswith("nobody wants it back (local volumes of microVM demo/old, epoch 3")
    again = fleet.post(PURGE, WISH)
    assert (again.status_code, again.json()["code"]) == (409, "constraint_violated")
    assert "is ordered" in again.json()["detail"]
    fleet.do(report(left_behind=[]))
    assert not fleet.replica.state.hosts["h1"].clearing


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_what_is_held_or_not_ours_or_not_there_is_not_purged(fleet: Rig, query: str) -> None:
    fleet.do(report(left_behind=[kept_volumes(), tap(ours=False)]))
    fleet.post("/gc/hold", {"kind": "Found", "host": "h1", "name": WISH["left"], "reason": "wanted back"})
    for left, code, words in (
        (WISH["left"], "held", "is held by"),
        (tap().name, "constraint_violated", "only its owner can delete it"),
    ):
        answer = fleet.post(PURGE + query, {**WISH, "left": left})
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert words in answer.json()["detail"]
    missing = fleet.post(PURGE + query, {**WISH, "left": "quarantine/other-1"})
    assert (missing.status_code, missing.json()["errors"][0]["pointer"]) == (422, "/left")
    assert not fleet.replica.state.hosts["h1"].clearing
