"""Create, read, update and delete of resources, without Terraform: what is sent, what is kept when something fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from acceptance.terraform.fake_api import FakeApi
from provider_shim.framework import engine
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report, show_path
from provider_shim.framework.types import Object
from provider_shim.resources.connection import Connection
from provider_shim.resources.declared import DeclaredResource
from provider_shim.resources.host import HostResource
from provider_shim.resources.microvm import drift
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.namespace import NamespaceResource

WEB = ("MicroVM", "demo", "web")


@dataclass
class Bench:
    api: FakeApi
    connection: Connection
    microvm: MicroVMResource
    cancel: threading.Event

    def config(self, **given: Any) -> Object:
        kernel = {"image": "k", "filename": None, "cmdline": None, "add_network_config": None}
        nothing: Object = dict.fromkeys((*self.microvm.schema.attributes, *self.microvm.schema.blocks))
        return {**nothing, "name": "web", "namespace": "demo", "vcpu": 1, "memory_in_mb": 64, "kernel": kernel, **given}

    def apply(self, prior: Object | None, config: Object | None, **private: Any) -> tuple[Object | None, list[str]]:
        call = Call(cancel=self.cancel, private=private)
        planned = engine.plan(self.microvm, call, prior, config).planned
        state = engine.apply(self.microvm, call, prior, planned)
        return state, [f"{each.severity}: {each.summary}. {each.detail}" for each in call.report.items]

    def read(self, state: Object) -> tuple[Object | None, Call]:
        call = Call(cancel=self.cancel)
        return engine.read(self.microvm, call, state), call


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeApi(tmp_path) as api:
        cancel = threading.Event()
        connection = Connection(cancel, api.environment)
        report = Report()
        connection.configure({}, report)
        assert report.items == []
        api.store.put(("Namespace", "", "demo"), {"spec": {}}, {})
        yield Bench(api, connection, MicroVMResource(connection), cancel)


def test_the_same_intent_is_adopted_and_another_one_is_not(bench: Bench) -> None:
    first, _ = bench.apply(None, bench.config())
    again, said = bench.apply(None, bench.config())
    assert first
    assert again == first
    assert said == []
    other, said = bench.apply(None, bench.config(vcpu=2))
    assert other is None
    assert "terraform import flintlock_microvm.NAME demo/web" in said[0]
    assert len(bench.api.store.created_uids) == 2


def test_a_recreated_object_of_the_same_name_is_not_ours(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    assert state
    bench.api.store.delete(WEB)
    bench.api.store.put(WEB, {"spec": {"vcpu": 1, "memory_in_mb": 64, "kernel": {"image": "k"}}}, {})
    seen, call = bench.read(state)
    assert seen is None
    assert "another one now" in call.report.items[0].summary
    gone, said = bench.apply(state, None)
    assert gone is None
    assert "was not deleted" in said[0]
    assert WEB in bench.api.store.objects


def test_a_create_waits_for_the_name_to_be_free(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    bench.api.store.hold_deletes = True
    bench.api.store.delete(WEB)
    timer = threading.Timer(0.3, bench.api.store.release)
    timer.start()
    fresh, said = bench.apply(None, bench.config(vcpu=2))
    timer.join()
    assert said == []
    assert state
    assert fresh
    assert fresh["uid"] != state["uid"]


def test_an_interrupted_wait_keeps_what_was_declared_and_does_not_fail(bench: Bench) -> None:
    bench.api.store.hold = True

    def interrupt() -> None:
        bench.cancel.set()
        bench.connection.interrupt()

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    state, said = bench.apply(None, bench.config())
    timer.join()
    assert state
    assert state["uid"] == bench.api.store.objects[WEB]["uid"]
    assert [each.split(":")[0] for each in said] == ["warning"]


def test_wait_for_none_returns_at_once(bench: Bench) -> None:
    bench.api.store.hold = True
    state, said = bench.apply(None, bench.config(wait_for="none"))
    assert state
    assert said == []
    assert not [each for each in bench.api.calls("GET") if each.path.endswith("/web")]


def test_a_stopped_microvm_is_not_waited_for_to_run(bench: Bench) -> None:
    state, said = bench.apply(None, bench.config(power_state="stopped"))
    assert state
    assert said == []


def test_drift_is_remembered_and_repaired_once(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config(drift_policy="report"))
    assert state
    bench.api.store.drift(WEB, "/spec/vcpu", 2, "changed on the host")
    seen, call = bench.read(state)
    assert seen
    assert seen["vcpu"] == 2
    assert call.private[drift.PRIVATE_KEY] == ["/spec/vcpu"]
    repaired, said = bench.apply(seen, bench.config(drift_policy="report"), **call.private)
    assert repaired == state
    assert [each for each in said if each.startswith("error")] == []
    assert bench.api.store.repairs == [WEB]
    assert drift.PRIVATE_KEY not in bench.read(state)[1].private


def test_an_update_that_is_refused_keeps_the_prior_state(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    kept, said = bench.apply(state, bench.config(initrd={"image": "a", "filename": "x\ny"}))
    assert kept == state
    assert any("Cannot update microVM demo/web" in each for each in said)


def test_a_warning_points_at_the_field_that_it_is_about(bench: Bench) -> None:
    report = Report()
    warnings = ["spec.recovery.on_host_failure: recorded only", "it is late"]
    bench.microvm.pass_warnings(report, {"namespace": "demo", "name": "web"}, {"warnings": warnings})
    assert [(show_path(each.path), each.detail) for each in report.items] == [
        ("recovery.on_host_failure", "recovery.on_host_failure: recorded only."),
        ("", "it is late"),
    ]
    assert {each.summary for each in report.items} == {"The control plane warns about microVM demo/web"}


def test_an_unknown_namespace_is_said_at_the_attribute(bench: Bench) -> None:
    call = Call(cancel=bench.cancel)
    planned = engine.plan(bench.microvm, call, None, bench.config(namespace="none")).planned
    assert engine.apply(bench.microvm, call, None, planned) is None
    assert [step.name for step in call.report.items[0].path] == ["namespace"]  # type: ignore[union-attr]


def test_deleting_twice_is_deleting_once(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    for _ in range(2):
        assert bench.apply(state, None) == (None, [])


def in_state(bench: Bench, resource: DeclaredResource, kind: str, name: str) -> Object:
    """An object as Terraform would have it in state."""
    state: Object = {**dict.fromkeys((*resource.schema.attributes, *resource.schema.blocks)), "name": name}
    return {**state, "id": name, "uid": bench.api.store.objects[kind, "", name]["uid"]}


def namespace_of(bench: Bench) -> tuple[NamespaceResource, Object]:
    resource = NamespaceResource(bench.connection)
    return resource, in_state(bench, resource, "Namespace", "demo")


def test_a_microvm_on_a_host_that_is_not_heard_is_warned_of_and_stays(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    assert state
    status = bench.api.store.objects[WEB]["status"]
    told = {"type": "Running", "status": "unknown", "reason": "HostUnreachable", "message": "host h1 is suspect"}
    field = {"pointer": "/spec/power_state", "desired": "running", "observed": "stopped", "since": None, "cause": None}
    status.update(drift={"class": "unreachable", "fields": [field]}, conditions=[told])
    seen, call = bench.read(state)
    assert seen == state
    assert drift.PRIVATE_KEY not in call.private
    (warned,) = call.report.items
    assert (warned.severity, warned.summary) == ("warning", "Host h1 is not heard: what runs there is not known")
    assert warned.detail == "microVM demo/web stays in state as it was declared: host h1 is suspect."


def test_a_microvm_that_is_restarted_elsewhere_is_no_news(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config(recovery={"on_host_failure": "restart_elsewhere"}))
    assert state
    status = bench.api.store.objects[WEB]["status"]
    status.update(phase="pending", host=None, power_state=None, drift={"class": "progressing", "fields": []})
    seen, call = bench.read(state)
    assert (seen, call.report.items) == (state, [])
    plan = engine.plan(bench.microvm, Call(cancel=bench.cancel), seen, bench.config(recovery=state["recovery"]))
    assert plan.planned == seen
    status.update(phase="active", host="h2", epoch=2, power_state="running", drift={"class": "in_sync", "fields": []})
    assert bench.read(state)[0] == state


@pytest.mark.parametrize("phase", ["suspect", "detached", "fenced"])
def test_a_host_that_is_not_heard_is_warned_of_and_stays(bench: Bench, phase: str) -> None:
    bench.api.store.put(("Host", "", "h1"), {"spec": {}}, {})
    resource = HostResource(bench.connection)
    state = in_state(bench, resource, "Host", "h1")
    call = Call(cancel=bench.cancel)
    seen = engine.read(resource, call, state)
    assert call.report.items == []
    told = {"type": "Connected", "status": "false", "reason": "AgentSilent", "message": "its agent is silent"}
    bench.api.store.objects["Host", "", "h1"]["status"].update(phase=phase, conditions=[told])
    assert engine.read(resource, call, state) == seen
    (warned,) = call.report.items
    assert (warned.severity, warned.summary) == ("warning", f"Host h1 is not heard: it is {phase}")
    assert "its agent is silent" in warned.detail


def test_what_was_read_last_is_deleted_without_another_look(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    assert state
    _, call = bench.read(state)
    bench.api.requests.clear()
    assert bench.apply(state, None, **call.private) == (None, [])
    (only,) = bench.api.requests
    revision = call.private["revision"]
    assert (only.method, only.headers["if-match"]) == ("DELETE", f'"{revision}"')
    assert WEB not in bench.api.store.objects


def test_what_was_changed_since_it_was_read_is_looked_at_first(bench: Bench) -> None:
    state, _ = bench.apply(None, bench.config())
    assert state
    _, call = bench.read(state)
    bench.apply(state, bench.config(labels={"a": "b"}))
    bench.api.requests.clear()
    assert bench.apply(state, None, **call.private) == (None, [])
    sent = [(each.method, "if-match" in each.headers) for each in bench.api.requests]
    assert sent == [("DELETE", True), ("GET", False), ("DELETE", False)]
    assert WEB not in bench.api.store.objects

    # Another one of that name has another revision, and is left alone.
    bench.api.store.put(WEB, {"spec": {"vcpu": 1, "memory_in_mb": 64, "kernel": {"image": "k"}}}, {})
    _, said = bench.apply(state, None, **call.private)
    assert "was not deleted" in said[0]
    assert WEB in bench.api.store.objects


def test_what_is_in_use_is_deleted_once_it_is_free(bench: Bench) -> None:
    bench.apply(None, bench.config())
    resource, state = namespace_of(bench)
    timer = threading.Timer(0.5, bench.api.store.delete, [WEB])
    timer.start()
    call = Call(cancel=bench.cancel)
    assert engine.apply(resource, call, state, None) is None
    timer.join()
    assert call.report.items == []
    assert bench.api.store.objects == {}


def test_what_stays_in_use_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provider_shim.resources.declared.IN_USE_PATIENCE_S", 0.3)
    bench.apply(None, bench.config())
    resource, state = namespace_of(bench)
    call = Call(cancel=bench.cancel)
    assert engine.apply(resource, call, state, None) == state
    assert "namespace_not_empty" in call.report.items[0].detail


def test_an_interrupt_ends_the_wait_for_what_is_in_use(bench: Bench) -> None:
    bench.apply(None, bench.config())
    resource, state = namespace_of(bench)
    bench.cancel.set()
    call = Call(cancel=bench.cancel)
    assert engine.apply(resource, call, state, None) == state
    assert "Interrupted while trying to delete namespace demo" in call.report.items[0].summary


def test_the_provider_default_namespace_is_planned(bench: Bench) -> None:
    call = Call(cancel=bench.cancel)
    plan = engine.plan(bench.microvm, call, None, bench.config(namespace=None))
    assert plan.planned
    assert plan.planned["namespace"] == "default"
