"""`flintlock_host`: a mode that Terraform does not declare is an operator's, and no apply takes it back."""

from __future__ import annotations

from typing import Any

from provider_shim.framework.plan import propose
from provider_shim.framework.types import UNKNOWN
from provider_shim.resources.host import HostResource

SCHEMA = HostResource.schema
TRANSLATION = HostResource.translation
ACTIVE = {"schedulable": True, "mode": "active", "evacuation": {"max_parallel": 1, "allow_data_loss": False}}
DRAINED = {**ACTIVE, "mode": "drain", "evacuation": {"max_parallel": 4, "allow_data_loss": False}}


def config(**given: Any) -> dict[str, Any]:
    return {**dict.fromkeys((*SCHEMA.attributes, *SCHEMA.blocks)), "name": "h1", **given}


def read(prior: dict[str, Any], spec: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {**prior, "id": "h1", "uid": "u", **TRANSLATION.merge(prior, {"spec": spec, **beside})}


def test_an_undeclared_mode_is_the_apis_to_choose() -> None:
    planned = propose(SCHEMA, None, config())
    assert planned["mode"] is UNKNOWN
    assert TRANSLATION.body(planned) == {"spec": {"schedulable": True}}
    assert read(planned, ACTIVE)["mode"] == "active"


def test_a_drain_by_an_operator_is_no_difference_and_survives_other_changes() -> None:
    state = read(propose(SCHEMA, None, config()), ACTIVE)
    drained = read(state, DRAINED)
    assert propose(SCHEMA, drained, config()) == drained
    relabelled = propose(SCHEMA, drained, config(labels={"rack": "b"}))
    assert TRANSLATION.body(relabelled) == {"labels": {"rack": "b"}, "spec": DRAINED}


def test_a_declared_mode_is_asked_for() -> None:
    state = read(propose(SCHEMA, None, config()), ACTIVE)
    planned = propose(SCHEMA, state, config(mode="drain", evacuation={"max_parallel": 2, "allow_data_loss": None}))
    assert TRANSLATION.body(planned)["spec"] == {
        "schedulable": True,
        "mode": "drain",
        "evacuation": {"max_parallel": 2, "allow_data_loss": False},
    }
    assert read(planned, {**ACTIVE, "mode": "active"})["mode"] == "active", "what somebody undoes is a difference"
