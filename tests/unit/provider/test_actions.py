"""Actions, called over the protocol and carried out by the real API over an in-memory replica.

A test plays the agents and the leader: it proposes what they would report and decide.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from provider_shim.framework.diagnostics import Report
from provider_shim.resources.actions.garbage import MAX_LIMIT, TRIGGERS
from provider_shim.resources.provider import FlintlockProvider
from support.builders import failure, observation, report
from support.plugin import Ask, config, served, texts, wire
from unit.api.rig import TOKEN, Rig
from unit.api.rig import served as served_api

from controlplane.api.http.routes import gc
from controlplane.model.commands import HostEvacuated
from controlplane.model.gc import Trigger
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import GCPolicySpec


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with served_api(tmp_path_factory.mktemp("api")) as made:
        yield made


@dataclass
class Terraform:
    """A provider that is configured for the API, and who calls it."""

    api: Rig
    provider: FlintlockProvider
    ask: Ask

    def invoke(self, name: str, /, **values: Any) -> Iterator[Any]:
        schema = self.provider.actions[name].schema
        return self.ask("InvokeAction", action_type=name, config=wire(schema, config(schema, **values)))

    def told(self, name: str, /, **values: Any) -> tuple[list[str], list[str]]:
        """Lines of progress, and diagnostics at the end."""
        *progress, last = self.invoke(name, **values)
        assert last.WhichOneof("type") == "completed"
        return [each.progress.message for each in progress], texts(last.completed.diagnostics)

    def refused(self, name: str, /, **values: Any) -> list[str]:
        schema = self.provider.actions[name].schema
        given = wire(schema, config(schema, **values))
        return texts(self.ask("ValidateActionConfig", type_name=name, config=given).diagnostics)


@pytest.fixture
def terraform(api: Rig) -> Iterator[Terraform]:
    api.reset()
    provider = FlintlockProvider()
    told = Report()
    provider.configure({"endpoints": [api.url("//")], "token": TOKEN, "ca_file": api.session.verify}, told)
    assert told.items == []
    with served(provider) as ask:
        yield Terraform(api, provider, ask)


# -- microVMs ----------------------------------------------------------------------------------------------------------


def test_a_restart_is_over_when_the_host_says_so(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    events = terraform.invoke("flintlock_microvm_restart", namespace="demo", name="web")
    first = next(events)
    assert first.progress.message.startswith("microVM demo/web: ")
    assert api.vm().restart_seq == 1
    api.report(restart_seq=1)
    *_, restarted, last = events
    assert restarted.progress.message == "microVM demo/web: restarted"
    assert texts(last.completed.diagnostics) == []


def test_a_stop_changes_the_intent_and_a_second_one_has_nothing_to_do(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    events = terraform.invoke("flintlock_microvm_stop", namespace="demo", name="web")
    next(events)
    assert api.vm().spec.power_state.value == "stopped"
    api.report(power=ObservedPower.STOPPED)
    list(events)
    progress, diagnostics = terraform.told("flintlock_microvm_stop", namespace="demo", name="web")
    assert (progress, diagnostics) == (["microVM demo/web: stopped"], [])


def test_what_something_newer_took_the_place_of_is_no_success(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    events = terraform.invoke("flintlock_microvm_stop", namespace="demo", name="web")
    next(events)
    assert api.post("/namespaces/demo/microvms/web/actions/start").status_code == 202
    *_, last = events
    (told,) = texts(last.completed.diagnostics)
    assert "Something newer took the place of the stop of microVM demo/web" in told


def test_a_timeout_says_how_far_it_is(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    (*_, told) = terraform.told("flintlock_microvm_restart", namespace="demo", name="web", timeout="300ms")
    assert "microVM demo/web is not restarted after 300ms" in told[0]


def test_a_microvm_that_is_not_there_is_an_error_on_its_attribute(terraform: Terraform) -> None:
    terraform.api.with_host()
    *_, last = terraform.invoke("flintlock_microvm_start", namespace="demo", name="nope")
    (diagnostic,) = last.completed.diagnostics
    assert "Cannot start microVM demo/nope" in diagnostic.summary
    assert "[not_found]" in diagnostic.detail
    assert [step.attribute_name for step in diagnostic.attribute.steps] == ["name"]


# -- hosts -------------------------------------------------------------------------------------------------------------


def test_a_drain_tells_how_far_it_is_and_is_done_when_nothing_is_left(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    events = terraform.invoke("flintlock_host_drain", host="h1", max_parallel=3)
    assert next(events).progress.message == "host h1: 0 moved, 0 under way, 1 waiting, 0 staying"
    evacuation = api.get("/hosts/h1").json()["spec"]
    assert (evacuation["mode"], evacuation["evacuation"]["max_parallel"]) == ("drain", 3)
    api.delete("/namespaces/demo/microvms/web")
    api.confirm_destroyed()
    assert next(events).progress.message == "host h1: 0 moved, 0 under way, 0 waiting, 0 staying"
    api.do(HostEvacuated(host="h1"))
    (last,) = events
    assert texts(last.completed.diagnostics) == []
    progress_of_end, diagnostics = terraform.told("flintlock_host_uncordon", host="h1")
    assert (progress_of_end, diagnostics) == (["host h1: microVMs may come again"], [])
    assert api.get("/hosts/h1").json()["spec"]["mode"] == "active"


def test_what_cannot_leave_fails_the_drain_with_its_reason(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active(placement={"host": "h1"})
    _, (told,) = terraform.told("flintlock_host_drain", host="h1")
    assert "Host h1 cannot be drained" in told
    assert "demo/web: its placement.host asks for host h1 alone" in told
    assert "maintenance = true" in told


def test_a_drain_that_somebody_else_ended_is_no_success(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    events = terraform.invoke("flintlock_host_drain", host="h1")
    next(events)
    assert api.post("/hosts/h1/actions/uncordon").status_code == 200
    *_, last = events
    assert "its drain was ended by somebody else" in texts(last.completed.diagnostics)[0].lower()


def test_an_interrupted_action_ends_at_once_and_says_what_goes_on(terraform: Terraform) -> None:
    api = terraform.api
    api.with_host()
    api.active()
    events = terraform.invoke("flintlock_host_drain", host="h1")
    next(events)
    time.sleep(1)  # until it pauses for longer than the bound below
    began = time.monotonic()
    assert terraform.ask("StopProvider").Error == ""
    *_, last = events
    assert time.monotonic() - began < 0.5
    (told,) = texts(last.completed.diagnostics)
    assert "Interrupted while host h1 is emptied" in told
    assert "It goes on: 0 moved, 0 under way, 1 waiting, 0 staying." in told


# -- garbage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(terraform: Terraform) -> Iterator[Terraform]:
    """One microVM that failed, and a policy by which it goes at once."""
    api = terraform.api
    services = api.server.app.state.services
    policy = GCPolicySpec(failed_microvm_after_s=0)
    api.server.app.state.services = replace(services, settings=replace(services.settings, gc_policy=policy))
    api.with_host()
    api.put_vm()
    api.place()
    api.do(report(observation(api.vm(), power=ObservedPower.ABSENT, generation=None, failure=failure())))
    yield terraform
    api.server.app.state.services = services


def test_what_is_due_is_collected_and_named(failed: Terraform) -> None:
    assert failed.told("flintlock_gc_run", only=["leftover"]) == (["0 collected"], [])
    progress, diagnostics = failed.told("flintlock_gc_run", only=["failed_microvm"], limit=10)
    assert (progress, diagnostics) == (["failed_microvm: collected MicroVM demo/web on host h1", "1 collected"], [])
    assert failed.api.get("/namespaces/demo/microvms/web").json()["status"]["phase"] == "deleting"


def test_a_plan_that_is_stale_is_made_again(failed: Terraform, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held between a plan and its run: that run is refused, and the next plan has nothing to collect."""
    client, asked = failed.provider.connection.client(), list[str]()
    send = client.send

    def hold_and_send(method: str, path: str, **rest: Any) -> Any:
        asked.append(path)
        if asked.count("/gc/run") == 1:
            thing = {"kind": "MicroVM", "namespace": "demo", "name": "web", "reason": "somebody looks at it"}
            assert failed.api.post("/gc/hold", thing).status_code == 200
        return send(method, path, **rest)

    monkeypatch.setattr(client, "send", hold_and_send)
    assert failed.told("flintlock_gc_run") == (["0 collected"], [])
    assert asked == ["/gc/plan", "/gc/run"] * 2


def test_the_triggers_and_the_limit_are_the_apis() -> None:
    assert set(TRIGGERS) == {each.value for each in Trigger}
    assert gc.MAX_LIMIT == MAX_LIMIT


# -- before anything is done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("flintlock_host_drain", {"host": "H1"}, '"H1" is not a name'),
        ("flintlock_host_drain", {"host": "h1", "max_parallel": 0}, "between 1 and 100"),
        ("flintlock_host_drain", {"host": "h1", "timeout": "soon"}, '"soon" is not a duration'),
        ("flintlock_gc_run", {"only": ["everything"]}, '"everything" is not one of'),
        ("flintlock_microvm_stop", {"name": "web", "namespace": "a/b"}, '"a/b" is not a name'),
    ],
)
def test_a_bad_configuration_is_refused(terraform: Terraform, name: str, values: dict[str, Any], words: str) -> None:
    assert words in terraform.refused(name, **values)[0]


def test_a_plan_waits_for_a_provider_that_is_not_known_yet(terraform: Terraform) -> None:
    name = "flintlock_host_uncordon"
    assert not terraform.ask("PlanAction", action_type=name).HasField("deferred")
