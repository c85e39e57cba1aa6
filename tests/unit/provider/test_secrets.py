"""Sensitive metadata in Terraform's hands, against the real API: kept while it is as declared, else shown changed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from provider_shim.framework import engine
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report
from provider_shim.framework.types import Object
from provider_shim.resources.connection import Connection
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.microvm.secrets import CHANGED
from unit.api.rig import SPEC, TOKEN, Rig, served

SECRET = "correct-horse"


class Bench:
    """One microVM of a configuration; private state is kept from call to call, as Terraform does."""

    def __init__(self, api: Rig, ca_file: Path) -> None:
        self.api = api
        cancel = threading.Event()
        environment = {"FLINTLOCK_ENDPOINTS": api.url("//"), "FLINTLOCK_TOKEN": TOKEN}
        connection = Connection(cancel, {**environment, "FLINTLOCK_CA_FILE": str(ca_file)})
        report = Report()
        connection.configure({}, report)
        assert report.items == []
        self.resource = MicroVMResource(connection)
        self.cancel = cancel
        self.private: dict[str, Any] = {}

    def config(self, secrets: dict[str, str] | None) -> Object:
        kernel = {"image": "demo/kernel:6.1", "filename": None, "cmdline": None, "add_network_config": None}
        nothing: Object = dict.fromkeys((*self.resource.schema.attributes, *self.resource.schema.blocks))
        given: Object = {"name": "web", "namespace": "demo", "vcpu": 1, "memory_in_mb": 128, "kernel": kernel}
        return {**nothing, **given, "wait_for": "none", "sensitive_metadata": secrets}

    def apply(self, prior: Object | None, secrets: dict[str, str] | None) -> Object:
        call = Call(cancel=self.cancel, private=self.private)
        planned = engine.plan(self.resource, call, prior, self.config(secrets)).planned
        state = engine.apply(self.resource, call, prior, planned)
        assert state is not None, call.report.items
        self.private = call.private
        return state

    def read(self, state: Object) -> Object:
        call = Call(cancel=self.cancel, private=self.private)
        found = engine.read(self.resource, call, state)
        assert found is not None
        self.private = call.private
        return found


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path]]:
    directory = tmp_path_factory.mktemp("api")
    with served(directory) as made:
        yield made, directory / "ca" / "ca.crt"


@pytest.fixture
def bench(rig: tuple[Rig, Path]) -> Bench:
    rig[0].reset()
    rig[0].with_host()
    return Bench(*rig)


def test_what_is_as_it_was_declared_stays_as_it_is_written(bench: Bench) -> None:
    state = bench.apply(None, {"user-data": SECRET})
    assert state["sensitive_metadata"] == {"user-data": SECRET}
    assert bench.read(state) == state
    assert bench.apply(state, {"user-data": SECRET}) == state
    assert bench.api.vm().meta.generation == 1
    changed = bench.apply(state, {"user-data": "another"})
    assert bench.read(changed)["sensitive_metadata"] == {"user-data": "another"}
    assert bench.api.vm().meta.generation == 2
    assert bench.apply(changed, None)["sensitive_metadata"] is None
    assert bench.api.vm().sealed == {}


def test_what_was_changed_elsewhere_shows_and_is_declared_again(bench: Bench) -> None:
    state = bench.apply(None, {"user-data": SECRET})
    other = {"spec": SPEC, "sensitive_metadata": {"user-data": "another", "vendor-data": "more"}}
    assert bench.api.put("/namespaces/demo/microvms/web", other).status_code == 200
    seen = bench.read(state)
    assert seen["sensitive_metadata"] == {"user-data": CHANGED, "vendor-data": CHANGED}
    assert bench.read(seen) == seen, "until it is declared again"
    mended = bench.apply(seen, {"user-data": SECRET})
    assert bench.read(mended) == state


def test_nothing_that_follows_from_a_secret_is_sent_but_the_secret(bench: Bench) -> None:
    """The key of a create would be a digest that anybody could try guesses on."""
    planned = bench.config({"user-data": SECRET})
    body = bench.resource.translation.body(planned)
    bare = bench.resource.translation.body(bench.config(None))
    assert body["sensitive_metadata"] == {"user-data": SECRET}
    assert bench.resource._create_key(planned, body) == bench.resource._create_key(planned, bare)
