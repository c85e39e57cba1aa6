"""What a plan says, for a small resource of its own: defaults, kept values, replacements, nested attributes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from provider_shim.framework.diagnostics import attribute
from provider_shim.framework.plan import changed, propose, replacements
from provider_shim.framework.schema import Attribute, Block, Nested, Schema
from provider_shim.framework.types import NUMBER, STRING, UNKNOWN, MapOf, SetOf

PORT = {
    "kind": Attribute(type=STRING, default="tap", description=""),
    "mac": Attribute(type=STRING, optional=True, computed=True, description=""),
    "note": Attribute(type=STRING, optional=True, description=""),
}
SCHEMA = Schema(
    description="",
    attributes={
        "id": Attribute(type=STRING, computed=True, keep_state=True, description=""),
        "revision": Attribute(type=NUMBER, computed=True, description=""),
        "name": Attribute(type=STRING, required=True, on_change="replace", description=""),
        "size": Attribute(type=NUMBER, default=1, description=""),
        "tags": Attribute(type=SetOf(STRING), optional=True, description=""),
        "labels": Attribute(type=MapOf(STRING), optional=True, description=""),
        "ports": Attribute(type=Nested("map", PORT), optional=True, description=""),
        "main": Attribute(type=Nested("single", PORT), optional=True, description=""),
        "extra": Attribute(type=Nested("list", PORT), optional=True, description=""),
    },
    blocks={"timeouts": Block("", {"create": Attribute(type=STRING, optional=True, description="")})},
)


def config(**given: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys((*SCHEMA.attributes, *SCHEMA.blocks))
    return {**nothing, "name": "a", **given}


def port(**given: Any) -> dict[str, Any]:
    return {"kind": None, "mac": None, "note": None, **given}


def applied(planned: dict[str, Any]) -> dict[str, Any]:
    """The planned state once the API filled in what was unknown."""

    def fill(value: Any) -> Any:
        if value is UNKNOWN:
            return "known now"
        if isinstance(value, dict):
            return {name: fill(inner) for name, inner in value.items()}
        return [fill(inner) for inner in value] if isinstance(value, list) else value

    return fill(planned)


PORTS = st.fixed_dictionaries({}, optional={"kind": st.sampled_from(["tap", "vtap"]), "note": st.text(max_size=3)}).map(
    lambda given: port(**given)
)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b"]),
        "size": st.integers(0, 3),
        "tags": st.lists(st.sampled_from("xyz"), max_size=3, unique=True),
        "labels": st.dictionaries(st.sampled_from("kl"), st.text(max_size=2)),
        "ports": st.dictionaries(st.sampled_from("pq"), PORTS),
        "main": PORTS,
        "extra": st.lists(PORTS, max_size=2),
        "timeouts": st.just({"create": "5m"}),
    },
).map(lambda given: config(**given))


@given(CONFIGS)
def test_a_plan_after_an_apply_is_empty(wanted: dict[str, Any]) -> None:
    state = applied(propose(SCHEMA, None, wanted))
    assert propose(SCHEMA, state, wanted) == state


@given(CONFIGS, CONFIGS)
def test_what_the_configuration_says_is_planned(before: dict[str, Any], after: dict[str, Any]) -> None:
    state = applied(propose(SCHEMA, None, before))
    planned = propose(SCHEMA, state, after)
    for name in ("name", "size", "labels"):
        assert after[name] is None or planned[name] == after[name]
    assert planned["id"] == state["id"]
    assert (planned["revision"] is UNKNOWN) == (planned != state)
    assert (replacements(SCHEMA, state, planned) == [attribute("name")]) == (before["name"] != after["name"])


def test_a_create_shows_defaults_and_what_is_not_known_yet() -> None:
    planned = propose(SCHEMA, None, config(ports={"p": port()}))
    assert planned["id"] is UNKNOWN
    assert planned["revision"] is UNKNOWN
    assert planned["size"] == 1
    assert planned["labels"] is None
    assert planned["ports"] == {"p": port(kind="tap", mac=UNKNOWN)}


def test_unknown_input_stays_unknown_and_may_replace() -> None:
    state = applied(propose(SCHEMA, None, config()))
    planned = propose(SCHEMA, state, config(name=UNKNOWN, main=UNKNOWN))
    assert planned["name"] is UNKNOWN
    assert planned["main"] is UNKNOWN
    assert replacements(SCHEMA, state, planned) == [attribute("name")]


def test_a_default_comes_back_when_a_value_is_removed() -> None:
    state = applied(propose(SCHEMA, None, config(size=3)))
    assert propose(SCHEMA, state, config())["size"] == 1


def test_the_order_of_a_set_is_no_change() -> None:
    state = applied(propose(SCHEMA, None, config(tags=["x", "y"])))
    planned = propose(SCHEMA, state, config(tags=["y", "x"]))
    assert changed(SCHEMA, state, planned) == []


def test_nested_computed_values_are_kept_by_key() -> None:
    state = applied(propose(SCHEMA, None, config(ports={"p": port(), "q": port()})))
    planned = propose(SCHEMA, state, config(ports={"q": port(note="n"), "r": port()}))
    assert planned["ports"]["q"] == port(kind="tap", mac="known now", note="n")
    assert planned["ports"]["r"] == port(kind="tap", mac=UNKNOWN)
