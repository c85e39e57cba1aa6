"""Adopting what a host runs and nobody declares, as an operator asks for it."""

from __future__ import annotations

import pytest
from support.builders import microvm_spec, report
from unit.api.rig import Rig

from controlplane.model.resources import Unmanaged
from controlplane.model.spec import Placement
from controlplane.model.types import replace
from controlplane.ports import Told, VMDefinition

COPY = Unmanaged(native_id="vm-old", driver="simulated", uid="vm-old", namespace="demo", name="old", epoch=3, ours=True)
VM = VMDefinition(
    cluster_id="test",
    uid="vm-old",
    namespace="demo",
    name="old",
    epoch=3,
    generation=4,
    labels={"app": "web"},
    spec=microvm_spec(placement=Placement(host="h1")),
)
BODY = {"instance": "vm-old", "namespace": "demo", "name": "again"}
PATH = "/hosts/h1/actions/adopt"


@pytest.fixture
def fleet(api: Rig) -> Rig:
    api.with_host()
    api.active()
    api.do(report(unmanaged=[COPY, replace(COPY, native_id="9", uid=None, ours=False)]))
    api.agents.told = {"h1": Told(vm=VM, repair_seq=0, restart_seq=2)}
    return api


def test_what_runs_is_declared_under_the_name_that_is_asked_for(fleet: Rig) -> None:
    answer = fleet.post(PATH, BODY)
    assert answer.status_code == 201
    made = answer.json()
    assert (made["uid"], made["name"], made["generation"], made["labels"]) == ("vm-old", "again", 4, {"app": "web"})
    assert made["spec"]["placement"]["host"] == "h1"
    assert (made["status"]["host"], made["status"]["epoch"]) == ("h1", 3)
    left = [each["native_id"] for each in fleet.get("/hosts/h1").json()["status"]["unmanaged"]]
    assert left == ["9"]


def test_a_dry_run_changes_nothing_and_is_refused_as_the_run_is(fleet: Rig) -> None:
    before = fleet.replica.state.digest
    dry = fleet.post(f"{PATH}?dry_run=true", BODY)
    assert dry.status_code == 200
    assert (dry.json()["outcome"], dry.json()["placement"]["host"]) == ("create", "h1")
    taken = fleet.post(f"{PATH}?dry_run=true", {**BODY, "name": "web"})
    assert (taken.status_code, taken.json()["code"]) == (412, "already_exists")
    assert fleet.replica.state.digest == before


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({**BODY, "instance": "none"}, "invalid", "host h1 has no such unmanaged microVM (it has: 9, vm-old)"),
        ({**BODY, "instance": "9"}, "constraint_violated", "has to be made anew"),
        ({**BODY, "namespace": "none"}, "namespace_not_found", "namespace none does not exist"),
        ({**BODY, "name": "web"}, "already_exists", "microVM demo/web exists"),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_the_reason(
    fleet: Rig, body: dict[str, str], code: str, says: str
) -> None:
    answer = fleet.post(PATH, body)
    assert answer.json()["code"] == code
    assert says in answer.text


def test_a_host_that_says_something_else_is_not_believed(fleet: Rig) -> None:
    other = VMDefinition(**{field: getattr(VM, field) for field in VM.__slots__} | {"epoch": 4})
    fleet.agents.told = {"h1": Told(vm=other, repair_seq=0, restart_seq=0)}
    answer = fleet.post(PATH, BODY)
    assert answer.json()["code"] == "constraint_violated"
    assert "at epoch 4" in answer.text
    fleet.agents.told = {}
    assert fleet.post(PATH, BODY).json()["code"] == "host_unreachable"


def test_whoever_adopts_needs_to_be_allowed_to_declare(fleet: Rig) -> None:
    fleet.put("/roles/hosts", {"spec": {"rules": [{"verbs": ["read", "act"], "kinds": ["Host"]}]}})
    fleet.bind("bob", "hosts")
    refused = fleet.post(PATH, BODY, headers=fleet.caller("bob"))
    assert (refused.status_code, "declare" in refused.text) == (403, True)
