"""`flintlock_drift` and `list "flintlock_microvm"` against the real API: what they ask for, and what comes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import ProviderError, Report
from provider_shim.framework.types import Object
from provider_shim.framework.validate import check
from provider_shim.resources.connection import Connection
from provider_shim.resources.drift_source import DriftSource
from provider_shim.resources.microvm.listing import MicroVMList
from unit.api.rig import TOKEN, Rig, served

from controlplane.model.resources import ObservedPower

EVERYTHING: Object = {"namespace": None, "classes": None}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path]]:
    directory = tmp_path_factory.mktemp("api")
    with served(directory) as made:
        yield made, directory / "ca" / "ca.crt"


@pytest.fixture
def api(rig: tuple[Rig, Path]) -> Rig:
    """demo/web runs, demo/waiting is on its way, and demo/down drifted."""
    made = rig[0]
    made.reset()
    made.with_host()
    for name in ("web", "down"):
        made.active(name)
    made.put_vm("waiting")
    made.report("down", power=ObservedPower.STOPPED, cause="process exited (signal 9)")
    return made


@pytest.fixture
def connection(api: Rig, rig: tuple[Rig, Path]) -> Connection:
    environment = {
        "FLINTLOCK_ENDPOINTS": api.url("//").rstrip("/"),
        "FLINTLOCK_TOKEN": TOKEN,
        "FLINTLOCK_CA_FILE": str(rig[1]),
    }
    made = Connection(threading.Event(), environment)
    made.configure({}, Report())
    return made


def found(connection: Connection, **config: object) -> dict[str, str]:
    answer = DriftSource(connection).read(Call(), {**EVERYTHING, **config})
    assert answer["summary"]["in_sync"] == answer["summary"]["drifted"] == 1
    return {each["name"]: each["class"] for each in answer["microvms"]}


def test_what_is_in_sync_is_shown_only_when_asked_for(connection: Connection) -> None:
    assert found(connection) == {"down": "drifted", "waiting": "progressing"}
    assert found(connection, classes=["in_sync"]) == {"web": "in_sync"}
    assert found(connection, classes=["drifted", "unmanaged"], namespace="demo") == {"down": "drifted"}


def test_no_class_is_nothing(connection: Connection) -> None:
    assert found(connection, classes=[]) == {}


def test_fields_are_texts(connection: Connection) -> None:
    answer = DriftSource(connection).read(Call(), {**EVERYTHING, "classes": ["drifted"]})
    ((field,),) = (each["fields"] for each in answer["microvms"])
    assert field["since"]
    assert {name: field[name] for name in ("pointer", "desired", "observed", "cause")} == {
        "pointer": "/spec/power_state",
        "desired": "running",
        "observed": "stopped",
        "cause": "process exited (signal 9)",
    }


def test_a_class_that_is_none_is_refused_before_the_api_is_asked() -> None:
    (refusal,) = check(DriftSource.schema, {"namespace": None, "classes": ["drifted", "moved"]})
    assert '"moved" is not one of' in refusal.detail


def test_a_namespace_that_is_none_is_told_at_its_argument(connection: Connection) -> None:
    with pytest.raises(ProviderError) as caught:
        DriftSource(connection).read(Call(), {**EVERYTHING, "namespace": "NO"})
    assert "Cannot read data source flintlock_drift" in str(caught.value)


def test_a_list_has_the_intent_even_of_what_drifted(connection: Connection) -> None:
    listed = {each.shown: each for each in MicroVMList(connection).find(Call(), {})}
    assert sorted(listed) == ["demo/down", "demo/waiting", "demo/web"]
    assert listed["demo/down"].state["power_state"] == "running"
    assert listed["demo/down"].identity == {"namespace": "demo", "name": "down"}


def test_what_is_being_deleted_is_not_listed(connection: Connection, api: Rig) -> None:
    api.delete("/namespaces/demo/microvms/web")
    assert "demo/web" not in {each.shown for each in MicroVMList(connection).find(Call(), {"namespace": "demo"})}
