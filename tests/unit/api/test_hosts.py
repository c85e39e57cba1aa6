"""Verbs on hosts, how far they are emptied, and what their agents would do, as a client sees it."""

from __future__ import annotations

import pytest
from support.builders import (
    agent_connected,
    destroyed,
    detached,
    evict,
    fenced,
    kept_volumes,
    report,
    resurrect,
    suspected,
    tap,
)
from unit.api.rig import Rig

from controlplane.decide import gc
from controlplane.model.commands import HostEvacuated, MarkStaying
from controlplane.model.gc import Trigger
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import replace
from controlplane.ports import PlanItem, PlanVerb

KEPT = PlanItem(
    verb=PlanVerb.KEEP,
    uid="vm-web",
    namespace="demo",
    name="web",
    epoch=1,
    driver="simulated",
    native_id=None,
    reason="it is as it is wanted",
)


@pytest.fixture
def fleet(api: Rig) -> Rig:
    """Two hosts; demo/web and the pinned demo/stays run on the first one."""
    for name in ("h1", "h2"):
        api.with_host(name)
    api.active()
    api.active("stays", placement={"host": "h1"})
    return api


def test_a_drain_is_asked_for_seen_and_ended(fleet: Rig) -> None:
    asked = fleet.post("/hosts/h1/actions/drain?max_parallel=2")
    assert asked.status_code == 200, asked.text
    body = asked.json()
    assert body["spec"] == {
        "schedulable": True,
        "mode": "drain",
        "evacuation": {"max_parallel": 2, "allow_data_loss": False},
    }
    assert body["status"]["availability"] == "draining"
    assert body["status"]["evacuation"]["asked_by"] == "alice"
    fleet.do(MarkStaying(host="h1", uid=fleet.vm("stays").meta.uid, epoch=1, reason="pinned"))
    fleet.do(evict(fleet.vm()))
    detail = fleet.get("/hosts/h1/evacuation").json()
    assert [(each["name"], each["stand"]) for each in detail["left"]] == [("stays", "staying"), ("web", "moving")]
    assert {key: detail["evacuation"][key] for key in ("moved", "waiting", "under_way", "staying", "done_at")} == {
        "moved": 0,
        "waiting": 0,
        "under_way": 1,
        "staying": 1,
        "done_at": None,
    }
    moving = fleet.get("/namespaces/demo/microvms/web").json()["status"]
    assert (moving["phase"], moving["drift"]["class"]) == ("moving", "progressing")
    fleet.do(destroyed(fleet.vm()))
    assert fleet.get("/namespaces/demo/microvms/web").json()["status"]["move"]["host"] == "h1"
    ended = fleet.post("/hosts/h1/actions/uncordon").json()
    assert (ended["status"]["availability"], ended["status"]["evacuation"]) == ("open", None)
    assert fleet.get("/hosts/h1/evacuation").json()["evacuation"] is None


@pytest.mark.parametrize(
    ("path", "code", "pointer"),
    [
        ("/hosts/h9/actions/drain", "not_found", "/name"),
        ("/hosts/h1/actions/drain?max_parallel=0", "invalid", "/query/max_parallel"),
        ("/hosts/h1/actions/drain?max_parallel=101", "invalid", "/query/max_parallel"),
        ("/hosts/h1/actions/drain?allow_data_loss=perhaps", "invalid", "/query/allow_data_loss"),
        ("/hosts/h1/actions/cordon?max_parallel=1", "invalid", "/query/max_parallel"),
    ],
)
def test_what_cannot_be_asked_of_a_host_is_refused_with_its_field(
    fleet: Rig, path: str, code: str, pointer: str
) -> None:
    before = fleet.digest
    refused = fleet.post(path)
    assert refused.json()["code"] == code
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]
    assert fleet.digest == before


def test_a_declared_mode_is_checked_as_well(fleet: Rig) -> None:
    refused = fleet.put("/hosts/h1", {"spec": {"mode": "asleep"}})
    assert [each["pointer"] for each in refused.json()["errors"]] == ["/spec/mode"]
    refused = fleet.put("/hosts/h1", {"spec": {"evacuation": {"max_parallel": 0}}})
    assert [each["pointer"] for each in refused.json()["errors"]] == ["/spec/evacuation/max_parallel"]


