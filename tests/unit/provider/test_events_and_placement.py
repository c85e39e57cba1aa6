"""`flintlock_events`, `flintlock_placement` and the rehearsal of a group against the real API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from provider_shim.framework import engine
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Diagnostic, ProviderError, Report, show_path
from provider_shim.framework.schema import Nested
from provider_shim.framework.types import Object
from provider_shim.framework.validate import check
from provider_shim.resources.connection import Connection
from provider_shim.resources.events_source import EventsSource
from provider_shim.resources.microvm_group import MicroVMGroupResource
from provider_shim.resources.placement_source import PlacementSource
from support.builders import agent_connected
from unit.api.rig import TOKEN, Rig, served

from controlplane.machine import recent_events
from controlplane.model.resources import ObservedPower

KERNEL = {"image": "demo/kernel:6.1"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path]]:
    directory = tmp_path_factory.mktemp("api")
    with served(directory) as made:
        yield made, directory / "ca" / "ca.crt"


@pytest.fixture
def api(rig: tuple[Rig, Path]) -> Rig:
    """A host of 4 vcpu that offers, and demo/web, which drifted there."""
    made = rig[0]
    made.reset()
    made.with_host()
    made.do(agent_connected("h1", vcpu=4))
    made.active()
    made.report("web", power=ObservedPower.STOPPED)
    made.agents.scores = {"h1": 0.1}
    return made


@pytest.fixture
def connection(api: Rig, rig: tuple[Rig, Path]) -> Connection:
    return connected(api, rig)


def connected(api: Rig, rig: tuple[Rig, Path], **settings: object) -> Connection:
    environment = {
        "FLINTLOCK_ENDPOINTS": api.url("//").rstrip("/"),
        "FLINTLOCK_TOKEN": TOKEN,
        "FLINTLOCK_CA_FILE": str(rig[1]),
    }
    made = Connection(threading.Event(), environment)
    made.configure(settings, Report())
    return made


def filled(nested: Nested, given: dict[str, Any]) -> Object:
    """`given` as Terraform sends it: every attribute there, null where nothing is said."""
    value: Object = {}
    for name, each in nested.attributes.items():
        inner = given.get(name)
        value[name] = filled(each.type, inner) if isinstance(each.type, Nested) and isinstance(inner, dict) else inner
    return value


# -- events ------------------------------------------------------------------------------------------------------------


def events(connection: Connection, **config: object) -> Object:
    nothing: Object = dict.fromkeys(EventsSource.schema.attributes)
    return EventsSource(connection).read(Call(), {**nothing, **config})


def reasons(connection: Connection, **config: object) -> list[str]:
    return [each["reason"] for each in events(connection, **config)["events"]]


def test_events_are_chosen_as_asked_for(connection: Connection) -> None:
    assert reasons(connection, kind="MicroVM", namespace="demo", name="web", host="h1") == [
        "Placed",
        "Running",
        "Ready",
        "Stopped",
        "Drifted",
    ]
    assert reasons(connection, reasons=["Drifted", "Placed"]) == ["Placed", "Drifted"]
    assert reasons(connection, reasons=[]) == []
    assert reasons(connection, type="warning") == ["Drifted"]
    assert reasons(connection, since="2100-01-01T00:00:00Z") == []
    assert len(reasons(connection, since="2020-01-01T00:00:00.5+01:00")) > 5


def test_what_was_left_out_and_what_is_forgotten_are_two_things(
    connection: Connection, api: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = events(connection, limit=2)
    assert ([each["reason"] for each in found["events"]], found["more"], found["complete"]) == (
        ["Stopped", "Drifted"],
        True,
        True,
    )
    monkeypatch.setattr(recent_events, "KEPT", 3)
    api.put("/namespaces/late", {"spec": {}})
    cut = events(connection)
    assert (len(cut["events"]), cut["more"], cut["complete"]) == (3, False, False)
    assert cut["oldest_at"] == cut["events"][0]["at"]
    assert events(connection, from_revision=found["events"][0]["revision"])["complete"] is True


def test_a_wrong_filter_is_told_at_its_argument(connection: Connection) -> None:
    with pytest.raises(ProviderError) as caught:
        events(connection, reasons=["Exploded"])
    (told,) = caught.value.diagnostics
    assert show_path(told.path) == "reasons"
    with pytest.raises(ProviderError) as caught:
        events(connection, since="2026-13-01T00:00:00Z")
    assert show_path(caught.value.diagnostics[0].path) == "since"
    config: Object = dict.fromkeys(EventsSource.schema.attributes)
    (refusal,) = check(EventsSource.schema, {**config, "since": "yesterday"})
    assert "RFC 3339" in refusal.detail


# -- placement ---------------------------------------------------------------------------------------------------------


def preview(connection: Connection, **asked: dict[str, dict[str, Any]]) -> Object:
    config: Object = dict.fromkeys(PlacementSource.schema.attributes)
    config["namespace"] = "demo"
    for argument, given in asked.items():
        nested = PlacementSource.schema.attributes[argument].type
        assert isinstance(nested, Nested)
        config[argument] = {name: filled(nested, each) for name, each in given.items()}
    return PlacementSource(connection).read(Call(), config)


def small(**changes: Any) -> dict[str, Any]:
    return {"vcpu": 1, "memory_in_mb": 64, "kernel": KERNEL, **changes}


def test_each_is_told_where_it_would_go_and_nothing_is_declared(connection: Connection, api: Rig) -> None:
    before = api.digest
    found = preview(
        connection,
        microvms={"db": small(), "huge": small(vcpu=8), "web": small()},
        groups={"front": {"replicas": 2, "template": small()}, "wide": {"replicas": 5, "template": small()}},
    )
    assert api.digest == before
    assert [(each["kind"], each["name"], each["outcome"], each["fits"]) for each in found["placements"]] == [
        ("MicroVM", "db", "create", True),
        ("MicroVM", "huge", "create", False),
        ("MicroVM", "web", "update", True),
        ("MicroVMGroup", "front", "create", True),
        ("MicroVMGroup", "wide", "create", False),
    ]
    assert found["fits"] is False
    db, huge, web, front, wide = found["placements"]
    assert db["hosts"] == [{"host": "h1", "members": 1}]
    assert (huge["hosts"], huge["refusals"][0]["host"]) == ([], "h1")
    assert (web["hosts"], web["missing"]) == ([], 0)
    assert front["hosts"] == [{"host": "h1", "members": 2}]
    assert (wide["hosts"], wide["missing"], wide["unplaced"]) == ([{"host": "h1", "members": 3}], 5, 2)


def test_what_would_be_refused_as_things_are_is_an_answer(connection: Connection, api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_vcpu": 2}})
    found = preview(
        connection,
        microvms={"big": small(vcpu=2)},
        groups={"front": {"replicas": 3, "template": small()}},
    )
    big, front = found["placements"]
    assert (big["outcome"], big["fits"]) == ("refused", False)
    assert big["reason"].endswith("[quota_exceeded]")
    assert (front["fits"], front["looked_at"], front["missing"]) == (False, 1, 3)
    assert front["reason"].endswith("[QuotaExceeded]")


def test_what_could_never_be_declared_is_an_error_on_its_line(connection: Connection) -> None:
    with pytest.raises(ProviderError) as caught:
        preview(connection, groups={"front": {"replicas": 1, "template": small(kernel={"image": "NO IMAGE"})}})
    (told,) = caught.value.diagnostics
    assert show_path(told.path) == 'groups["front"].template.kernel.image'
    assert "group front" in told.summary


# -- the plan of a group -----------------------------------------------------------------------------------------------


def planned(connection: Connection, **given: Any) -> list[Diagnostic]:
    resource = MicroVMGroupResource(connection)
    nothing: Object = dict.fromkeys((*resource.schema.attributes, *resource.schema.blocks))
    template = resource.schema.attributes["template"].type
    assert isinstance(template, Nested)
    config: Object = {**nothing, "name": "front", "namespace": "demo", **given}
    config["template"] = filled(template, given["template"])
    call = Call()
    engine.plan(resource, call, None, config)
    return call.report.items


def test_a_group_that_fits_is_planned_without_a_word(connection: Connection) -> None:
    assert planned(connection, replicas=3, template=small()) == []


@pytest.mark.parametrize(("checks", "severity"), [("warn", "warning"), ("strict", "error")])
def test_members_that_no_host_would_take_are_told_while_planning(
    api: Rig, rig: tuple[Rig, Path], checks: str, severity: str
) -> None:
    (told,) = planned(connected(api, rig, plan_checks=checks), replicas=5, template=small())
    assert told.severity == severity
    assert told.summary == "No host would take 2 of 5 members of this group as things are"
    assert "vcpu" in told.detail
    assert told.detail.endswith("The others would go: 3 on h1.")


def test_a_quota_that_would_stop_a_group_is_told_while_planning(connection: Connection, api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {"max_microvms": 3}})
    (told,) = planned(connection, replicas=4, template=small())
    assert told.summary == "This group would stop at 2 of 4 members that it lacks, as things are"
    assert told.detail.endswith("[QuotaExceeded]")
