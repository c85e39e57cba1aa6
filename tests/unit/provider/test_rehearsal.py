"""What the API says to a plan: told as an error, a warning or not at all, and never in the way of a plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance.terraform.fake_api import FakeApi
from acceptance.terraform.fake_store import ProblemError
from provider_shim.framework import engine
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Diagnostic, Report, show_path
from provider_shim.framework.types import UNKNOWN, Object
from provider_shim.resources.connection import Connection
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.rehearsal import PATIENCE_S


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with FakeApi(tmp_path) as api:
        api.store.put(("Namespace", "", "demo"), {"spec": {}}, {})
        yield api


def resource_of(api: FakeApi, **settings: Any) -> MicroVMResource:
    connection = Connection(threading.Event(), api.environment)
    report = Report()
    connection.configure(settings, report)
    assert not report.items
    return MicroVMResource(connection)


def config(resource: MicroVMResource, **given: Any) -> Object:
    kernel = {"image": "k", "filename": None, "cmdline": None, "add_network_config": None}
    nothing: Object = dict.fromkeys((*resource.schema.attributes, *resource.schema.blocks))
    return {**nothing, "name": "web", "namespace": "demo", "vcpu": 1, "memory_in_mb": 64, "kernel": kernel, **given}


def said(resource: MicroVMResource, prior: Object | None = None, **given: Any) -> list[Diagnostic]:
    call = Call()
    engine.plan(resource, call, prior, config(resource, **given))
    return call.report.items


def test_what_can_never_be_applied_is_an_error_on_its_line(api: FakeApi) -> None:
    errors = [{"pointer": "/spec/memory_in_mb", "message": "is too little"}]
    api.store.refusal = ProblemError(422, "invalid", "The request is not valid", errors=errors)
    (found,) = said(resource_of(api))
    assert found.severity == "error"
    assert show_path(found.path) == "memory_in_mb"
    assert found.detail == "is too little. [invalid]"


@pytest.mark.parametrize(("checks", "severity"), [(None, "warning"), ("warn", "warning"), ("strict", "error")])
def test_what_something_else_may_mend_is_a_warning_unless_checks_are_strict(
    api: FakeApi, checks: str | None, severity: str
) -> None:
    resource = resource_of(api, plan_checks=checks)
    api.store.refusal = ProblemError(409, "quota_exceeded", "The quota is used up", errors=[])
    (found,) = said(resource)
    assert found.severity == severity
    assert "refused as things are" in found.summary
    api.store.refusal = None
    bids = [{"host": f"h{number}", "refused": "it is full"} for number in range(5)]
    api.store.placement = {"host": None, "reason": "no host would take it", "bids": bids}
    (found,) = said(resource, vcpu=2)
    assert found.severity == severity
    assert "no host would take it. h0: it is full; h1: it is full; h2: it is full; and 2 more." in found.detail


@pytest.mark.parametrize("code", ["namespace_not_found", "policy_not_found", "role_not_found", "already_exists"])
def test_what_is_merely_not_there_yet_is_not_mentioned(api: FakeApi, code: str) -> None:
    api.store.refusal = ProblemError(422, code, "Not there", errors=[{"pointer": "/spec/placement", "message": "no"}])
    assert not said(resource_of(api))


def test_equal_creates_are_asked_about_once(api: FakeApi) -> None:
    api.store.refusal = ProblemError(409, "quota_exceeded", "The quota is used up", errors=[])
    resource = resource_of(api)
    api.faults.delay_s = 0.2
    found: list[list[Diagnostic]] = []
    threads = [threading.Thread(target=lambda n=n: found.append(said(resource, name=f"web-{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(each) for each in found] == [1] * 8
    assert len(api.rehearsals()) == 1
    said(resource, vcpu=2)
    assert len(api.rehearsals()) == 2
    assert not api.calls("PUT")


def test_nothing_is_asked_of_what_does_not_change_or_is_not_known(api: FakeApi) -> None:
    resource = resource_of(api)
    call = Call()
    planned = engine.plan(resource, call, None, config(resource)).planned
    state = engine.apply(resource, call, None, planned)
    assert state is not None
    before = len(api.rehearsals())
    said(resource, state)
    said(resource, vcpu=UNKNOWN)
    said(resource, namespace=UNKNOWN)
    assert len(api.rehearsals()) == before
    said(resource, state, labels={"a": "b"})
    assert len(api.rehearsals()) == before + 1


def test_a_plan_is_made_without_an_answer_and_without_waiting_twice(api: FakeApi) -> None:
    resource = resource_of(api)
    api.faults.unavailable = 1_000
    began = time.monotonic()
    assert not said(resource)
    waited = time.monotonic() - began
    assert waited >= PATIENCE_S * 0.9
    asked = len(api.rehearsals())
    assert not said(resource, vcpu=2)
    assert len(api.rehearsals()) == asked


def test_nothing_is_asked_where_checks_are_off(api: FakeApi) -> None:
    assert not said(resource_of(api, plan_checks="off"))
    assert not api.rehearsals()


def test_other_words_for_the_checks_are_refused(api: FakeApi) -> None:
    report = Report()
    Connection(threading.Event(), api.environment).configure({"plan_checks": "maybe"}, report)
    (found,) = report.items
    assert show_path(found.path) == "plan_checks"
    assert "strict, warn, off" in found.detail