def test_a_host_is_ready_for_reprovisioning_when_its_agent_has_looked(api: Rig) -> None:
    api.with_host()

    def ready() -> tuple[bool, str, str]:
        status = api.get("/hosts/h1").json()["status"]
        told = next(each for each in status["conditions"] if each["type"] == "ReadyForReprovisioning")
        return status["ready_for_reprovisioning"], told["status"], told["reason"]

    assert ready() == (False, "false", "InUse")
    api.post("/hosts/h1/actions/drain")
    api.do(HostEvacuated(host="h1"))
    assert ready() == (False, "unknown", "NotVerified")
    api.do(report(left_behind=[tap(), kept_volumes()]))
    assert ready() == (False, "false", "LeftBehind")
    api.do(report(left_behind=[kept_volumes()]))
    assert ready() == (False, "false", "Quarantined")
    made = gc.plan(api.replica.state, GCPolicySpec(), now_ms=2**42)
    (volumes,) = [each.command for each in made.collect if each.command.trigger is Trigger.QUARANTINED_VOLUMES]
    api.do(volumes)
    assert ready() == (True, "true", "Empty"), "what is ordered to go is no reason to wait"
    (told,) = api.get("/hosts/h1").json()["status"]["left_behind"]
    assert (told["name"], told["microvm"], told["bytes"]) == (kept_volumes().name, "demo/old", 4096)
    assert told["deletion"]["trigger"] == "quarantined_volumes"
    api.do(report(left_behind=[]))
    assert ready() == (True, "true", "Empty")
    api.do(suspected())
    assert ready() == (False, "unknown", "NotVerified")


def test_a_host_that_was_lost_is_ready_for_reprovisioning_once_it_has_ended_and_looked_for_what_it_owed(
    api: Rig,
) -> None:
    api.with_host()
    api.put_vm(recovery={"on_host_failure": "restart_elsewhere"})
    api.place()

    def ready() -> tuple[bool, str]:
        status = api.get("/hosts/h1").json()["status"]
        told = next(each for each in status["conditions"] if each["type"] == "ReadyForReprovisioning")
        return status["ready_for_reprovisioning"], told["reason"]

    api.post("/hosts/h1/actions/drain")
    for lost in (suspected(), detached(), fenced()):
        api.do(lost)
        assert ready() == (False, "NotEmpty")
    given_up = api.vm()
    api.do(resurrect(given_up))
    assert ready() == (False, "NotEmpty"), "its copy may still run there"
    api.do(agent_connected(session="again"))
    assert ready() == (False, "NotEmpty")
    api.do(replace(destroyed(given_up), session="again", rejoined=True))
    assert ready() == (False, "NotVerified"), "what it said before it was lost counts for nothing"
    api.do(report(session="again", left_behind=[tap(), kept_volumes()]))
    assert ready() == (False, "LeftBehind")
    api.do(report(session="again", left_behind=[]))
    assert ready() == (True, "Empty")


def test_a_host_that_is_connected_is_asked_for_its_plan(fleet: Rig) -> None:
    fleet.agents.plans = {"h1": [KEPT]}
    made = fleet.get("/hosts/h1/plan").json()
    assert (made["source"], made["phase"]) == ("agent", "ready")
    assert made["items"] == [
        {
            "verb": "keep",
            "namespace": "demo",
            "name": "web",
            "uid": "vm-web",
            "epoch": 1,
            "driver": "simulated",
            "native_id": None,
            "reason": "it is as it is wanted",
        }
    ]


def test_of_a_host_that_is_lost_there_is_a_forecast(fleet: Rig) -> None:
    for command in (suspected(), detached(), fenced()):
        fleet.do(command)
    made = fleet.get("/hosts/h1/plan").json()
    assert (made["source"], made["phase"]) == ("forecast", "fenced")
    assert {each["name"]: each["verb"] for each in made["items"]} == {"stays": "keep", "web": "keep"}
    assert fleet.get("/hosts/h9/plan").json()["code"] == "not_found"
