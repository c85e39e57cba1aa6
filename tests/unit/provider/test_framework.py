"""What the framework offers beyond what the product uses, over the protocol: see `support.showcase`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from provider_shim.framework.types import UNKNOWN, Object
from provider_shim.protocol.convert import read_value
from support.plugin import Ask, config, served, texts, wire
from support.showcase import ShowcaseProvider, Thing

SCHEMA = Thing.schema
KIND: dict[str, Any] = {"type_name": Thing.type_name}
NEW = {"write_only_attributes_allowed": True, "deferral_allowed": True}


@pytest.fixture
def ask() -> Iterator[Ask]:
    with served(ShowcaseProvider()) as call:
        yield call


def thing(**values: Any) -> Object:
    return config(SCHEMA, **{"name": "a", **values})


def plan(ask: Ask, written: Object, prior: Object | None = None, **more: Any) -> Any:
    proposed = {"prior_state": wire(SCHEMA, prior), "proposed_new_state": wire(SCHEMA, written)}
    return ask("PlanResourceChange", **KIND, **proposed, config=wire(SCHEMA, written), **more)


def apply(ask: Ask, written: Object, prior: Object | None = None, private: bytes = b"") -> tuple[Object, bytes]:
    planned = plan(ask, written, prior, prior_private=private)
    answer = ask(
        "ApplyResourceChange",
        **KIND,
        prior_state=wire(SCHEMA, prior),
        planned_state=planned.planned_state,
        planned_private=planned.planned_private,
        config=wire(SCHEMA, written),
    )
    assert texts(answer.diagnostics) == []
    return read_value(SCHEMA.codec, answer.new_state), answer.private


def test_what_is_write_only_reaches_the_provider_and_no_state(ask: Ask) -> None:
    planned = plan(ask, thing(secret="first", secret_version=1))
    assert b"first" not in planned.planned_state.msgpack
    state, private = apply(ask, thing(secret="first", secret_version=1))
    assert (state["secret"], state["digest"]) == (None, "a7937b64")
    again, private = apply(ask, thing(secret="second", secret_version=1), state, private)
    assert again["digest"] == state["digest"], "the same version: nobody asked for another secret"
    other, private = apply(ask, thing(secret="second", secret_version=2), again, private)
    assert other["digest"] == "16367aac"
    assert json.loads(private) == {"applied": 3}
    assert b"second" not in private


def test_an_older_terraform_is_not_given_write_only_attributes(ask: Ask) -> None:
    written = wire(SCHEMA, thing(secret="x", secret_version=1))
    (refused,) = ask("ValidateResourceConfig", **KIND, config=written).diagnostics
    assert refused.summary == "secret needs Terraform 1.11"
    assert [step.attribute_name for step in refused.attribute.steps] == ["secret"]
    assert not ask("ValidateResourceConfig", **KIND, config=written, client_capabilities=NEW).diagnostics


def test_a_rule_across_fields_is_told_at_one_of_them(ask: Ask) -> None:
    written = wire(SCHEMA, thing(secret="x"))
    (refused,) = ask("ValidateResourceConfig", **KIND, config=written, client_capabilities=NEW).diagnostics
    assert [step.attribute_name for step in refused.attribute.steps] == ["secret_version"]


def test_blocks_of_every_kind_are_planned_with_their_defaults(ask: Ask) -> None:
    blocks = {
        "rule": [{"port": 1, "protocol": None}, {"port": 2, "protocol": "udp"}],
        "peer": [{"port": 3}],
        "limit": {"cpu": {"value": 4}},
    }
    state, _ = apply(ask, thing(**blocks))
    assert state["rule"] == [{"port": 1, "protocol": "tcp"}, {"port": 2, "protocol": "udp"}]
    assert (state["peer"], state["limit"]) == (blocks["peer"], blocks["limit"])
    bad = thing(rule=[{"port": 1, "protocol": None}, {"port": 0, "protocol": None}])
    (refused,) = ask("ValidateResourceConfig", **KIND, config=wire(SCHEMA, bad)).diagnostics
    assert "rule[1].port" in refused.summary
    unknown = plan(ask, thing(rule=UNKNOWN))
    assert read_value(SCHEMA.codec, unknown.planned_state)["rule"] is UNKNOWN, "a dynamic block"
    shown = {
        each.type_name: each.nesting
        for each in ask("GetProviderSchema").resource_schemas[Thing.type_name].block.block_types
    }
    assert shown == {"rule": 2, "peer": 3, "limit": 4}


@pytest.mark.parametrize("value", ["text", 7, True, [1, "two", {"three": None}], {"a": {"b": [False]}}])
def test_a_dynamic_attribute_keeps_whatever_it_is_given(ask: Ask, value: Any) -> None:
    state, private = apply(ask, thing(extra=value))
    assert state["extra"] == value
    assert apply(ask, thing(extra=value), state, private)[0] == state


def test_an_unknown_that_will_be_there_is_said_not_to_be_null(ask: Ask) -> None:
    raw = msgpack.unpackb(plan(ask, thing()).planned_state.msgpack)
    assert (raw["id"].code, msgpack.unpackb(raw["id"].data, strict_map_key=False)) == (12, {1: False})
    assert raw["digest"] == msgpack.ExtType(0, b"\x00")


def test_state_of_another_type_and_of_an_older_version_is_taken_over(ask: Ask) -> None:
    raw = {"output": {"value": "a", "type": "string"}, "id": "0", "input": None, "triggers_replace": None}
    moving = {"source_type_name": "terraform_data", "target_type_name": Thing.type_name}
    moved = ask("MoveResourceState", **moving, source_state={"json": json.dumps(raw).encode()})
    assert read_value(SCHEMA.codec, moved.target_state)["name"] == "a"
    assert msgpack.unpackb(moved.target_identity.identity_data.msgpack) == {"name": "a"}
    older = {"json": json.dumps({"title": "a", "id": "a"}).encode()}
    upgraded = ask("UpgradeResourceState", **KIND, version=0, raw_state=older).upgraded_state
    assert read_value(SCHEMA.codec, upgraded) == {**config(SCHEMA), "id": "a", "name": "a"}


def test_a_stop_reaches_a_create_and_what_is_half_made_is_kept(ask: Ask) -> None:
    written = thing(name="slow")
    planned = plan(ask, written)
    timer = threading.Timer(0.3, lambda: ask("StopProvider"))
    timer.start()
    call = {"prior_state": wire(SCHEMA, None), "planned_state": planned.planned_state, "config": wire(SCHEMA, written)}
    answer = ask("ApplyResourceChange", **KIND, **call)
    timer.join()
    assert "Interrupted It is half made." in texts(answer.diagnostics)
    assert read_value(SCHEMA.codec, answer.new_state)["id"] == "slow"


def test_reads_wait_for_a_provider_that_is_not_known_yet_where_terraform_allows_it(ask: Ask) -> None:
    state, _ = apply(ask, thing())
    ask("ConfigureProvider", config=wire(ShowcaseProvider.schema, {"endpoint": UNKNOWN}))
    later = ask("ReadResource", **KIND, current_state=wire(SCHEMA, state), client_capabilities=NEW)
    assert later.deferred.reason == 2
    assert not ask("ReadResource", **KIND, current_state=wire(SCHEMA, state)).HasField("deferred")
